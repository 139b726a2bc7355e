//! Connection race over several addresses (Happy Eyeballs, RFC 8305 §4 and §5).
//!
//! Generic over the connecting function: it opens no socket, has no deadline and resolves no name.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::sleep;

/// Connects to one of `addresses`. The next attempt starts when the one before has failed or has
/// had 250 ms; the first to succeed wins and the others are dropped.
///
/// The families alternate, beginning with that of the first address.
pub(super) async fn race<T, F>(
    addresses: &[IpAddr],
    port: u16,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = interleave(addresses).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure: Option<io::Error> = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(connect(SocketAddr::new(address, port)));
        }
        let finished = tokio::select! {
            biased;
            finished = attempts.next() => finished,
            () = sleep(ATTEMPT_DELAY), if waiting.len() > 0 => continue,
        };
        match finished {
            Some(Ok(connection)) => return Ok(connection),
            Some(Err(error)) => failure = Some(more_telling(failure, error)),
            None => {
                return Err(failure.unwrap_or_else(|| io::Error::other("no address to connect to")));
            }
        }
    }
}

/// A refusal came from the host itself; the other failures (often `network unreachable` for a
/// family that this machine does not have) say less about it.
fn more_telling(earlier: Option<io::Error>, later: io::Error) -> io::Error {
    match earlier {
        Some(earlier) if earlier.kind() == io::ErrorKind::ConnectionRefused => earlier,
        _ => later,
    }
}

fn interleave(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first_is_ipv4 = addresses.first().is_some_and(IpAddr::is_ipv4);
    let (mut first, mut second): (Vec<IpAddr>, Vec<IpAddr>) = addresses
        .iter()
        .partition(|address| address.is_ipv4() == first_is_ipv4);
    first.reverse();
    second.reverse();
    let mut ordered = Vec::with_capacity(addresses.len());
    while ordered.len() < addresses.len() {
        ordered.extend(first.pop());
        ordered.extend(second.pop());
    }
    ordered
}

/// Connection Attempt Delay as RFC 8305 §5 recommends it.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        future::pending,
    };

    use tokio::time::Instant;

    use super::*;

    #[derive(Clone, Copy)]
    enum Peer {
        Accepts(u64),
        Fails(u64, io::ErrorKind),
        Silent,
    }
    use Peer::{Accepts, Fails, Silent};

    struct Run {
        result: io::Result<SocketAddr>,
        /// Which attempts began, and when (ms).
        started: Vec<(String, u128)>,
        took: u128,
    }

    async fn run(peers: &[(&str, Peer)]) -> Run {
        let start = Instant::now();
        let started = RefCell::new(Vec::new());
        let addresses: Vec<IpAddr> = peers.iter().map(|(a, _)| a.parse().unwrap()).collect();
        let result = race(&addresses, 443, |address| {
            started
                .borrow_mut()
                .push((address.ip().to_string(), start.elapsed().as_millis()));
            let (_, peer) = peers
                .iter()
                .find(|(a, _)| *a == address.ip().to_string())
                .unwrap();
            let peer = *peer;
            async move {
                match peer {
                    Accepts(after) => {
                        sleep(Duration::from_millis(after)).await;
                        Ok(address)
                    }
                    Fails(after, kind) => {
                        sleep(Duration::from_millis(after)).await;
                        Err(kind.into())
                    }
                    Silent => pending().await,
                }
            }
        })
        .await;
        Run {
            result,
            started: started.into_inner(),
            took: start.elapsed().as_millis(),
        }
    }

    fn order(run: &Run) -> Vec<(&str, u128)> {
        run.started
            .iter()
            .map(|(address, at)| (address.as_str(), *at))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_that_accepts_at_once_is_the_only_attempt() {
        let run = run(&[("::1", Accepts(249)), ("127.0.0.1", Accepts(0))]).await;
        assert_eq!(run.result.as_ref().unwrap().to_string(), "[::1]:443");
        assert_eq!(order(&run), [("::1", 0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_costs_250_ms() {
        let run = run(&[("::1", Silent), ("::2", Silent), ("127.0.0.1", Accepts(5))]).await;
        assert_eq!(order(&run), [("::1", 0), ("127.0.0.1", 250)]);
        assert_eq!(run.took, 255);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_address_may_still_win() {
        let run = run(&[("::1", Accepts(300)), ("127.0.0.1", Accepts(100))]).await;
        assert_eq!(run.result.as_ref().unwrap().to_string(), "[::1]:443");
        assert_eq!((run.took, run.started.len()), (300, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_starts_the_next_at_once_and_the_delay_anew() {
        let refused = io::ErrorKind::ConnectionRefused;
        let run = run(&[
            ("10.0.0.1", Fails(100, refused)),
            ("10.0.0.2", Silent),
            ("10.0.0.3", Accepts(1)),
        ])
        .await;
        assert_eq!(
            order(&run),
            [("10.0.0.1", 0), ("10.0.0.2", 100), ("10.0.0.3", 350)]
        );
        assert!(run.result.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_refusal_is_told_rather_than_the_unreachable_network() {
        let refused = io::ErrorKind::ConnectionRefused;
        let unreachable = io::ErrorKind::NetworkUnreachable;
        for peers in [
            [
                ("::1", Fails(0, unreachable)),
                ("127.0.0.1", Fails(0, refused)),
            ],
            [
                ("127.0.0.1", Fails(0, refused)),
                ("::1", Fails(0, unreachable)),
            ],
        ] {
            let run = run(&peers).await;
            assert_eq!(run.result.unwrap_err().kind(), refused);
            assert_eq!(run.took, 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_late_failure_of_an_early_attempt_does_not_end_the_race() {
        let refused = io::ErrorKind::ConnectionRefused;
        let run = run(&[("::1", Fails(300, refused)), ("127.0.0.1", Accepts(500))]).await;
        assert_eq!(run.took, 750);
        assert!(run.result.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn no_address_is_an_error() {
        assert!(run(&[]).await.result.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_losers_are_dropped() {
        struct CountedAttempt<'a>(&'a Cell<u32>);
        impl Drop for CountedAttempt<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let dropped = Cell::new(0);
        let addresses = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let won = race(&addresses, 1, |address| {
            let attempt = CountedAttempt(&dropped);
            async move {
                let _attempt = attempt;
                match address.ip() == addresses[0] {
                    true => pending().await,
                    false => Ok(()),
                }
            }
        });
        won.await.unwrap();
        assert_eq!(dropped.get(), 2);
    }

    #[test]
    fn families_alternate_from_the_first_address_on() {
        let ordered = |list: &[&str]| {
            let addresses: Vec<IpAddr> = list.iter().map(|a| a.parse().unwrap()).collect();
            interleave(&addresses)
                .iter()
                .map(IpAddr::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            ordered(&["::1", "::2", "::3", "1.0.0.1", "1.0.0.2"]),
            "::1 1.0.0.1 ::2 1.0.0.2 ::3"
        );
        assert_eq!(
            ordered(&["1.0.0.1", "1.0.0.2", "::1"]),
            "1.0.0.1 ::1 1.0.0.2"
        );
        assert_eq!(ordered(&["::1"]), "::1");
        assert_eq!(ordered(&[]), "");
    }
}
