//! What a query may say, and nothing else.

use actix_web::web;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// Reads a query string as a whole.
pub(super) fn read<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let read = web::Query::<T>::from_query(query);
    read.map(web::Query::into_inner)
        .map_err(|cause| Problem::BadRequest(format!("the query cannot be read: {cause}").into()))
}
