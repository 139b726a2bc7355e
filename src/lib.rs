//! anthropic-proxy: a transparent, streaming, multi-core reverse proxy for Anthropic-compatible APIs.
//!
//! # The life of a request
//!
//! actix-server accepts a connection and gives it to one of its workers, a thread with a runtime of its
//! own; from then on nothing of it is shared with another thread.
//!
//! 1. [`downstream`] reads the head, strictly, of HTTP/1.1 or of a stream of HTTP/2, and calls the
//!    actix-web `App` of the worker. Its routes are the few paths of ours ([`server`]); everything else
//!    is the **default service**:
//! 2. [`proxy::forward`] takes one snapshot of the live configuration and counts the exchange in
//!    ([`limits`]),
//! 3. lets [`edit`] decide whether the body of `POST /v1/messages` is held and edited, or streams,
//! 4. chooses the upstream, where there are several ([`upstream::balance`]), and writes the head for it
//!    from the client's, field by field ([`proxy::field`]),
//! 5. sends it through [`upstream`]: a pooled connection or a new one, and our own HTTP/1.1 exchange,
//!    which writes and reads at the same time in this very task; or a stream of HTTP/2, where that is
//!    asked for ([`upstream::http2`]). What could not be sent, or was answered by a failure while its
//!    body is still here, goes on to the next upstream (`proxy::failover`),
//! 6. and hands the response back to [`downstream`]: its head, filtered but otherwise as it came, and its
//!    body, which writes the record of the exchange when it is dropped.
//!
//! A request that asks to switch protocols goes the same way; after a 101 both bodies are raw octets, until
//! both directions have ended (`proxy::tunnel`).
//!
//! When the client goes away, its connection's future ends, and with it everything that hangs on it: the
//! upload, the upstream connection, the record.
//!
//! # Layers
//!
//! Imports point down; siblings do not know each other. A test holds it.
//!
//! | layer | modules |
//! |---|---|
//! | 1 | [`cli`] |
//! | 2 | [`server`] |
//! | 3 | [`control`] |
//! | 4 | [`proxy`] |
//! | 5 | [`upstream`], [`downstream`], [`edit`] |
//! | 6 | [`telemetry`] |
//! | 7 | [`config`] |
//! | 8 | [`metering`] |
//! | 9 | [`json`], [`wire`] |
//! | 10 | [`limits`], [`drain`], [`logging`], [`exchange`], [`error`] |
//! | 11 | [`secret`] |
//!
//! # Decisions
//!
//! - **The connection loop towards the client is ours**, too, not only the exchange with the upstream.
//!   `HttpServer` is actix-server, actix-http's loop, and an `App`; we keep the first and the last. The
//!   loop in between adds a `Date`, answers bad heads without content, has no timer after the first
//!   head, takes 96 fields, reads 8 KiB at a time and copies each chunk twice ([`downstream`]).
//! - **HTTP/2 is the h2 crate under our loop**, not actix-http's dispatcher, which leaves handlers running
//!   when a stream is reset and has no timer for a silent client. All streams of a connection are polled
//!   in its one future, and a stream asks the `App` and relays the answer as HTTP/1.1 does. h2 bounds
//!   streams and header lists; a guard under it counts the frames that cost their sender nothing.
//! - **Heads are octets, not maps** ([`wire::head`]). They ride through actix-web in the extensions of
//!   request and response, so that order, case and duplicates survive and nothing is hashed. actix-web's
//!   own maps are filled for paths of ours only.
//! - **awc has our exchange under it**, but the proxy calls the exchange directly ([`upstream`] has the
//!   figures).
//! - **Health is passive, and shared without a lock**: circuits, sessions and the retry budget are atomics
//!   of the process ([`upstream::balance`]); with one upstream none of them is touched.
//! - **An edit is a splice** ([`edit`]): the octets before and after the system prompt are sent from
//!   where they were read.
//! - **Workers run on tokio's `LocalRuntime`.** That is what actix-server gives a worker when it is started
//!   outside of an actix `System`: waking a task does not go through a `LocalSet`.
//! - **Log lines are gathered by thread and written by another** ([`logging`]): a line for each exchange is
//!   on by default, and must not cost a system call.
//! - **What is observed hangs on the record** (`proxy::watch`): while somebody looks, an exchange has a
//!   watch, which reads copies and keeps plain data ([`exchange`]). At its end the worker counts it in
//!   atomics of its own ([`telemetry::metrics`], added up on a scrape) and hands it to one thread through a bounded
//!   queue that nobody waits for ([`telemetry::activity`]); that thread keeps the sums and writes the access log.
//!   Answers of the admin plane are composed beside the workers, which carry streams ([`control`]).

pub mod cli;
pub mod config;
pub mod control;
pub mod downstream;
pub mod drain;
pub mod edit;
pub mod error;
pub mod exchange;
pub mod json;
pub mod limits;
pub mod logging;
pub mod metering;
pub mod proxy;
pub mod secret;
pub mod server;
pub mod telemetry;
pub mod upstream;
pub mod wire;
