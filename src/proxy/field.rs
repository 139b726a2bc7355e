//! Selection of the fields that are forwarded, and those that are added (RFC 9110 §7.6; docs/contract.md
//! §2.2, §2.3).
//!
//! Pure: fields in, octets out. Order, duplicates, case and values are kept; nothing is merged.

use std::net::IpAddr;

use actix_web::http::header::{HeaderName, HeaderValue};
use bytes::{BufMut, BytesMut};
use smallvec::SmallVec;

use crate::{
    config::{Credential, Endpoint, ForwardedFields, Live},
    wire::cookie,
    wire::{
        address::AddressText,
        head::{
            Field, Fields, HeadContent, ResponseHead, Transport, Version, is_without_content,
            tokens,
        },
        role::{Role, is_credential},
    },
};

mod connection_options;

use self::connection_options::ConnectionOptions;

/// Input for the fields of an upstream request.
pub struct RequestFields<'a> {
    /// The configuration.
    pub live: &'a Live,
    /// Endpoint that the request goes to.
    pub endpoint: &'a Endpoint,
    /// Transport of the client's connection.
    pub transport: Transport,
    /// The client's fields.
    pub fields: &'a Fields,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// Framing towards the upstream.
    pub framing: OutgoingFraming,
    /// Treatment of `Expect`.
    pub expect: ExpectHandling,
    /// For the outbound proxy, where it is asked by absolute-form.
    pub proxy_authorization: Option<&'a HeaderValue>,
    /// The tunnel that is asked for.
    pub upgrade: Option<Upgrade<'a>>,
    /// Treatment of its credentials, for a request with a key of the proxy.
    pub keyed: Option<KeyedFields<'a>>,
}

/// Treatment of the credentials of a request with a key of the proxy.
#[derive(Clone, Copy)]
pub struct KeyedFields<'a> {
    /// The credential of the key or its team, in place of the endpoint's.
    pub credential: Option<&'a Credential>,
    /// Forwards the client's own credential, and none of the operator's.
    pub passes_own: bool,
    /// The text of the key: no field that has it travels on.
    pub key: &'a [u8],
    /// Asks for a response without a content coding.
    pub wants_identity: bool,
}

impl KeyedFields<'_> {
    /// Reports whether a field of the client ends here.
    fn ends(&self, field: &Field<'_>) -> bool {
        let is_long = !self.key.is_empty() && field.value.len() >= self.key.len();
        (is_credential(field.name) && !self.passes_own)
            || (is_long && memchr::memmem::find(field.value, self.key).is_some())
            || field.is("x-proxy-key")
            || (self.wants_identity && field.is("accept-encoding"))
    }
}

/// Upgrade fields of a request for a tunnel (RFC 9110 §7.8).
pub struct Upgrade<'a> {
    /// The protocols, as a list.
    pub protocols: &'a [u8],
    /// The key of a WebSocket handshake whose client has none, since HTTP/2 does without
    /// (RFC 8441 §5).
    pub key: Option<&'a str>,
}

/// Framing of the request towards the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutgoingFraming {
    /// No body, and no field for its length.
    Unsaid,
    /// `Content-Length`.
    Exactly(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Treatment of the client's `Expect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectHandling {
    /// It is forwarded.
    Forward,
    /// The proxy has answered `100-continue`.
    Answered,
}

/// Writes the fields of the upstream request and the empty line after them.
pub fn put_request_fields(octets: &mut BytesMut, request: &RequestFields<'_>) {
    let live = request.live;
    let keyed = request.keyed.as_ref();
    let passes_own = keyed.is_some_and(|keyed| keyed.passes_own);
    let credential = keyed
        .and_then(|keyed| keyed.credential)
        .or(request.endpoint.credential.as_ref())
        .filter(|_| !passes_own);
    let is_operators = |name: &[u8]| credential.is_none() && !(passes_own && is_credential(name));
    let named = ConnectionOptions::of(request.fields);
    let has_rules = !live.custom_fields.is_empty() || !live.removed_fields.is_empty();
    let host = request.fields.value("host");
    match host {
        Some(host) if live.preserve_host => put(octets, b"host", host),
        _ => put(
            octets,
            b"host",
            request.endpoint.upstream.authority.as_bytes(),
        ),
    }
    let mut forwarded_for: SmallVec<[&[u8]; 2]> = SmallVec::new();
    let (mut proto_is_set, mut host_is_set, mut takes_trailers) = (false, false, false);
    for field in request.fields.iter() {
        match field.role() {
            Role::Host
            | Role::ContentLength
            | Role::TransferEncoding
            | Role::Connection
            | Role::Upgrade
            | Role::HopByHop => continue,
            Role::Te => {
                takes_trailers |=
                    tokens(field.value).any(|token| token.eq_ignore_ascii_case(b"trailers"));
                continue;
            }
            Role::Expect if request.expect == ExpectHandling::Answered => continue,
            Role::ForwardedFor
                if live.forwarded == ForwardedFields::Append && !is_overridden(live, &field) =>
            {
                forwarded_for.push(field.value);
                continue;
            }
            Role::ForwardedProto => proto_is_set = true,
            Role::ForwardedHost => host_is_set = true,
            Role::Expect | Role::ForwardedFor | Role::EndToEnd => {}
        }
        if named.contains(&field)
            || (has_rules
                && is_overridden(live, &field)
                && !(passes_own && is_credential(field.name)))
            || (live.forwarded == ForwardedFields::Drop && tells_of_hops(field.name))
            || (credential.is_some() && is_credential(field.name))
            || keyed.is_some_and(|keyed| keyed.ends(&field))
        {
            continue;
        }
        if field.name.len() == 6 && field.is("cookie") {
            // the dashboard's session is ours, whatever port the browser sends it to
            if let Some(rest) = cookie::without_sessions(field.value) {
                put(octets, field.name, &rest);
            }
            continue;
        }
        put(octets, field.name, field.value);
    }
    if let Some(credential) = credential {
        put(
            octets,
            credential.name.as_str().as_bytes(),
            credential.value.as_bytes(),
        );
    }
    let adds_this_hop = live.forwarded == ForwardedFields::Append;
    if adds_this_hop {
        put_forwarded(octets, live, request.client, &forwarded_for);
    }
    if adds_this_hop && !proto_is_set && !is_ruled(live, "x-forwarded-proto") {
        let scheme: &[u8] = match request.transport {
            Transport::Clear => b"http",
            Transport::Tls => b"https",
        };
        put(octets, b"x-forwarded-proto", scheme);
    }
    if let Some(host) = host
        && adds_this_hop
        && !host_is_set
        && !is_ruled(live, "x-forwarded-host")
    {
        put(octets, b"x-forwarded-host", host);
    }
    if takes_trailers && request.upgrade.is_none() {
        // RFC 9110 §10.1.4: TE is of the connection, and has to be named
        put(octets, b"te", b"trailers");
        put(octets, b"connection", b"te");
    }
    if keyed.is_some_and(|keyed| keyed.wants_identity) && !is_ruled(live, "accept-encoding") {
        put(octets, b"accept-encoding", b"identity");
    }
    for (name, value) in &live.custom_fields {
        if is_operators(name.as_str().as_bytes()) || !is_credential(name.as_str().as_bytes()) {
            put(octets, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    if let Some(value) = request.proxy_authorization {
        put(octets, b"proxy-authorization", value.as_bytes());
    }
    if let Some(upgrade) = &request.upgrade {
        put_upgrade(octets, request.fields, upgrade);
    }
    match request.framing {
        OutgoingFraming::Unsaid => {}
        OutgoingFraming::Exactly(length) => {
            put(
                octets,
                b"content-length",
                itoa::Buffer::new().format(length).as_bytes(),
            );
        }
        OutgoingFraming::Chunked => put(octets, b"transfer-encoding", b"chunked"),
    }
    octets.put_slice(b"\r\n");
}

fn put_upgrade(octets: &mut BytesMut, fields: &Fields, upgrade: &Upgrade<'_>) {
    put(octets, b"connection", b"upgrade");
    put(octets, b"upgrade", upgrade.protocols);
    if let Some(key) = upgrade.key {
        put(octets, b"sec-websocket-key", key.as_bytes());
        if fields.value("sec-websocket-version").is_none() {
            put(octets, b"sec-websocket-version", b"13");
        }
    }
}

/// Gives the response head for a client of this version, without its framing; for HTTP/1 without the empty
/// line.
pub fn response_head(head: &ResponseHead, keeps_length: bool, client: Version) -> HeadContent {
    response_head_without(head, keeps_length, client, |_| false, 0)
}

/// As [`response_head`], without some of the fields, and with room for more octets behind it.
pub(super) fn response_head_without(
    head: &ResponseHead,
    keeps_length: bool,
    client: Version,
    is_left_out: impl Fn(&Field<'_>) -> bool,
    room: usize,
) -> HeadContent {
    let named = ConnectionOptions::of(&head.fields);
    let mut length = LengthField::of(head, keeps_length, client);
    // RFC 9110 §15.5.22: a 426 says what it would have; in HTTP/2 neither has a meaning (RFC 8441)
    let upgrades = client == Version::Http11 && matches!(head.status.as_u16(), 101 | 426);
    let passes = |field: &Field<'_>| {
        let by_role = match field.role() {
            Role::Connection | Role::HopByHop | Role::Te => false,
            // `Connection` names it, of course
            Role::Upgrade => return upgrades,
            Role::ContentLength => {
                std::mem::replace(&mut length, LengthField::Dropped) == LengthField::Kept
            }
            Role::TransferEncoding => {
                keeps_length && client == Version::Http11 && !is_without_content(head.status)
            }
            Role::Host
            | Role::Expect
            | Role::ForwardedFor
            | Role::ForwardedProto
            | Role::ForwardedHost
            | Role::EndToEnd => true,
        };
        by_role && !named.contains(field) && !is_left_out(field)
    };
    if client == Version::Http2 {
        if head.fields.value(OWN_ERROR).is_none() {
            return HeadContent::Fields(head.fields.retain(passes));
        }
        let fields = head.fields.iter().filter(passes);
        let fields = fields.map(|field| (renamed(&field), field.value));
        return HeadContent::Fields(Fields::from_pairs(fields));
    }
    let mut octets = BytesMut::with_capacity(head.fields.octets() + 64 + room);
    octets.put_slice(b"HTTP/1.1 ");
    octets.put_slice(head.status.as_str().as_bytes());
    octets.put_slice(b" ");
    octets.put_slice(&head.reason);
    octets.put_slice(b"\r\n");
    let fields = head.fields.iter().filter(passes);
    fields.for_each(|field| put(&mut octets, renamed(&field), field.value));
    if upgrades {
        octets.put_slice(b"connection: upgrade\r\n");
    }
    HeadContent::Octets(octets)
}

/// The name under which a field of a response arrives: what says that an error is ours comes from us alone.
fn renamed<'a>(field: &Field<'a>) -> &'a [u8] {
    if field.name.len() == OWN_ERROR.len() && field.is(OWN_ERROR) {
        return UPSTREAM_ERROR;
    }
    field.name
}

/// The field of our errors.
const OWN_ERROR: &str = "x-proxy-error";
/// New name of that field if the upstream sends it, as another proxy of this kind does.
const UPSTREAM_ERROR: &[u8] = b"x-upstream-proxy-error";

/// Treatment of the next `Content-Length` of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LengthField {
    Kept,
    /// It frames nothing, or was there before.
    Dropped,
}

impl LengthField {
    /// HTTP/1 is told the framing by its connection, unless there is no content to frame (`keeps_length`);
    /// a stream of HTTP/2 ends by itself, but a length is content's, too (RFC 9113 §8.1.1). Beside a
    /// `Transfer-Encoding` it counts for nothing (RFC 9112 §6.3).
    fn of(head: &ResponseHead, keeps_length: bool, client: Version) -> Self {
        let is_coded = || {
            let mut fields = head.fields.iter();
            fields.any(|field| field.role() == Role::TransferEncoding)
        };
        let may_stand = keeps_length || client == Version::Http2;
        if may_stand && !is_without_content(head.status) && !is_coded() {
            Self::Kept
        } else {
            Self::Dropped
        }
    }
}

/// The client's address behind those of the proxies before it. A Unix socket has none to add: who
/// writes to it is on this machine, and may have named its own client.
fn put_forwarded(octets: &mut BytesMut, live: &Live, client: Option<IpAddr>, before: &[&[u8]]) {
    if is_ruled(live, "x-forwarded-for") || (client.is_none() && before.is_empty()) {
        return;
    }
    octets.put_slice(b"x-forwarded-for: ");
    let client = client.map(|client| AddressText::of(client.to_canonical()));
    let client = client.as_ref().map(AddressText::as_bytes);
    let before = before.iter().copied().filter(|value| !value.is_empty());
    for (index, value) in before.chain(client).enumerate() {
        if index > 0 {
            octets.put_slice(b", ");
        }
        octets.put_slice(value);
    }
    octets.put_slice(b"\r\n");
}

fn is_overridden(live: &Live, field: &Field<'_>) -> bool {
    let is_it = |name: &HeaderName| is_name(name, field.name);
    live.custom_fields.iter().any(|(name, _)| is_it(name)) || live.removed_fields.iter().any(is_it)
}

/// Tells whether the fields file sets or removes a field of this name.
fn is_ruled(live: &Live, name: &str) -> bool {
    let is_it = |custom: &HeaderName| is_name(custom, name.as_bytes());
    live.custom_fields.iter().any(|(name, _)| is_it(name)) || live.removed_fields.iter().any(is_it)
}

/// Tells whether a field describes the hops before this one.
fn tells_of_hops(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"x-forwarded-";
    let start = name.get(..PREFIX.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
        || name.eq_ignore_ascii_case(b"forwarded")
}

fn is_name(custom: &HeaderName, name: &[u8]) -> bool {
    custom.as_str().as_bytes().eq_ignore_ascii_case(name)
}

/// Writes a field.
pub(super) fn put(octets: &mut BytesMut, name: &[u8], value: &[u8]) {
    octets.reserve(name.len() + value.len() + 4);
    octets.put_slice(name);
    octets.put_slice(b": ");
    octets.put_slice(value);
    octets.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{connection_options::is_protected, *};
    use crate::{config::Credential, proxy::tests::live, wire::head};

    /// Fields as a client would send them.
    fn fields(text: &str) -> Fields {
        let raw = Bytes::from(format!("{text}\r\n"));
        let mut slots = [httparse::EMPTY_HEADER; 64];
        let Ok(httparse::Status::Complete((_, parsed))) = httparse::parse_headers(&raw, &mut slots)
        else {
            panic!("not fields: {text:?}");
        };
        let spans = head::Fields::spans(raw.as_ptr(), parsed);
        Fields::with_spans(raw.clone(), spans)
    }

    fn request(live: &Live, text: &str) -> String {
        request_with(live, text, None)
    }

    fn request_with(live: &Live, text: &str, keyed: Option<KeyedFields<'_>>) -> String {
        let mut octets = BytesMut::new();
        let request = RequestFields {
            live,
            endpoint: &live.endpoints[0],
            transport: Transport::Clear,
            fields: &fields(text),
            client: Some([10, 0, 0, 7].into()),
            framing: OutgoingFraming::Unsaid,
            expect: ExpectHandling::Forward,
            proxy_authorization: None,
            upgrade: None,
            keyed,
        };
        put_request_fields(&mut octets, &request);
        String::from_utf8_lossy(&octets).into_owned()
    }

    fn octets(head: &ResponseHead, keeps_length: bool) -> BytesMut {
        match response_head(head, keeps_length, Version::Http11) {
            HeadContent::Octets(octets) => octets,
            HeadContent::Fields(fields) => panic!("{fields:?}"),
        }
    }

    const ADDED: &str =
        "x-forwarded-for: 10.0.0.7\r\nx-forwarded-proto: http\r\nx-forwarded-host: c\r\n\r\n";

    #[test]
    fn fields_travel_on_or_end_here() {
        let live = live("http://up:81");
        for (sent, expected) in [
            ("Host: c\r\nX-Api-Key: k\r\n", "X-Api-Key: k\r\n"),
            // order, case, duplicates, empty values
            (
                "Host: c\r\nb: 2\r\nA: 1\r\nB:\r\nb: 2\r\n",
                "b: 2\r\nA: 1\r\nB: \r\nb: 2\r\n",
            ),
            (
                "Host: c\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\n",
                "",
            ),
            (
                "Host: c\r\nConnection: close, X-Foo\r\nx-foo: 1\r\nx-bar: 2\r\n",
                "x-bar: 2\r\n",
            ),
            (
                "Host: c\r\nConnection: authorization, x-api-key, anthropic-beta, host\r\nAuthorization: a\r\nx-api-key: b\r\nanthropic-beta: c\r\n",
                "Authorization: a\r\nx-api-key: b\r\nanthropic-beta: c\r\n",
            ),
            ("Host: c\r\nTE: gzip\r\n", ""),
            (
                "Host: c\r\nCookie: a=1; anthropic_proxy_session=x;b=2\r\ncookie: anthropic_proxy_session=y\r\n",
                "Cookie: a=1;b=2\r\n",
            ),
            (
                "Host: c\r\nExpect: 100-continue\r\n",
                "Expect: 100-continue\r\n",
            ),
        ] {
            assert_eq!(
                request(&live, sent),
                format!("host: up:81\r\n{expected}{ADDED}"),
                "{sent}"
            );
        }
    }

    #[test]
    fn no_key_of_the_proxy_travels_on() {
        let own = |value: &'static str| Credential {
            name: HeaderName::from_static("x-api-key"),
            value: HeaderValue::from_static(value),
        };
        let endpoints = |credential| {
            let mut live = live("http://up");
            let endpoint = Endpoint {
                credential,
                ..live.endpoints[0].clone()
            };
            live.endpoints = [endpoint].into();
            live
        };
        let (none, some) = (endpoints(None), endpoints(Some(own("of-the-endpoint"))));
        let mut ruled = endpoints(None);
        ruled.custom_fields = vec![(
            HeaderName::from_static("x-api-key"),
            HeaderValue::from_static("of-the-file"),
        )];
        let credential = own("of-the-key");
        let keyed = |credential, passes_own| KeyedFields {
            credential,
            passes_own,
            key: b"ap_canary",
            wants_identity: false,
        };
        let sent = "Host: c\r\nX-Api-Key: ap_canary\r\nAuthorization: Bearer sk-own\r\nX-Other: a ap_canary\r\n\
                    X-Proxy-Key: ap_canary\r\nConnection: x-proxy-key\r\na: b\r\n";
        for (live, keyed, expected) in [
            (&none, keyed(None, false), "a: b\r\n"),
            (
                &some,
                keyed(None, false),
                "a: b\r\nx-api-key: of-the-endpoint\r\n",
            ),
            (
                &some,
                keyed(Some(&credential), false),
                "a: b\r\nx-api-key: of-the-key\r\n",
            ),
            (
                &some,
                keyed(Some(&credential), true),
                "Authorization: Bearer sk-own\r\na: b\r\n",
            ),
            (
                &ruled,
                keyed(None, true),
                "Authorization: Bearer sk-own\r\na: b\r\n",
            ),
        ] {
            assert_eq!(
                request_with(live, sent, Some(keyed)),
                format!("host: up\r\n{expected}{ADDED}"),
            );
        }
        let given = request_with(&ruled, sent, Some(keyed(None, false)));
        assert!(given.contains("\r\nx-api-key: of-the-file\r\n") && !given.contains("ap_"));
        let given = request_with(&ruled, sent, Some(keyed(Some(&credential), false)));
        assert!(given.contains("of-the-key") && !given.contains("of-the-file"));
    }

    #[test]
    fn forwarded_fields_are_appended_or_kept() {
        let live = live("http://up");
        let sent = "Host: c\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nx-forwarded-for: 2.2.2.2\r\nX-Forwarded-Host: o\r\n";
        assert_eq!(
            request(&live, sent),
            "host: up\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: o\r\nx-forwarded-for: 1.1.1.1, 2.2.2.2, 10.0.0.7\r\n\r\n"
        );
    }

    #[test]
    fn forwarded_fields_are_left_alone_or_dropped_when_asked() {
        let mut live = live("http://up");
        let theirs = "x-forwarded-for: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\nX-Forwarded-Port: 1\r\nx-forwarded-for: 2.2.2.2\r\n";
        let sent = format!("Host: c\r\n{theirs}x-real: 1\r\n");
        live.forwarded = ForwardedFields::Off;
        let expected = format!("host: up\r\n{theirs}x-real: 1\r\n\r\n");
        assert_eq!(request(&live, &sent), expected);
        live.forwarded = ForwardedFields::Drop;
        assert_eq!(request(&live, &sent), "host: up\r\nx-real: 1\r\n\r\n");
        // what the operator sets goes out all the same
        live.custom_fields = vec![(
            "x-forwarded-for".parse().unwrap(),
            "9.9.9.9".parse().unwrap(),
        )];
        let expected = "host: up\r\nx-real: 1\r\nx-forwarded-for: 9.9.9.9\r\n\r\n";
        assert_eq!(request(&live, &sent), expected);
    }

    #[test]
    fn removed_fields_do_not_travel_on_and_are_not_added() {
        let mut live = live("http://up");
        let names = [
            "cf-connecting-ip",
            "cdn-loop",
            "x-forwarded-for",
            "x-forwarded-host",
        ];
        live.removed_fields = names.map(|name| name.parse().unwrap()).into();
        let sent = "Host: c\r\nCF-Connecting-IP: 1.1.1.1\r\nCDN-Loop: a\r\ncdn-loop: b\r\nX-Forwarded-For: 1.1.1.1\r\nother: 1\r\n";
        assert_eq!(
            request(&live, sent),
            "host: up\r\nother: 1\r\nx-forwarded-proto: http\r\n\r\n"
        );
    }

    #[test]
    fn te_trailers_is_of_the_connection_and_named() {
        let sent = "Host: c\r\nTE: gzip, Trailers\r\nConnection: TE\r\n";
        let expected = ADDED.replace("c\r\n\r\n", "c\r\nte: trailers\r\nconnection: te\r\n\r\n");
        assert_eq!(
            request(&live("http://up"), sent),
            format!("host: up\r\n{expected}")
        );
    }

    #[test]
    fn custom_fields_override() {
        let mut live = live("http://up");
        live.custom_fields = vec![("x-api-key".parse().unwrap(), "ours".parse().unwrap())];
        let found = request(
            &live,
            "Host: c\r\nX-API-KEY: theirs\r\nX-Api-Key: again\r\nother: 1\r\n",
        );
        assert!(
            !found.contains("theirs") && !found.contains("again"),
            "{found}"
        );
        assert!(found.contains("\r\nx-api-key: ours\r\n"), "{found}");
    }

    #[test]
    fn an_upstream_with_a_key_of_its_own_gets_exactly_that() {
        for (name, value) in [("x-api-key", "ours"), ("authorization", "Bearer ours")] {
            let mut live = live("http://up");
            let mut endpoint = live.endpoints[0].clone();
            endpoint.credential = Some(Credential {
                name: name.parse().unwrap(),
                value: value.parse().unwrap(),
            });
            live.endpoints = std::sync::Arc::new([endpoint]);
            live.custom_fields = vec![
                ("authorization".parse().unwrap(), "of-all".parse().unwrap()),
                ("x-other".parse().unwrap(), "1".parse().unwrap()),
            ];
            let found = request(
                &live,
                "Host: c\r\nX-API-Key: theirs\r\nAuthorization: theirs\r\nx-api-key: theirs\r\n",
            );
            let credentials: Vec<&str> = found
                .lines()
                .filter(|line| {
                    let name = line.split(':').next().unwrap_or_default();
                    is_credential(name.as_bytes())
                })
                .collect();
            assert_eq!(credentials, [format!("{name}: {value}")]);
            assert!(found.contains("x-other: 1") && !found.contains("theirs"));
        }
    }

    #[test]
    fn the_clients_host_goes_on_when_asked() {
        let mut live = live("http://up");
        live.preserve_host = true;
        assert!(request(&live, "Host: c:1\r\n").starts_with("host: c:1\r\n"));
    }

    #[test]
    fn what_says_that_an_error_is_ours_is_ours_alone() {
        let head = ResponseHead {
            status: actix_web::http::StatusCode::OK,
            reason: Bytes::new(),
            fields: fields("a: 1\r\nX-Proxy-Error: dns_error\r\nx-proxy-errors: 2\r\n"),
        };
        let expected = "a: 1\r\nx-upstream-proxy-error: dns_error\r\nx-proxy-errors: 2\r\n";
        assert!(octets(&head, false).ends_with(expected.as_bytes()));
        let HeadContent::Fields(found) = response_head(&head, false, Version::Http2) else {
            panic!("octets for HTTP/2")
        };
        let lines = found
            .iter()
            .map(|field| [field.name, b": ", field.value, b"\r\n"].concat());
        assert_eq!(lines.collect::<Vec<_>>().concat(), expected.as_bytes());
    }

    #[test]
    fn a_response_keeps_what_is_not_of_the_connection() {
        let head = |text: &str| ResponseHead {
            status: actix_web::http::StatusCode::OK,
            reason: Bytes::from_static(b"Fine"),
            fields: fields(text),
        };
        let text = "Set-Cookie: a\r\nConnection: close, x-y\r\nx-y: 1\r\nset-cookie: b\r\nContent-Length: 3\r\nKeep-Alive: 5\r\n";
        let found = octets(&head(text), false);
        assert_eq!(
            found,
            "HTTP/1.1 200 Fine\r\nSet-Cookie: a\r\nset-cookie: b\r\n"
        );
        let found = octets(&head(text), true);
        assert!(
            found.ends_with(b"Content-Length: 3\r\n"),
            "a HEAD keeps its length"
        );
    }

    proptest! {
        /// Whatever is sent: end-to-end fields pass once, in order; nothing of the connection does.
        #[test]
        fn every_field_passes_or_ends_by_its_role(
            sent in prop::collection::vec(
                (
                    prop::sample::select(vec![
                        "accept", "X-Api-Key", "anthropic-beta", "Cookie", "x-foo", "Keep-Alive",
                        "Proxy-Authorization", "Upgrade", "Connection", "TE", "Content-Type",
                    ]),
                    "[a-z ,;=-]{0,12}",
                ),
                0..20,
            ),
        ) {
            let live = live("http://up");
            let text: String = sent.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let found = request(&live, &format!("Host: c\r\n{text}"));
            let named: Vec<String> = sent
                .iter()
                .filter(|(name, _)| *name == "Connection")
                .flat_map(|(_, value)| value.split(',').map(|token| token.trim().to_owned()))
                .collect();
            let expected: Vec<String> = sent
                .iter()
                .filter(|(name, _)| {
                    Role::of(name.as_bytes()) == Role::EndToEnd
                        && (is_protected(name.as_bytes())
                            || !named.iter().any(|token| token.eq_ignore_ascii_case(name)))
                })
                .map(|(name, value)| format!("{name}: {}", value.trim()))
                .collect();
            let lines: Vec<&str> = found.lines().collect();
            let end = lines.iter().position(|line| line.starts_with("x-forwarded-for")).unwrap();
            prop_assert_eq!(&lines[1..end], &expected[..]);
        }
    }
}
