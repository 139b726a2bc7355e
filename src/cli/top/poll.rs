//! The thread that asks the server: a look every interval and whenever another one is wanted, and the end of
//! a request. What it learns goes to the terminal's thread, which never waits for it.

use std::{
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use serde_json::json;

use super::{
    snapshot::{Query, Snapshot},
    state::News,
};
use crate::cli::client::{API, ApiClient, segment};

/// Orders of the terminal's thread.
pub(super) enum Order {
    Look(Query),
    End(String),
}

/// Starts the thread; it ends when the orders' sender is gone.
pub(super) fn start(
    server: ApiClient,
    first: Query,
    interval: Duration,
) -> io::Result<(Sender<Order>, Receiver<News>)> {
    let (orders, ordered) = channel();
    let (tell, news) = channel();
    thread::Builder::new()
        .name("poll".to_owned())
        .spawn(move || {
            run(&server, first, interval, &ordered, &tell);
        })?;
    Ok((orders, news))
}

fn run(
    server: &ApiClient,
    mut query: Query,
    interval: Duration,
    ordered: &Receiver<Order>,
    tell: &Sender<News>,
) {
    loop {
        let news = match Snapshot::of(server, &query) {
            Ok(snapshot) => News::Look(Box::new(snapshot)),
            Err(error) => News::Fault(error.to_string()),
        };
        if tell.send(news).is_err() {
            return;
        }
        let mut wait = interval;
        loop {
            match ordered.recv_timeout(wait) {
                Ok(Order::Look(next)) => query = next,
                Ok(Order::End(id)) => {
                    let _ = tell.send(News::Ended(end(server, &id)));
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // further ones that wait, then a look at once
            wait = Duration::ZERO;
        }
    }
}

/// Asks for the end of a request. Gives what came of it.
fn end(server: &ApiClient, id: &str) -> String {
    let path = format!("{API}/requests/{}/end", segment(id));
    let reason = json!({"reason": "ended in top"});
    let said = server.send("POST", &path, None, Some(&reason), PATIENCE);
    match said.map_err(|error| error.to_string()) {
        Ok(answer) if answer.status == 202 => format!("{id} is being ended"),
        Ok(answer) if answer.status == 404 || answer.status == 409 => {
            format!("{id} has ended already")
        }
        Ok(answer) => match answer.success() {
            Ok(_) => format!("{id} is being ended"),
            Err(error) => format!("{id} goes on: {error}"),
        },
        Err(error) => format!("{id}: {error}"),
    }
}

/// For the answer to the end of a request.
const PATIENCE: Duration = Duration::from_secs(10);
