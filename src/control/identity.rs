//! Identity of a client of the admin plane: the method by which it has authenticated, its role and its name.
//!
//! Each key has one role. A proxy in front of the dashboard may name the user instead, if its address is one
//! of `ADMIN_TRUSTED_PROXIES`; the same field from any other client means nothing.

use std::{net::IpAddr, time::Instant};

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderMap, HeaderName},
};
use smallvec::SmallVec;

use super::{
    caller::Caller,
    problem::Problem,
    session::{SessionDigest, sessions},
    state::AdminState,
};
use crate::{
    access::is_hidden,
    audit::ActorKind,
    config::{ForwardAuth, Role},
    secret::Secret,
};

/// Characters of a user's name.
const LONGEST_NAME: usize = 200;
/// Octets of the field that names groups.
const LONGEST_GROUPS: usize = 8 * 1024;

/// A client that has authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) method: AuthMethod,
    pub(super) role: Role,
    /// Its name: of the user that a trusted proxy names, or of the account that has opened the socket.
    pub(super) user: Option<String>,
}

/// Method by which a client has authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthMethod {
    /// By the session of this name.
    Session(SessionDigest),
    /// In `Authorization`.
    Bearer,
    /// By the word of a trusted proxy.
    Proxy,
    /// By access to the socket in `DATA_DIR`.
    Socket,
}

impl Identity {
    /// The author as the audit names it.
    pub(super) fn actor(&self) -> (ActorKind, String) {
        let kind = match self.method {
            AuthMethod::Session(_) => ActorKind::Session,
            AuthMethod::Bearer => ActorKind::Key,
            AuthMethod::Proxy => ActorKind::User,
            AuthMethod::Socket => ActorKind::Socket,
        };
        let user = self.user.clone();
        (
            kind,
            user.unwrap_or_else(|| key_holder(self.role).to_owned()),
        )
    }
}

/// Name of the holder of a key of the dashboard.
pub(super) fn key_holder(role: Role) -> &'static str {
    match role {
        Role::Admin => "dashboard",
        Role::Operator => "dashboard-operator",
        Role::Viewer => "dashboard-viewer",
    }
}

/// A user that a trusted proxy names.
struct NamedUser {
    name: String,
    /// None where no rule gives one.
    role: Option<Role>,
}

impl AdminState {
    /// The key of a role, if it has one.
    pub(super) fn key_of(&self, role: Role) -> Option<Secret> {
        match role {
            Role::Admin => self.key(),
            Role::Operator => self.sources.live.load().operator_key.clone(),
            Role::Viewer => self.sources.live.load().viewer_key.clone(),
        }
    }

    /// The keys in effect, that of the highest role first.
    pub(super) fn keys(&self) -> SmallVec<[(Role, Secret); 3]> {
        let roles = Role::ALL.into_iter().rev();
        roles
            .filter_map(|role| Some((role, self.key_of(role)?)))
            .collect()
    }

    /// Identifies a client by its session, by a trusted proxy, or by `Authorization`, in this order.
    pub(super) fn identify(
        &self,
        request: &HttpRequest,
        caller: &Caller<'_>,
    ) -> Result<Identity, Problem> {
        let now = Instant::now();
        let fields = request.headers();
        let named = named_user(fields, caller.peer, &self.sources.live.load().forward_auth)?;
        let keys = self.keys();
        for (role, key) in &keys {
            let open = self.sessions.of(*role);
            if let Some(name) = sessions(fields).find(|name| open.is_open(*name, key, now)) {
                return Ok(Identity {
                    method: AuthMethod::Session(name),
                    role: *role,
                    user: named.map(|named| named.name),
                });
            }
        }
        if let Some(NamedUser { name, role }) = named {
            let role = role.ok_or_else(|| Problem::NoRole(name.clone()))?;
            let identity = Identity {
                method: AuthMethod::Proxy,
                role,
                user: Some(name),
            };
            self.note_user(request, caller, &identity, now);
            return Ok(identity);
        }
        let shown = fields.get(header::AUTHORIZATION);
        let Some(token) = shown.and_then(|shown| bearer(shown.as_bytes())) else {
            return Err(Problem::Unauthorized);
        };
        // known by client, too: what one client has shown says nothing of what another one tries
        let client = caller.peer.map(|peer| peer.to_string());
        let name = SessionDigest::of(&[client.unwrap_or_default().as_bytes(), token]);
        let mut known = keys.iter();
        let known = known.find(|(role, key)| self.bearers.of(*role).is_open(name, key, now));
        let role = match known {
            Some((role, _)) => *role,
            None => {
                let (role, key) = self.verify_key(request, caller, token, "bearer")?;
                self.bearers.of(role).open(name, &key, now);
                role
            }
        };
        Ok(Identity {
            method: AuthMethod::Bearer,
            role,
            user: None,
        })
    }

    /// Writes down the first request of a user as a sign-in, and again after a while without one.
    fn note_user(
        &self,
        request: &HttpRequest,
        caller: &Caller<'_>,
        identity: &Identity,
        now: Instant,
    ) {
        let user = identity.user.as_deref().unwrap_or_default();
        let name = SessionDigest::of(&[user.as_bytes(), identity.role.label().as_bytes()]);
        // they belong to no key
        let none = Secret::new("");
        if !self.people.is_open(name, &none, now) {
            self.people.open(name, &none, now);
            self.note_sign_in(request, caller, "proxy", Ok(identity.actor()));
        }
    }
}

/// The user that a trusted proxy names; none for other clients, and for a request of no user.
fn named_user(
    fields: &HeaderMap,
    peer: Option<IpAddr>,
    auth: &ForwardAuth,
) -> Result<Option<NamedUser>, Problem> {
    if !auth.proxies.contain(peer) {
        return Ok(None);
    }
    let Some(name) = only(fields, &auth.user)?.filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let groups = only(fields, &auth.groups)?.unwrap_or_default();
    if name.chars().count() > LONGEST_NAME || groups.len() > LONGEST_GROUPS {
        return Err(Problem::Forbidden(TOO_LONG));
    }
    let groups: Vec<&str> = groups.split([',', '|']).map(str::trim).collect();
    Ok(Some(NamedUser {
        role: auth.roles.role_of(name, &groups),
        name: name.to_owned(),
    }))
}

/// The one value of a field. A second one would be the client's own beside the proxy's.
fn only<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = fields.get_all(name);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Problem::Forbidden(TWICE));
    }
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| Problem::Forbidden(UNREADABLE))?;
    match text.chars().any(is_hidden) {
        true => Err(Problem::Forbidden(UNREADABLE)),
        false => Ok(Some(text.trim())),
    }
}

/// Address of the client: behind a trusted proxy that of `X-Forwarded-For`, else the peer's.
pub(super) fn client_address(
    fields: &HeaderMap,
    peer: Option<IpAddr>,
    auth: &ForwardAuth,
) -> Option<IpAddr> {
    let values = fields.get_all("x-forwarded-for");
    let hops: Vec<&str> = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    auth.proxies.client(peer, &hops)
}

/// The token of `Authorization: Bearer` (RFC 6750 §2.1).
pub(super) fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

const TWICE: &str = "the trusted proxy sent the field of the user or of the groups more than once; no user is \
                     taken from it; let the proxy remove the client's own";
const UNREADABLE: &str = "the field of the user or of the groups is not text in UTF-8, or has characters that are \
                          not seen; no user is taken from it; look at the trusted proxy's settings";
const TOO_LONG: &str = "the name of the user has more than 200 characters, or its groups more than 8 KiB; no user \
                        is taken from them; have the trusted proxy send fewer groups";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_characters_that_are_not_seen_is_refused() {
        let name = HeaderName::from_static("remote-user");
        let of = |value: &str| {
            let mut fields = HeaderMap::new();
            let value = actix_web::http::header::HeaderValue::from_bytes(value.as_bytes());
            fields.insert(name.clone(), value.unwrap());
            only(&fields, &name).ok().flatten().map(str::to_owned)
        };
        for seen in ["ada", "J\u{fc}rgen M\u{fc}ller", "\u{738b}\u{82b3}"] {
            assert_eq!(of(seen).as_deref(), Some(seen));
        }
        for hidden in [
            "ada\u{202e}nimda",
            "ada\u{200b}",
            "\u{feff}ada",
            "ada\u{85}",
        ] {
            assert_eq!(of(hidden), None, "{hidden:?}");
        }
    }

    #[test]
    fn a_token_is_that_of_bearer() {
        for (value, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc", Some("abc")),
            ("Bearer ", Some("")),
            ("Bearer", None),
            ("Basic abc", None),
            ("abc", None),
        ] {
            let found = bearer(value.as_bytes());
            assert_eq!(found, expected.map(str::as_bytes), "{value}");
        }
    }
}
