//! The terminal: taken over for the view, and given back at the end, at a signal and at a panic.

use std::{
    io,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, Sender},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event},
};

use super::{
    draw::draw,
    poll::{self, Order},
    state::{Action, News, TopState},
};
use crate::{cli::client::ApiClient, telemetry::activity::unix_millis};

/// Shows the view until a key or a signal ends it.
pub(super) fn show(server: ApiClient, name: String, interval: Duration) -> io::Result<ExitCode> {
    let mut state = TopState::new(name);
    let is_ended = Arc::new(AtomicBool::new(false));
    watch_signals(Arc::clone(&is_ended))?;
    let (orders, news) = poll::start(server, state.query(), interval)?;
    // it also gives the terminal back where a panic is told
    let terminal = ratatui::try_init()?;
    let shown = run(terminal, &mut state, &orders, &news, &is_ended);
    ratatui::restore();
    shown.map(|()| ExitCode::SUCCESS)
}

fn run(
    mut terminal: DefaultTerminal,
    state: &mut TopState,
    orders: &Sender<Order>,
    news: &Receiver<News>,
    is_ended: &AtomicBool,
) -> io::Result<()> {
    while !is_ended.load(Relaxed) {
        let now = Instant::now();
        for news in news.try_iter() {
            state.learns(news, now, unix_millis(SystemTime::now()));
        }
        terminal.draw(|frame| draw(frame, state, now))?;
        if !event::poll(GLANCE)? {
            continue;
        }
        let Event::Key(key) = event::read()? else {
            continue;
        };
        let order = match state.key(key) {
            Action::None => continue,
            Action::Quit => return Ok(()),
            Action::Look(query) => Order::Look(query),
            Action::End(id) => Order::End(id),
        };
        if orders.send(order).is_err() {
            return Err(io::Error::other(
                "the thread that asks the server has ended",
            ));
        }
    }
    Ok(())
}

/// Longest time without a look at news and signals.
const GLANCE: Duration = Duration::from_millis(100);

/// Notes the signals that end programs, on a thread of its own.
#[cfg(unix)]
fn watch_signals(is_ended: Arc<AtomicBool>) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let wait = async move {
        let (terminate, hang_up, interrupt) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::hangup()),
            signal(SignalKind::interrupt()),
        );
        if let (Ok(mut terminate), Ok(mut hang_up), Ok(mut interrupt)) =
            (terminate, hang_up, interrupt)
        {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
                _ = interrupt.recv() => {}
            }
            is_ended.store(true, Relaxed);
        }
    };
    let watch = move || runtime.block_on(wait);
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(watch)?;
    Ok(())
}

#[cfg(not(unix))]
fn watch_signals(_: Arc<AtomicBool>) -> io::Result<()> {
    Ok(())
}
