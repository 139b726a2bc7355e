//! Loop guard: detects a connection that ends at a listener of this process.
//!
//! Neither a name nor an address shows it, since a machine may have many addresses: the connection
//! itself does. Nothing is added to requests.

use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpStream;

/// The listener of this process at the other end of a connection.
pub(super) fn listener(tcp: &TcpStream, listeners: &[SocketAddr]) -> Option<SocketAddr> {
    let peer = tcp.peer_addr().ok()?;
    // most upstreams have a port of their own, and cost no further system call
    if !listeners.iter().any(|own| own.port() == peer.port()) {
        return None;
    }
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let local = tcp.local_addr().ok()?.ip().to_canonical();
    // a machine that speaks to an address of its own does so from that address (or over loopback)
    let is_this_machine = peer.ip().is_loopback() || peer.ip() == local;
    let is_reached = |own: &&SocketAddr| {
        let address = own.ip().to_canonical();
        own.port() == peer.port()
            && match address.is_unspecified() {
                true => is_this_machine && takes(address, peer.ip()),
                false => address == peer.ip(),
            }
    };
    listeners.iter().find(is_reached).copied()
}

/// Tells if a listener on every address of its family takes a connection to this one: `::` takes
/// IPv4, too.
fn takes(listener: IpAddr, address: IpAddr) -> bool {
    listener.is_ipv6() || address.is_ipv4()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_listener_is_found_by_whatever_address() {
        let any = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = any.local_addr().unwrap().port();
        let own: SocketAddr = ([127, 0, 0, 1], port).into();
        let elsewhere: SocketAddr = ([127, 0, 0, 9], port).into();
        let every: SocketAddr = ([0, 0, 0, 0], port).into();
        let every_v6: SocketAddr = ([0_u16; 8], port).into();
        let other: SocketAddr = ([127, 0, 0, 1], port.wrapping_add(1)).into();
        for address in ["127.0.0.1", "127.0.0.2", "0.0.0.0", "localhost"] {
            let tcp = TcpStream::connect((address, port)).await.unwrap();
            assert_eq!(listener(&tcp, &[other, every]), Some(every), "{address}");
            assert_eq!(listener(&tcp, &[every_v6]), Some(every_v6), "{address}");
            assert_eq!(listener(&tcp, &[elsewhere, other]), None, "{address}");
        }
        let tcp = TcpStream::connect(own).await.unwrap();
        assert_eq!(listener(&tcp, &[own]), Some(own));
    }
}
