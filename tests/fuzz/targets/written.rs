//! Strict readers of what the proxy writes. They share no code with it, nor a parser library.

#![allow(dead_code, reason = "no target needs all of it")]

use anthropic_proxy::{
    config::{Config, ConfigSource, Environment, Flags},
    proxy::{
        field::{self, ExpectHandling, OutgoingFraming, Upgrade},
        target,
    },
    wire::{body::Framing, head::RequestHead},
};
use bytes::BytesMut;

/// Names in lower case, and values.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// One request head.
#[derive(Debug, PartialEq, Eq)]
pub struct Written {
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    pub fields: Fields,
}

thread_local! {
    static CONFIG: Config = {
        let nothing: Environment = std::iter::empty::<(String, String)>().collect();
        ConfigSource::new(Flags::default(), nothing).load().unwrap().config
    };
}

/// The head that goes to an upstream of HTTP/1.1.
pub fn write(head: &RequestHead) -> Vec<u8> {
    let framing = match (&head.upgrade, head.framing) {
        (Some(_), _) => match head.fields.value("content-length") {
            Some(_) => OutgoingFraming::Exactly(0),
            None => OutgoingFraming::Unsaid,
        },
        (None, Framing::None) => OutgoingFraming::Unsaid,
        (None, Framing::Length(length)) => OutgoingFraming::Exactly(length),
        (None, Framing::Chunked | Framing::UntilClose) => OutgoingFraming::Chunked,
    };
    CONFIG.with(|config| {
        let endpoint = &config.live.endpoints[0];
        let mut octets = BytesMut::new();
        target::put_request_line(&mut octets, endpoint, &head.method, &head.target);
        let request = field::RequestFields {
            live: &config.live,
            endpoint,
            transport: head.transport,
            fields: &head.fields,
            client: None,
            framing,
            expect: ExpectHandling::Forward,
            proxy_authorization: None,
            keyed: None,
            upgrade: head.upgrade.as_ref().map(|protocols| Upgrade {
                protocols,
                key: None,
            }),
        };
        field::put_request_fields(&mut octets, &request);
        octets.to_vec()
    })
}

/// Reads octets that must be exactly one head: nothing in it or after it is a second one.
pub fn read(octets: &[u8]) -> Written {
    let end = find(octets, b"\r\n").expect("a request line ends");
    let line = &octets[..end];
    let parts: Vec<&[u8]> = line.split(|&octet| octet == b' ').collect();
    let [method, target, version] = parts[..] else {
        panic!("not a request line: {:?}", line.escape_ascii().to_string());
    };
    assert_eq!(version, b"HTTP/1.1");
    assert!(!method.is_empty() && method.iter().all(is_tchar));
    assert!(!target.is_empty() && target.iter().all(|octet| !octet.is_ascii_control()));
    Written {
        method: method.to_vec(),
        target: target.to_vec(),
        fields: read_fields(&octets[end + 2..]),
    }
}

/// Reads field lines up to the empty line, which must be the end.
pub fn read_fields(octets: &[u8]) -> Fields {
    let (mut rest, mut fields) = (octets, Fields::new());
    loop {
        let end = find(rest, b"\r\n").expect("a line ends");
        let (line, after) = (&rest[..end], &rest[end + 2..]);
        if line.is_empty() {
            assert!(after.is_empty(), "something follows the head");
            return fields;
        }
        assert!(
            !line.iter().any(|octet| b"\r\n\0".contains(octet)),
            "a line in a line"
        );
        let colon = line
            .iter()
            .position(|&octet| octet == b':')
            .expect("a colon");
        let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
        assert!(!name.is_empty() && name.iter().all(is_tchar), "a name");
        fields.push((name.to_ascii_lowercase(), value.to_vec()));
        rest = after;
    }
}

/// Asserts that what was sent was written, and nothing else: field by field, in the order of its name.
pub fn assert_same(sent: &Fields, written: &Fields) {
    let named: Vec<Vec<u8>> = values(sent, b"connection")
        .iter()
        .flat_map(|value| value.split(|&octet| octet == b','))
        .map(|token| trim(token).to_ascii_lowercase())
        .collect();
    let is_ours = |name: &[u8]| {
        name.starts_with(b"proxy-")
            || name.starts_with(b"x-forwarded-")
            || OURS.contains(&name)
            || named.iter().any(|other| other == name)
    };
    for (name, _) in sent.iter().chain(written) {
        if !is_ours(name) {
            assert_eq!(
                values(sent, name),
                values(written, name),
                "{}",
                name.escape_ascii()
            );
        }
    }
}

/// Asserts that there is one framing, and this one.
pub fn assert_framing(fields: &Fields, length: Option<u64>, is_chunked: bool) {
    let lengths: Vec<Vec<u8>> = length
        .iter()
        .map(|it| it.to_string().into_bytes())
        .collect();
    assert_eq!(values(fields, b"content-length"), lengths);
    let codings: &[&[u8]] = if is_chunked { &[b"chunked"] } else { &[] };
    assert_eq!(values(fields, b"transfer-encoding"), codings);
    assert_eq!(values(fields, b"host").len(), 1);
    for upgrade in values(fields, b"upgrade") {
        for token in upgrade.to_ascii_lowercase().split(|&octet| octet == b',') {
            let name = trim(token).split(|&octet| octet == b'/').next().unwrap();
            let carries_http: [&[u8]; 5] = [b"h2c", b"h2", b"http", b"https", b"tls"];
            assert!(!carries_http.contains(&name), "HTTP in a tunnel");
        }
    }
}

/// The values of a name, in order.
pub fn values(fields: &Fields, name: &[u8]) -> Vec<Vec<u8>> {
    let of_name = fields.iter().filter(|(other, _)| other == name);
    of_name.map(|(_, value)| value.clone()).collect()
}

/// Without the white space around it.
pub fn trim(octets: &[u8]) -> &[u8] {
    let is_space = |octet: &u8| b" \t".contains(octet);
    let Some(start) = octets.iter().position(|octet| !is_space(octet)) else {
        return &[];
    };
    let end = octets.iter().rposition(|octet| !is_space(octet)).unwrap();
    &octets[start..=end]
}

fn is_tchar(octet: &u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(octet)
}

fn find(octets: &[u8], needle: &[u8]) -> Option<usize> {
    octets
        .windows(needle.len())
        .position(|window| window == needle)
}

/// Names that the proxy writes itself, or that end at it.
const OURS: [&[u8]; 9] = [
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"connection",
    b"keep-alive",
    b"te",
    b"upgrade",
    b"http2-settings",
    b"expect",
];
