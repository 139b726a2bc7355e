//! The driver of one HTTP/2 connection.
//!
//! The driver is a task of the worker. It ends when h2 has nothing more to do: after the last
//! handle for new streams was dropped (by its [`Http2Pool`], when the connection is idle for too
//! long, gets GOAWAY, or its endpoint is no longer configured) and its last stream has ended, or
//! when the connection fails.

use std::{
    future::{Future as _, poll_fn},
    io,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::timeout;

use super::{
    connection::Http2Connection,
    errors::unusable,
    monitored_stream::MonitoredStream,
    pool::Http2Pool,
    state::{CONNECTION_WINDOW, Http2State, STREAM_WINDOW},
    upload::SEND_BUFFER,
};
use crate::{
    error::UpstreamError,
    upstream::dial::Stream,
    wire::{
        MAX_HEAD,
        window::{MAX_EXTRA, WindowDriver},
    },
};

/// Opens an HTTP/2 connection and waits until the peer allows a stream.
///
/// # Errors
/// The error that ended the connection, or a timeout.
pub(super) async fn open(
    stream: Stream,
    pool: &Rc<Http2Pool>,
    patience: Duration,
) -> Result<Http2Connection, UpstreamError> {
    let state = Rc::new(Http2State::new(stream));
    let wire = MonitoredStream::new(Rc::clone(&state));
    let handshake = builder().handshake(wire);
    let (send, connection) = match timeout(patience, handshake).await {
        Ok(outcome) => outcome.map_err(unusable)?,
        Err(_) => return Err(UpstreamError::ConnectionTimeout),
    };
    let pool = Rc::downgrade(pool);
    actix_rt::spawn(drive(connection, Rc::clone(&state), pool));
    match timeout(patience, state.ready()).await {
        Ok(outcome) => outcome.map(|()| Http2Connection { send, state }),
        Err(_) if state.has_settings.get() => Err(UpstreamError::ConnectionFailed(
            io::Error::other("the upstream allows no HTTP/2 stream"),
        )),
        Err(_) => Err(UpstreamError::ConnectionTimeout),
    }
}

/// Reads and writes for all streams of a connection, and takes it from its pool when it takes no
/// more streams.
async fn drive(
    mut connection: h2::client::Connection<MonitoredStream, Bytes>,
    state: Rc<Http2State>,
    pool: Weak<Http2Pool>,
) {
    let mut timer = None;
    let mut windows = WindowDriver::new(Rc::clone(&state.windows), &mut connection);
    let outcome = poll_fn(|cx| {
        // first: a stream that was opened is told of a smaller window before it is asked for
        windows.poll(cx, &mut connection);
        let mut outcome = Pin::new(&mut connection).poll(cx);
        while windows.is_shrinking()
            && outcome.is_pending()
            && windows.poll(cx, &mut connection) > 0
        {
            outcome = Pin::new(&mut connection).poll(cx);
        }
        state.follow(connection.max_concurrent_send_streams());
        if outcome.is_pending()
            && let Some(pool) = pool.upgrade()
            && (state.is_leaving() || poll_idle(cx, &state, &pool, &mut timer).is_ready())
        {
            // if it has no streams, h2 is woken by this and ends the connection
            pool.forget(&state);
        }
        outcome
    })
    .await;
    state.end(outcome);
    if let Some(pool) = pool.upgrade() {
        pool.forget(&state);
    }
}

/// Ready when the connection has had no stream for too long, or has none and is too old.
fn poll_idle(
    cx: &mut Context<'_>,
    state: &Http2State,
    pool: &Http2Pool,
    timer: &mut Option<Pin<Box<actix_rt::time::Sleep>>>,
) -> Poll<()> {
    let Some(idle) = state.idle() else {
        return Poll::Pending;
    };
    let rest = |idle: Duration| {
        let rest = pool.keep_alive.get().saturating_sub(idle);
        rest.min(state.age.left(pool.max_age.get()))
    };
    let timer = timer.get_or_insert_with(|| Box::pin(actix_rt::time::sleep(rest(idle))));
    while timer.as_mut().poll(cx).is_ready() {
        let rest = rest(state.idle().unwrap_or_default());
        if rest.is_zero() {
            return Poll::Ready(());
        }
        timer.set(actix_rt::time::sleep(rest));
    }
    Poll::Pending
}

fn builder() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(2 * MAX_HEAD as u32)
        .initial_max_send_streams(0)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .data_frame_budget(FRAME_BUDGET);
    builder
}

/// Streams that were reset here and whose late frames are passed over, for one second: as many as
/// clients may abort in that time before h2 takes the frames for faults and ends the connection.
const RESET_STREAMS: usize = 1024;
/// h2 charges a DATA frame that waits here 256 bytes less its own, and ends the connection beyond
/// this. A window full of events of 50 bytes is charged four times its size, with [`super::state::MAX_STREAMS`] of
/// them 27 MB, and 17 MB for the extra, twice while the connection's window is doubled: slow clients must not
/// end the streams of the others.
const FRAME_BUDGET: usize = 2 * (32 * 1024 * 1024 + 4 * MAX_EXTRA as usize);
