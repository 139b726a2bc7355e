//! Requests with a key of the proxy: who sends it, what it may use, and the grant that it runs on.
//!
//! The decisions are those of [`crate::access`]. Here a request is asked for what they depend on: the keys
//! that it shows, its path, and for a key with rules on models the model in its body. Without keys there is
//! no [`Access`], and nothing of this runs.

use std::{net::IpAddr, rc::Rc, sync::Arc, time::SystemTime};

use actix_web::{HttpResponse, dev::Payload};
use smallvec::SmallVec;

pub(super) mod cutting;
mod model;
mod models_list;
pub(super) mod own_session;
mod paths;
pub(super) mod payment;
mod refusal;
pub(super) mod settlement;
mod usage;

use self::{
    cutting::{RunningKey, RunningKeys},
    paths::KeyedPath,
    settlement::Settlement,
};
pub(super) use self::{
    model::{ModelBody, hold, watch},
    models_list::FilteredList,
    refusal::revoked,
};
use super::{
    body_watch::SharedWatch, details::Payer, field::KeyedFields, inspection::SharedInspector,
    record::ExchangeRecord, worker::Worker,
};
use crate::{
    access::{Access, Admitted, Asked, Key, KeyField, Shown, is_ours, local::LocalAccess},
    config::{AccessMode, Credential, Live},
    error::{DeniedError, ProxyError},
    exchange::Route,
    upstream::{ResponseBody, exchange::Response},
    wire::head::RequestHead,
};

/// A request with a key.
pub(super) struct KeyedRequest {
    /// The text of the key, which must not travel on.
    text: KeyText,
    /// The credential of the key or its team for the upstream.
    credential: Option<Arc<Credential>>,
    /// True if the client's own credential goes to the upstream.
    passes_own: bool,
    path: KeyedPath,
    /// The key. The request is registered, so that a revocation can end it.
    pub(super) running: Rc<RunningKey>,
}

/// The text of a key: 52 octets.
type KeyText = SmallVec<[u8; 56]>;

/// Finds the key of a request. None if it has none and needs none.
///
/// # Errors
/// The refusal of a key that is missing, wrong, or may not be used from there.
pub(super) fn identify(
    access: &LocalAccess,
    worker: &Worker,
    head: &RequestHead,
    client: Option<IpAddr>,
) -> Result<Option<KeyedRequest>, ProxyError> {
    let is_required = match worker.access_mode {
        AccessMode::Off => return Ok(None),
        AccessMode::Auto if !access.has_keys() => return Ok(None),
        AccessMode::Optional => false,
        AccessMode::Auto | AccessMode::Required => true,
    };
    let (mut shown, mut text, mut has_own) = (Shown::default(), None, false);
    for field in head.fields.iter() {
        let Some(kind) = KeyField::of(field.name) else {
            continue;
        };
        shown.add(kind, field.value);
        match key_in(field.value) {
            Some(key) => text = Some(key),
            None => has_own |= kind != KeyField::ProxyKey && !field.value.is_empty(),
        }
    }
    if shown.is_empty() && !is_required {
        return Ok(None);
    }
    let refused = |refusal| refusal::error(refusal, None, &worker.observer);
    let key = access.identify(&shown, client, SystemTime::now());
    let key = key.map_err(refused)?;
    let passes_own = shown.is_beside() && has_own;
    let credential = match passes_own {
        true => None,
        false => access.credential(key.key()).map_err(refused)?,
    };
    Ok(Some(KeyedRequest {
        credential,
        text: KeyText::from_slice(text.unwrap_or_default()),
        passes_own,
        path: KeyedPath::of(&head.method, head.path(), head.upgrade.is_some()),
        running: RunningKeys::enter(&worker.running_keys, key),
    }))
}

/// The key in the value of a credential: the last of its words, if that is one of ours.
fn key_in(value: &[u8]) -> Option<&[u8]> {
    let before = memchr::memrchr(b' ', value).map_or(0, |blank| blank + 1);
    let word = value.get(before..)?;
    is_ours(word).then_some(word)
}

impl KeyedRequest {
    fn key(&self) -> &Arc<Key> {
        self.running.key()
    }

    /// Refuses a path that the key may not use.
    pub(super) fn admit_path(
        &self,
        access: &Access,
        head: &RequestHead,
        worker: &Worker,
    ) -> Result<(), ProxyError> {
        let (key, method) = (self.key(), head.method.as_str());
        match &self.path {
            KeyedPath::Metered
            | KeyedPath::Free
            | KeyedPath::OwnUsage
            | KeyedPath::OwnSession
            | KeyedPath::Models => {
                return Ok(());
            }
            KeyedPath::Model(id) if key.allows_model(id) => return Ok(()),
            KeyedPath::Model(id) => {
                return Err(refusal::hidden_model(id, key.team(), &worker.observer));
            }
            KeyedPath::Other(_) | KeyedPath::Ambiguous => {}
        }
        let path = String::from_utf8_lossy(head.path());
        let checked = access.check_path(key, Route::Other, method, &path);
        checked.map_err(|refusal| refusal::error(refusal, key.team(), &worker.observer))
    }

    /// The key as the one that pays.
    pub(super) fn payer(&self) -> Payer<'_> {
        Payer {
            owner: self.key().owner(),
            credential: self.credential.as_deref(),
        }
    }

    /// Reports whether the request is answered by [`KeyedRequest::usage`].
    pub(super) fn asks_for_usage(&self) -> bool {
        matches!(self.path, KeyedPath::OwnUsage)
    }

    /// The answer to `GET /api/oauth/usage`: how much of its budgets the key has spent.
    pub(super) fn usage(&self, access: &Access) -> String {
        usage::answer(access, self.key(), SystemTime::now())
    }

    /// Reports whether the request is answered by [`KeyedRequest::session`].
    pub(super) fn asks_for_session(&self) -> bool {
        matches!(self.path, KeyedPath::OwnSession)
    }

    /// The answer to `GET /api/proxy/session`: cost and cache of a session of the key.
    pub(super) async fn session(
        &self,
        access: &Access,
        head: &RequestHead,
        worker: &Worker,
        live: &Live,
    ) -> HttpResponse {
        let circuits = worker.balance.states(&live.endpoints);
        own_session::answer(&worker.sessions, access, self.key(), &head.target, circuits).await
    }

    /// Reports whether the request generates, and the model in its body decides.
    pub(super) fn needs_model(&self) -> bool {
        matches!(self.path, KeyedPath::Metered) && self.running.needs_model()
    }

    /// Reports whether the response is a list of models that is to be filtered.
    pub(super) fn filters_models(&self) -> bool {
        matches!(self.path, KeyedPath::Models) && !self.key().models().is_empty()
    }

    /// The body, watched if a watch is given, without a key in its trailer section. The watch tells telemetry
    /// what it reads.
    pub(super) fn body(
        &self,
        head: &RequestHead,
        payload: Payload,
        watch: Option<&SharedWatch>,
        look: Option<SharedInspector>,
    ) -> Payload {
        model::keyed(head, payload, watch, look, &self.running, &self.text)
    }

    /// Takes a grant for the request; waits for a free slot where others have them all.
    ///
    /// # Errors
    /// The refusal by a limit.
    pub(super) async fn admit(
        &self,
        body: ModelBody,
        head: &RequestHead,
        worker: &Worker,
        live: &Live,
        record: &mut ExchangeRecord,
    ) -> Result<(), ProxyError> {
        let Some(access) = &worker.access else {
            return Ok(());
        };
        if let Some(model) = &body.model {
            worker.named(model);
        }
        let prices = worker.prices(live);
        let model = body.model.as_deref();
        let price = model.and_then(|model| prices.of(model));
        let asked = Asked {
            model,
            octets: body.octets,
            max_tokens: body.max_tokens,
            session: head.fields.value("x-claude-code-session-id"),
            is_generation: matches!(self.path, KeyedPath::Metered),
            price,
        };
        let granted = match access.admit(self.key(), &asked, SystemTime::now()) {
            Admitted::Granted(grant) => Ok(grant),
            Admitted::Refused(refusal) => Err(refusal),
            Admitted::Queued(wait) => {
                let _waiting = worker.observer.shard.access().waits();
                record.waits(true);
                let outcome = wait.await;
                record.waits(false);
                outcome
            }
        };
        match granted {
            Ok(grant) => {
                record.runs_on(Settlement::new(grant, price), body.model, &prices);
                Ok(())
            }
            Err(refusal) => Err(refusal::error(refusal, self.key().team(), &worker.observer)),
        }
    }

    /// Treatment of the request's credentials.
    pub(super) fn fields(&self) -> KeyedFields<'_> {
        KeyedFields {
            credential: self.credential.as_deref(),
            passes_own: self.passes_own,
            key: &self.text,
            wants_identity: self.filters_models(),
        }
    }

    /// The list of models that the upstream gave, without those that the key may not use.
    ///
    /// # Errors
    /// The upstream broke off, or its list cannot be read.
    pub(super) async fn filter(
        &self,
        response: Response<ResponseBody>,
        live: &Live,
    ) -> Result<models_list::FilteredList, ProxyError> {
        let list = models_list::read(response, live).await?;
        let filtered = list.filter(|model| self.key().allows_model(model));
        filtered.ok_or_else(|| DeniedError::UnreadableModels.into())
    }
}
