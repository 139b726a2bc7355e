//! Schemas of query parameters whose values are listed: what the description of the API says of them.

use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use super::{GROUPINGS, ORDERS, RANGES, USAGE_RANGES};
use crate::registry::SpendBy;

pub(super) fn ranges() -> Object {
    let description = "The span; a quarter of an hour if it is not given.";
    choice(RANGES, "15m", description)
}

pub(super) fn usage_ranges() -> Object {
    let description = "The span; a day if it is not given.";
    choice(USAGE_RANGES, "24h", description)
}

pub(super) fn rows() -> Object {
    let description = "Grouping of the rows; by model if it is not given.";
    choice(GROUPINGS, "model", description)
}

pub(super) fn session_orders() -> Object {
    let description = "Order of the rows; by the end of the last request if it is not given.";
    choice(ORDERS, "last", description)
}

pub(super) fn directions() -> Object {
    let description = "Direction of the order; the largest first if it is not given.";
    choice("desc, asc", "desc", description)
}

pub(in crate::control) fn budgets() -> Object {
    let description = "Subjects whose budgets are shown; teams if it is not given.";
    choice(
        &SpendBy::ALL.map(SpendBy::label).join(", "),
        "team",
        description,
    )
}

pub(super) fn statuses() -> Object {
    // an empty one is none, as for the other filters
    let pattern = "^([1-9][0-9]{2}|[1-5]xx|pending|succeeded|failed|canceled|aborted|)$";
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(pattern))
        .description(Some(
            "Result: a status (`404`), its class (`4xx`), a result (`succeeded`, `failed`, `canceled`, as in \
             `result`), `pending` for those in flight, or `aborted` for those whose client did not get a \
             whole response.",
        ))
        .build()
}

// beside `schema_with`, utoipa takes no description from the field
fn choice(values: &str, default: &str, description: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(values.split(", ")))
        .default(Some(default.into()))
        .description(Some(description))
        .build()
}
