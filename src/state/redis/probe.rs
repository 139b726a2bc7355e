//! A second look at a server that did not answer as expected: does it speak TLS where it should not, or not speak it
//! where it should?
//!
//! Redis says nothing to a handshake of TLS, and closes a connection on which TLS was expected, so both faults would
//! read as those of a network. No user and no password is sent.

use std::{
    io::{Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    time::Duration,
};

use super::{
    fault::{RedisFault, RedisFaultKind},
    settings::RedisNode,
};

/// Longest wait of a look.
const LONGEST: Duration = Duration::from_millis(500);

/// Kinds of content in records of TLS: an alert, and the handshake.
const RECORDS: [u8; 2] = [0x15, 0x16];

/// The least `ClientHello` of TLS 1.2: 32 octets in the place of random ones, no session, one cipher suite, no
/// compression. A server answers with its own, or with an alert.
const HELLO: &[u8] = b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x03\
    anthropic-proxy-asks-for-TLS-one\x00\x00\x02\xc0\x2f\x01\x00";

/// The fault with another kind, if a look, no longer than `patience`, tells that the server speaks the other of both.
pub(super) fn looked_at(
    node: &RedisNode,
    has_tls: bool,
    patience: Duration,
    fault: RedisFault,
) -> RedisFault {
    let longest = patience.min(LONGEST);
    let kind = match (has_tls, fault.kind) {
        (
            true,
            RedisFaultKind::TimedOut | RedisFaultKind::Untrusted | RedisFaultKind::Unreachable,
        ) => speaks_redis(node, longest).then_some(RedisFaultKind::NoTls),
        (
            false,
            RedisFaultKind::TimedOut | RedisFaultKind::NotRedis | RedisFaultKind::Unreachable,
        ) => speaks_tls(node, longest).then_some(RedisFaultKind::OnlyTls),
        _ => None,
    };
    match kind {
        Some(kind) => RedisFault {
            kind,
            detail: String::new(),
            ..fault
        },
        None => fault,
    }
}

fn speaks_redis(node: &RedisNode, longest: Duration) -> bool {
    // `+PONG`, or `-NOAUTH …`
    answer(node, longest, b"PING\r\n").is_some_and(|first| b"+-".contains(&first))
}

fn speaks_tls(node: &RedisNode, longest: Duration) -> bool {
    answer(node, longest, HELLO).is_some_and(|first| RECORDS.contains(&first))
}

/// The first octet that the server answers with.
fn answer(node: &RedisNode, longest: Duration, words: &[u8]) -> Option<u8> {
    let address = (&*node.host, node.port).to_socket_addrs().ok()?.next()?;
    let mut stream = TcpStream::connect_timeout(&address, longest).ok()?;
    stream.set_read_timeout(Some(longest)).ok()?;
    stream.set_write_timeout(Some(longest)).ok()?;
    stream.write_all(words).ok()?;
    let mut first = [0];
    stream.read_exact(&mut first).ok()?;
    Some(first[0])
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// A server that answers each connection with some octets.
    fn server(answer: &'static [u8]) -> RedisNode {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 256]);
                let _ = stream.write_all(answer);
            }
        });
        RedisNode {
            host: "127.0.0.1".to_owned(),
            port,
        }
    }

    fn kind(answer: &'static [u8], has_tls: bool, kind: RedisFaultKind) -> RedisFaultKind {
        let node = server(answer);
        let fault = RedisFault {
            kind,
            place: node.to_string(),
            detail: "of the network".to_owned(),
        };
        looked_at(&node, has_tls, LONGEST, fault).kind
    }

    #[test]
    fn the_other_of_both_is_told_and_nothing_else_is() {
        use RedisFaultKind::{NoTls, NotRedis, OnlyTls, Refused, TimedOut, Unreachable, Untrusted};
        for (answer, has_tls, before, after) in [
            (b"+PONG\r\n" as &'static [u8], true, TimedOut, NoTls),
            (
                b"-NOAUTH Authentication required.\r\n",
                true,
                Untrusted,
                NoTls,
            ),
            (b"", true, TimedOut, TimedOut),
            (b"\x16\x03\x03", true, TimedOut, TimedOut),
            (b"\x15\x03\x01\x00\x02\x02\x28", false, Unreachable, OnlyTls),
            (b"\x16\x03\x03", false, NotRedis, OnlyTls),
            (b"HTTP/1.1 400 Bad Request\r\n", false, NotRedis, NotRedis),
            (b"", false, Unreachable, Unreachable),
            (b"+PONG\r\n", true, Refused, Refused),
        ] {
            let found = kind(answer, has_tls, before);
            assert_eq!(found, after, "{answer:?}");
        }
    }
}
