//! Octets that a client has not acknowledged, from Linux's `sock_diag(7)`.
//!
//! `SIOCOUTQ` and `TCP_INFO` give the same number, but have no maintained safe binding. A netlink
//! socket needs none: request and response are messages, and the kernel responds at once. A query
//! costs a few microseconds and runs a few times a minute at most. Without a response (no
//! `tcp_diag`, a sandbox) the number is unknown.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;

/// Octets that were written to this socket and not acknowledged; none if the kernel does not tell.
pub(super) fn unacknowledged(stream: &TcpStream) -> Option<u64> {
    let (local, peer) = (stream.local_addr().ok()?, stream.peer_addr().ok()?);
    KERNEL
        .try_with(|kernel| ask(kernel.as_ref()?, local, peer))
        .ok()?
}

thread_local! {
    static KERNEL: Option<Socket> = open();
}

fn open() -> Option<Socket> {
    let (domain, protocol) = (Domain::from(AF_NETLINK), Protocol::from(NETLINK_SOCK_DIAG));
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol)).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

fn ask(mut kernel: &Socket, local: SocketAddr, peer: SocketAddr) -> Option<u64> {
    let mut answer = [0; ANSWER];
    // what was not read of an answer before, if anything ever was
    while kernel.read(&mut answer).is_ok() {}
    kernel.write_all(&question(local, peer)).ok()?;
    let length = kernel.read(&mut answer).ok()?;
    parse(&answer[..length])
}

/// `struct nlmsghdr`, then `struct inet_diag_req_v2` for one socket, by its addresses.
fn question(local: SocketAddr, peer: SocketAddr) -> [u8; QUESTION] {
    let (local_ip, peer_ip) = (local.ip().to_canonical(), peer.ip().to_canonical());
    let family = match local_ip {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    };
    let mut octets = [0; QUESTION];
    let mut at = 0;
    let mut put = |piece: &[u8]| {
        octets[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
    };
    put(&(QUESTION as u32).to_ne_bytes());
    put(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(&NLM_F_REQUEST.to_ne_bytes());
    // sequence number and port: there is one question at a time, and the kernel knows who asks
    put(&[0; 8]);
    put(&[family, IPPROTO_TCP, 0, 0]);
    // in whatever state
    put(&u32::MAX.to_ne_bytes());
    put(&local.port().to_be_bytes());
    put(&peer.port().to_be_bytes());
    put(&address(local_ip));
    put(&address(peer_ip));
    // any interface, no cookie
    put(&[0; 4]);
    put(&[0xff; 8]);
    octets
}

fn address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&ip.octets());
            octets
        }
    }
}

/// `idiag_wqueue` of a `struct inet_diag_msg`.
fn parse(answer: &[u8]) -> Option<u64> {
    let kind: [u8; 2] = answer.get(4..6)?.try_into().ok()?;
    if u16::from_ne_bytes(kind) != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let queued: [u8; 4] = answer.get(WRITE_QUEUE..WRITE_QUEUE + 4)?.try_into().ok()?;
    Some(u64::from(u32::from_ne_bytes(queued)))
}

// linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// A header of 16 octets, 8 of the question, 48 that name a socket.
const QUESTION: usize = 16 + 8 + 48;
/// Behind a header of 16 octets, 4 of state, 48 that name the socket, and two numbers.
const WRITE_QUEUE: usize = 16 + 4 + 48 + 8;
/// An answer is 88 octets, and attributes that were not asked for.
const ANSWER: usize = 1024;

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[tokio::test]
    async fn what_the_peer_has_not_acknowledged_is_told() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(address) else {
                continue; // a machine without IPv6
            };
            let small = socket2::SockRef::from(&listener);
            small.set_recv_buffer_size(4096).unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap())
                .await
                .unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            assert_eq!(unacknowledged(&stream), Some(0), "{address}");
            let mut written = 0;
            while let Ok(count) = stream.try_write(&[0; 65536]) {
                written += count as u64;
            }
            let before = unacknowledged(&stream).unwrap();
            assert!(0 < before && before <= written, "{before} of {written}");
            let mut octets = vec![0; usize::try_from(written).unwrap()];
            peer.read_exact(&mut octets).unwrap();
            while unacknowledged(&stream).unwrap() > 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    #[test]
    fn a_refusal_tells_nothing() {
        let mut answer = [0; 40];
        answer[4] = 2; // NLMSG_ERROR
        assert_eq!(parse(&answer), None);
        assert_eq!(parse(&[]), None);
    }
}
