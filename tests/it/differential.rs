//! Our exchange beside hyper's: the same octets from the upstream, the same outcome, for answers of
//! every framing, whole or cut short, in any pieces.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix_web::http::Method;
use anthropic_proxy::{
    config::{ConfigSource, Environment, Flags},
    telemetry::metrics::Metrics,
    upstream::{
        Client,
        balance::Balance,
        dial::{Dialer, Trust},
        request::{Body, Request},
    },
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;

/// What a client made of an answer: status and content, or that it failed.
type Outcome = Result<(u16, Vec<u8>), ()>;

#[derive(Debug, Clone)]
struct Answer {
    octets: Vec<u8>,
    cuts: Vec<usize>,
}

fn answers() -> impl Strategy<Value = Answer> {
    let framing = prop::sample::select(vec!["length", "chunked", "close", "none"]);
    let interim = prop::sample::select(vec!["", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"]);
    let status = prop::sample::select(vec![200_u16, 201, 204, 304, 404, 529]);
    let chunks = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..5);
    let cut = prop::option::weighted(0.3, any::<usize>());
    let cuts = prop::collection::vec(any::<usize>(), 0..5);
    (framing, interim, status, chunks, cut, cuts).prop_map(
        |(framing, interim, status, chunks, cut, cuts)| {
            let content = chunks.concat();
            let mut octets = format!("{interim}HTTP/1.1 {status} Reason\r\nx: y\r\n").into_bytes();
            match framing {
                "length" => {
                    octets.extend(format!("Content-Length: {}\r\n\r\n", content.len()).bytes());
                    octets.extend(&content);
                }
                "chunked" => {
                    octets.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                    for chunk in &chunks {
                        octets.extend(format!("{:x}\r\n", chunk.len()).bytes());
                        octets.extend(chunk);
                        octets.extend(b"\r\n");
                    }
                    octets.extend(b"0\r\n\r\n");
                }
                "close" => {
                    octets.extend(b"\r\n");
                    octets.extend(&content);
                }
                _ => octets.extend(b"Content-Length: 0\r\n\r\n"),
            }
            if let Some(cut) = cut {
                octets.truncate(cut % octets.len());
            }
            let length = octets.len();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (length + 1)).collect();
            cuts.sort_unstable();
            Answer { octets, cuts }
        },
    )
}

/// Plays the answer on one connection, and ends it.
fn play(listener: &TcpListener, answer: &Answer) {
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_nodelay(true).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut octets = [0; 512];
        let read = socket.read(&mut octets).unwrap();
        assert!(read > 0, "the request ended early");
        request.extend(&octets[..read]);
    }
    let mut at = 0;
    for cut in answer.cuts.iter().copied().chain([answer.octets.len()]) {
        // a client that has seen enough may be gone
        let _ = write(&mut socket, &answer.octets[at..cut]);
        at = cut;
    }
}

fn write(socket: &mut TcpStream, octets: &[u8]) -> std::io::Result<()> {
    socket.write_all(octets)?;
    socket.flush()
}

async fn ours(client: &Client, live: &anthropic_proxy::config::Live) -> Outcome {
    let host = &live.endpoints[0].upstream.authority;
    let request = Request {
        head: Bytes::from(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")),
        method: Method::GET,
        body: Body::None,
        patience: Duration::from_secs(10),
        keep: None,
        is_watched: false,
        edges: None,
    };
    let mut response = client.send(live, 0, request).await.map_err(|_| ())?;
    let mut content = Vec::new();
    loop {
        let next = std::future::poll_fn(|cx| response.body.poll_content(cx)).await;
        match next {
            Some(Ok(chunk)) => content.extend_from_slice(&chunk),
            Some(Err(_)) => return Err(()),
            None => return Ok((response.head.status.as_u16(), content)),
        }
    }
}

async fn hypers(address: std::net::SocketAddr) -> Outcome {
    let stream = tokio::net::TcpStream::connect(address)
        .await
        .map_err(|_| ())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|_| ())?;
    let driver = tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    let request = hyper::Request::get("/")
        .header("host", address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(|_| ())?;
    let response = sender.send_request(request).await.map_err(|_| ())?;
    let status = response.status().as_u16();
    let content = response
        .into_body()
        .collect()
        .await
        .map_err(|_| ())?
        .to_bytes();
    driver.abort();
    Ok((status, content.to_vec()))
}

#[test]
fn our_exchange_ends_as_hypers_does() {
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    // on Linux a bound on `accept`, too: a connection that never comes fails the test, and no more
    let patience = Some(Duration::from_secs(10));
    socket2::SockRef::from(&*listener)
        .set_read_timeout(patience)
        .unwrap();
    let address = listener.local_addr().unwrap();
    let environment: Environment = [("API_BASE_URL", format!("http://{address}"))]
        .into_iter()
        .collect();
    let live = ConfigSource::new(Flags::default(), environment)
        .load()
        .unwrap()
        .config
        .live;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    let shared = Arc::new(ArcSwap::from_pointee(live.clone()));
    let client = local.block_on(&runtime, async {
        let balance = Arc::new(Balance::new(&live.endpoints));
        Rc::new(Client::new(
            Dialer::new(Trust::new(None)),
            &shared.load(),
            balance,
            Metrics::new().shard(),
        ))
    });
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&answers(), |answer| {
            let (theirs, script) = (Arc::clone(&listener), answer.clone());
            let upstream = std::thread::spawn(move || {
                play(&theirs, &script);
                play(&theirs, &script);
            });
            let (ours, hypers) = local
                .block_on(&runtime, async {
                    let both = async {
                        let ours = ours(&client, &live).await;
                        (ours, hypers(address).await)
                    };
                    tokio::time::timeout(Duration::from_secs(30), both).await
                })
                .expect("neither an answer nor an end in time");
            upstream.join().unwrap();
            prop_assert_eq!(ours, hypers);
            Ok(())
        })
        .unwrap();
}
