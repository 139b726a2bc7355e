//! The scripted upstream: a listener on a free port whose connections are handed to the test.
//!
//! It knows no HTTP. A test takes each connection with [`Upstream::accept`] and plays it octet by
//! octet, or gives a closure that plays all of them.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver},
    },
    thread,
    time::Duration,
};

use super::{Body, DEADLINE, Head, QUIET, Wire};

/// A listener whose connections the test plays.
pub(crate) struct Upstream {
    addr: SocketAddr,
    connections: Receiver<TcpStream>,
    stopped: Arc<AtomicBool>,
}

/// An upstream that answers every request on every connection by a rule.
pub(crate) struct Answering {
    addr: SocketAddr,
    requests: Receiver<(Head, Body)>,
    stopped: Arc<AtomicBool>,
}

impl Upstream {
    /// Listens.
    pub(crate) fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let (sender, connections) = mpsc::channel();
        let stop = stopped.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) || sender.send(stream.unwrap()).is_err() {
                    break;
                }
            }
        });
        Self {
            addr,
            connections,
            stopped,
        }
    }

    /// Answers every request with what `answer` makes of it.
    pub(crate) fn answering(
        answer: impl Fn(&Head, &Body) -> Vec<u8> + Send + Sync + 'static,
    ) -> Answering {
        let upstream = Self::bind();
        let (sender, requests) = mpsc::channel();
        let answer = Arc::new(answer);
        let addr = upstream.addr;
        let stopped = upstream.stopped.clone();
        thread::spawn(move || {
            while let Ok(stream) = upstream.connections.recv() {
                let (sender, answer) = (sender.clone(), answer.clone());
                thread::spawn(move || {
                    // An idle pooled connection may outlive any deadline.
                    stream.set_read_timeout(None).unwrap();
                    let mut probe = [0; 1];
                    let mut wire = Wire::new(stream.try_clone().unwrap());
                    while matches!(stream.peek(&mut probe), Ok(1)) {
                        let (head, body) = wire.read_request();
                        let octets = answer(&head, &body);
                        let _ = sender.send((head, body));
                        if wire.try_send(octets).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Answering {
            addr,
            requests,
            stopped,
        }
    }

    /// Answers every request with the same octets.
    pub(crate) fn always(answer: impl Into<Vec<u8>>) -> Answering {
        let answer = answer.into();
        Self::answering(move |_, _| answer.clone())
    }

    /// Answers every request with 200 and `ok`.
    pub(crate) fn ok() -> Answering {
        Self::always(OK)
    }

    /// Its address.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What `API_BASE_URL` says.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The next connection of the proxy.
    #[track_caller]
    pub(crate) fn accept(&self) -> Wire {
        Wire::tcp(self.accept_stream())
    }

    /// The next connection of the proxy, as a socket.
    #[track_caller]
    pub(crate) fn accept_stream(&self) -> TcpStream {
        self.connections
            .recv_timeout(DEADLINE)
            .expect("the proxy connects to the upstream")
    }

    /// The next connection, until the test ends.
    pub(crate) fn next_stream(&self) -> Option<TcpStream> {
        self.connections.recv().ok()
    }

    /// The next connection, if one comes soon.
    pub(crate) fn accept_soon(&self) -> Option<Wire> {
        self.connections.recv_timeout(QUIET).ok().map(Wire::tcp)
    }

    /// Asserts that no further connection was made.
    #[track_caller]
    pub(crate) fn no_more(&self) {
        assert!(
            self.accept_soon().is_none(),
            "a connection that nobody asked for"
        );
    }
}

impl Answering {
    /// What `API_BASE_URL` says.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Its address.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The next request.
    #[track_caller]
    pub(crate) fn request(&self) -> (Head, Body) {
        self.requests
            .recv_timeout(DEADLINE)
            .expect("a request reaches the upstream")
    }

    /// The next request, if one came already.
    pub(crate) fn try_request(&self) -> Option<(Head, Body)> {
        self.requests.try_recv().ok()
    }

    /// The next request, if one comes in time.
    pub(crate) fn request_within(&self, limit: Duration) -> Option<(Head, Body)> {
        self.requests.recv_timeout(limit).ok()
    }

    /// Asserts that no further request came.
    #[track_caller]
    pub(crate) fn no_more(&self) {
        if let Ok((head, _)) = self.requests.recv_timeout(QUIET) {
            panic!("a request that nobody asked for: {}", head.line);
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        stop(&self.stopped, self.addr);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        stop(&self.stopped, self.addr);
    }
}

/// Wakes the listening thread so that it sees the end.
fn stop(stopped: &AtomicBool, addr: SocketAddr) {
    stopped.store(true, Ordering::SeqCst);
    drop(TcpStream::connect(addr));
}

/// The plainest answer.
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
