//! Proxies in front of the dashboard that sign people in (forward-auth), and the roles of those people.

use std::net::IpAddr;

use actix_web::http::header::{self, HeaderName};
use ipnet::IpNet;

use super::{options::Role, scalar::InvalidValue};

/// Sign-in by a proxy in front of the dashboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardAuth {
    /// Proxies whose word counts (`ADMIN_TRUSTED_PROXIES`); none by default.
    pub proxies: TrustedProxies,
    /// The field that names the user (`ADMIN_USER_HEADER`).
    pub user: HeaderName,
    /// The field that names the user's groups (`ADMIN_GROUPS_HEADER`).
    pub groups: HeaderName,
    /// Roles of users and groups (`ADMIN_ROLES`).
    pub roles: RoleRules,
}

/// Peers whose word on the user counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    /// Clients of `UNIX_SOCKET` (`unix`).
    has_unix: bool,
}

impl TrustedProxies {
    /// Tells whether a peer is one of them; no address is that of a client of a Unix socket.
    pub fn contain(&self, peer: Option<IpAddr>) -> bool {
        match peer.map(|peer| peer.to_canonical()) {
            Some(peer) => self.networks.iter().any(|network| network.contains(&peer)),
            None => self.has_unix,
        }
    }

    /// Address of the client behind them: the last hop of `X-Forwarded-For` that is no such proxy; the peer if
    /// it is none of them itself, or if it names no other.
    pub fn client(&self, peer: Option<IpAddr>, hops: &[&str]) -> Option<IpAddr> {
        if !self.contain(peer) {
            return peer;
        }
        let addresses = hops.iter().rev().map(|hop| hop.trim().parse::<IpAddr>());
        let mut addresses = addresses.map_while(|address| Some(address.ok()?.to_canonical()));
        let client = addresses.find(|address| !self.contain(Some(*address)));
        client.or(peer)
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.has_unix
    }
}

/// Roles of users and groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoleRules(Vec<(RoleHolder, Role)>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum RoleHolder {
    /// Every user that the proxy names (`*`).
    Everyone,
    User(Box<str>),
    Group(Box<str>),
}

impl RoleRules {
    /// The highest role of a user and its groups; none where no rule names them.
    pub fn role_of(&self, user: &str, groups: &[&str]) -> Option<Role> {
        let holds = |holder: &RoleHolder| match holder {
            RoleHolder::Everyone => true,
            RoleHolder::User(name) => **name == *user,
            RoleHolder::Group(name) => groups.contains(&&**name),
        };
        let held = self.0.iter().filter(|(holder, _)| holds(holder));
        held.map(|(_, role)| *role).max()
    }
}

/// Networks and addresses, separated by commas, and `unix`.
pub(super) fn proxies(text: &str) -> Result<TrustedProxies, InvalidValue> {
    let mut trusted = TrustedProxies::default();
    for entry in entries(text) {
        if entry.eq_ignore_ascii_case("unix") {
            trusted.has_unix = true;
            continue;
        }
        let bare = entry.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let entry = bare.unwrap_or(entry);
        let network = match (entry.parse::<IpAddr>(), entry.parse::<IpNet>()) {
            (Ok(address), _) => IpNet::from(address.to_canonical()),
            (Err(_), Ok(network)) => network,
            (Err(_), Err(_)) => {
                return Err(InvalidValue::because(
                    "has an entry that is no network, no address and not unix",
                )
                .hint("names are not resolved; for example 10.0.0.0/8,fd00::/8,127.0.0.1,unix"));
            }
        };
        let is_mapped = |network: &IpNet| match network {
            IpNet::V6(it) => it.network().to_ipv4_mapped().is_some(),
            IpNet::V4(_) => false,
        };
        if network.prefix_len() == 0 || is_mapped(&network) {
            return Err(InvalidValue::because(
                "has a network of all addresses: every client could name itself",
            )
            .hint("name the proxy alone, and write IPv4 as IPv4"));
        }
        trusted.networks.push(network.trunc());
    }
    Ok(trusted)
}

/// `user:NAME=ROLE`, `group:NAME=ROLE` and `*=ROLE`, separated by commas.
pub(super) fn roles(text: &str) -> Result<RoleRules, InvalidValue> {
    let mut rules = Vec::new();
    for entry in entries(text) {
        // a name may have an equals sign, a role has none
        let (holder, role) = entry.rsplit_once('=').unwrap_or((entry, ""));
        let role = Role::parse(role.trim()).ok_or_else(|| {
            InvalidValue::because("has an entry without a role: viewer, operator or admin")
                .hint(EXAMPLE)
        })?;
        let holder = holder.trim();
        let named = |kind: &str| holder.strip_prefix(kind).map(str::trim);
        let holder = match (holder, named("user:"), named("group:")) {
            ("*", _, _) => RoleHolder::Everyone,
            (_, Some(name), _) if !name.is_empty() => RoleHolder::User(name.into()),
            (_, _, Some(name)) if !name.is_empty() => RoleHolder::Group(name.into()),
            _ => {
                return Err(InvalidValue::because(
                    "has an entry that is neither user:NAME, nor group:NAME, nor *",
                )
                .hint(EXAMPLE));
            }
        };
        rules.push((holder, role));
    }
    Ok(RoleRules(rules))
}

const EXAMPLE: &str = "for example group:platform=admin,user:ada@example.com=operator,*=viewer";

/// The name of a field that holds no credential.
pub(super) fn field(text: &str) -> Result<HeaderName, InvalidValue> {
    let name = HeaderName::try_from(text.trim())
        .map_err(|_| InvalidValue::because("is no name of a field").hint("for example X-User"))?;
    let is_taken = [
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::COOKIE,
        header::HOST,
    ]
    .contains(&name);
    match is_taken {
        true => Err(InvalidValue::because(
            "is a field that browsers send themselves, or that holds a credential",
        )
        .hint("name the field that the proxy sets, for example X-Forwarded-User")),
        false => Ok(name),
    }
}

fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|it| !it.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_networks_addresses_and_the_socket() {
        let trusted = proxies("10.1.2.3/8, 192.0.2.7,fd00::/8,[2001:db8::1], ::ffff:198.51.100.1");
        let trusted = trusted.unwrap();
        for (peer, expected) in [
            ("10.9.9.9", true),
            ("::ffff:10.9.9.9", true),
            ("11.0.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("fd12::1", true),
            ("fe80::1", false),
            ("2001:db8::1", true),
            ("2001:db8::2", false),
            ("198.51.100.1", true),
        ] {
            assert_eq!(
                trusted.contain(Some(peer.parse().unwrap())),
                expected,
                "{peer}"
            );
        }
        assert!(!trusted.contain(None), "a socket is trusted by name alone");
        assert!(proxies("unix").unwrap().contain(None));
        assert!(proxies(" , ").unwrap().is_empty());
        for bad in [
            "0.0.0.0/0",
            "::/0",
            "::ffff:0:0/96",
            "10.0.0.0/33",
            "proxy.test",
            "10.0.0.1:80",
            "*",
        ] {
            assert!(proxies(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_client_is_the_last_hop_that_is_no_proxy() {
        let trusted = proxies("10.0.0.0/8,fd00::/8").unwrap();
        let of = |peer: &str, hops: &[&str]| {
            let client = trusted.client(Some(peer.parse().unwrap()), hops);
            client.unwrap().to_string()
        };
        for (hops, expected) in [
            (&[][..], "10.0.0.1"),
            (&["192.0.2.1"], "192.0.2.1"),
            (&["6.6.6.6", " 192.0.2.1"], "192.0.2.1"),
            (&["6.6.6.6", "192.0.2.1", "10.9.9.9"], "192.0.2.1"),
            (&["2001:db8::7", "fd00::1"], "2001:db8::7"),
            (&["6.6.6.6", "unknown"], "10.0.0.1"),
            (&["10.0.0.2"], "10.0.0.1"),
        ] {
            assert_eq!(of("10.0.0.1", hops), expected, "{hops:?}");
        }
        assert_eq!(
            of("192.0.2.9", &["1.1.1.1"]),
            "192.0.2.9",
            "no proxy's word"
        );
    }

    #[test]
    fn the_highest_role_of_a_user_and_its_groups_counts() {
        let rules = roles(
            "group:platform=admin, user:ada@example.com=operator,group:cn=ops=operator,*=viewer",
        );
        let rules = rules.unwrap();
        for (user, groups, expected) in [
            ("bob", &[][..], Role::Viewer),
            ("bob", &["x", "platform"], Role::Admin),
            ("ada@example.com", &[], Role::Operator),
            ("ada@example.com", &["platform"], Role::Admin),
            ("platform", &["ada@example.com"], Role::Viewer),
            ("bob", &["cn=ops"], Role::Operator),
            ("bob", &["Platform"], Role::Viewer),
        ] {
            assert_eq!(
                rules.role_of(user, groups),
                Some(expected),
                "{user} {groups:?}"
            );
        }
        let strict = roles("group:platform=admin").unwrap();
        assert_eq!(strict.role_of("bob", &[]), None);
        for bad in [
            "platform",
            "platform=admin",
            "group:=admin",
            "group:a=root",
            "user:a=",
            "*",
        ] {
            assert!(roles(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_user_is_not_named_by_a_credential() {
        assert_eq!(field("X-Forwarded-User").unwrap(), "x-forwarded-user");
        for bad in ["", "a b", "Authorization", "cookie", "Host", "x:y"] {
            assert!(field(bad).is_err(), "{bad}");
        }
    }
}
