//! The load generator: clients on one thread, and a second thread that measures the proxy meanwhile.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    error::Error,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use clap::ValueEnum;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{client::Client, events::Events, now, process, request};

#[derive(clap::Args)]
pub struct Options {
    /// The port of the proxy on 127.0.0.1.
    #[arg(long)]
    port: u16,
    #[arg(long, default_value = "/v1/messages")]
    target: String,
    #[arg(long, value_enum, default_value_t = Mode::Json)]
    mode: Mode,
    /// Clients, each with one request at a time.
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
    /// Requests a second, of all clients; 0: as many as there can be.
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    #[arg(long, default_value_t = 2048)]
    body_bytes: usize,
    /// Events of a stream.
    #[arg(long, default_value_t = 20)]
    events: u64,
    /// Milliseconds between two events.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Each client sends one request only.
    #[arg(long)]
    once: bool,
    /// Seconds in which the clients begin.
    #[arg(long, default_value_t = 0.0)]
    ramp: f64,
    /// Seconds before it is measured.
    #[arg(long, default_value_t = 0.0)]
    warmup: f64,
    /// Seconds for which it is measured.
    #[arg(long, default_value_t = 5.0)]
    duration: f64,
    /// The proxy's process: its CPU time and memory are measured, with those of its children.
    #[arg(long)]
    proxy_pid: Option<u32>,
    /// The mock's process, whose CPU time is no noise.
    #[arg(long)]
    mock_pid: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    /// `POST` with an answer that is not streamed.
    Json,
    /// `POST` with a stream of events.
    Sse,
    /// `GET`.
    Download,
}

/// What the two threads share.
#[derive(Default)]
struct Control {
    phase: AtomicU8,
    /// Clients that have sent their one request.
    finished: AtomicUsize,
}

const MEASURING: u8 = 1;
const STOPPED: u8 = 2;

impl Control {
    fn is_measuring(&self) -> bool {
        self.phase.load(Relaxed) == MEASURING
    }
}

/// What was seen while it was measured. Times are nanoseconds.
#[derive(Default)]
struct Seen {
    ok: u64,
    bytes: u64,
    reconnects: u64,
    /// Requests that began late, against the rate.
    late: u64,
    latencies: Vec<u64>,
    first_events: Vec<u64>,
    lags: Vec<u64>,
    errors: BTreeMap<String, u64>,
}

/// Sends, measures and tells.
pub fn run(options: Options) -> Result<Value, Box<dyn Error>> {
    let options = Arc::new(options);
    let control = Arc::new(Control::default());
    let pids = process::tree(options.proxy_pid.as_slice());
    let others: Vec<u32> = options
        .mock_pid
        .into_iter()
        .chain([std::process::id()])
        .collect();
    let before = process::usage(&pids);
    let clients = {
        let (options, control) = (Arc::clone(&options), Arc::clone(&control));
        thread::spawn(move || send_all(&options, &control))
    };
    let mut peak = before.resident;
    let mut watch = |seconds: f64| {
        let end = now() + (seconds * 1e9) as u64;
        while now() < end && control.finished.load(Relaxed) < options.concurrency {
            thread::sleep(Duration::from_millis(50));
            peak = peak.max(process::usage(&pids).resident);
        }
    };
    if !options.once {
        watch(options.warmup);
    }
    let begin = (
        now(),
        process::usage(&pids).cpu,
        process::usage(&others).cpu,
        process::machine(),
    );
    control.phase.store(MEASURING, Relaxed);
    watch(options.duration);
    control.phase.store(STOPPED, Relaxed);
    let time = now() - begin.0;
    let after = process::usage(&pids);
    let cpu = after.cpu.saturating_sub(begin.1);
    let ours = process::usage(&others).cpu.saturating_sub(begin.2);
    let machine = process::machine().saturating_sub(begin.3);
    let mut seen = clients
        .join()
        .map_err(|_| "the clients' thread panicked")??;
    if options.once {
        let left = options.concurrency - control.finished.load(Relaxed);
        if left > 0 {
            seen.errors
                .insert("not finished in time".into(), left as u64);
        }
    }

    let seconds = time as f64 / 1e9;
    let units = if options.mode == Mode::Sse {
        seen.lags.len() as u64
    } else {
        seen.ok
    };
    let moved = match options.mode {
        Mode::Download => seen.bytes as f64,
        _ => seen.ok as f64 * options.body_bytes as f64,
    };
    let downloaded = seen.bytes as f64 / 104_857_600.0;
    let [latencies, first_events, lags] =
        [&mut seen.latencies, &mut seen.first_events, &mut seen.lags].map(|times| {
            times.sort_unstable();
            &*times
        });
    Ok(json!({
        "concurrency": options.concurrency,
        "seconds": rounded(seconds, 1000.0),
        "ok": seen.ok,
        "errors": seen.errors.values().sum::<u64>(),
        "errs": seen.errors,
        "reconnects": seen.reconnects,
        "late": seen.late,
        "rps": rounded(seen.ok as f64 / seconds, 10.0),
        "MBps": rounded(moved / 1e6 / seconds, 10.0),
        "p50_us": quantile(latencies, 0.5),
        "p90_us": quantile(latencies, 0.9),
        "p99_us": quantile(latencies, 0.99),
        "max_us": quantile(latencies, 1.0),
        "ttfe_p50_us": quantile(first_events, 0.5),
        "ttfe_p99_us": quantile(first_events, 0.99),
        "events": lags.len(),
        "events_per_s": rounded(lags.len() as f64 / seconds, 1.0),
        "lag_p50_us": quantile(lags, 0.5),
        "lag_p90_us": quantile(lags, 0.9),
        "lag_p99_us": quantile(lags, 0.99),
        "lag_max_us": quantile(lags, 1.0),
        "cpu_us_per": if units > 0 { rounded(cpu as f64 / 1e3 / units as f64, 10.0) } else { 0.0 },
        "cpu_cores": rounded(cpu as f64 / time as f64, 1000.0),
        "cpu_ms_per_100MB": if downloaded > 0.0 { rounded(cpu as f64 / 1e6 / downloaded, 10.0) } else { 0.0 },
        "foreign_cores": rounded((machine as f64 - cpu as f64 - ours as f64) / time as f64, 1000.0),
        "rss0_kb": before.resident,
        "rss_peak_kb": peak,
        "hwm_kb": after.peak,
    }))
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

/// A quantile of sorted nanoseconds, as microseconds.
fn quantile(times: &[u64], quantile: f64) -> f64 {
    let at = (times.len() as f64 * quantile).ceil() as usize;
    let time = times.get(at.saturating_sub(1)).copied().unwrap_or(0);
    rounded(time as f64 / 1e3, 10.0)
}

/// All clients, on this thread, until it is stopped.
fn send_all(options: &Arc<Options>, control: &Arc<Control>) -> std::io::Result<Seen> {
    let body = request::body(options.body_bytes, options.mode == Mode::Sse);
    let (body, fields) = match options.mode {
        Mode::Download => (None, vec![]),
        Mode::Json => (Some(body.as_slice()), vec![]),
        Mode::Sse => {
            let events = format!("x-mock-events: {}", options.events);
            let delay = format!("x-mock-delay-ms: {}", options.delay_ms);
            (Some(body.as_slice()), vec![events, delay])
        }
    };
    let octets: Rc<[u8]> = request::request(options.port, &options.target, body, &fields).into();
    let seen = Rc::new(RefCell::new(Seen::default()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        for nth in 0..options.concurrency {
            tokio::task::spawn_local(client(
                nth,
                Rc::clone(&octets),
                Arc::clone(options),
                Arc::clone(control),
                Rc::clone(&seen),
            ));
        }
        while control.phase.load(Relaxed) != STOPPED {
            sleep(Duration::from_millis(10)).await;
        }
    });
    Ok(seen.take())
}

/// One client: a request after the other, or one.
async fn client(
    nth: usize,
    octets: Rc<[u8]>,
    options: Arc<Options>,
    control: Arc<Control>,
    seen: Rc<RefCell<Seen>>,
) {
    let part = nth as f64 / options.concurrency as f64;
    sleep(Duration::from_secs_f64(options.ramp * part)).await;
    let buffer = match options.mode {
        Mode::Download => 256 * 1024,
        Mode::Sse => 16 * 1024,
        Mode::Json => 32 * 1024,
    };
    let mut client = Client::new(options.port, buffer);
    let mut pace = (options.rate > 0.0).then(|| {
        let period = Duration::from_secs_f64(options.concurrency as f64 / options.rate);
        (Instant::now() + period.mul_f64(part), period)
    });
    loop {
        if let Some((next, period)) = &mut pace {
            if Instant::now() > *next + Duration::from_millis(2) && control.is_measuring() {
                seen.borrow_mut().late += 1;
            }
            sleep_until(*next).await;
            *next += *period;
        }
        let counts = || options.once || control.is_measuring();
        let begin = now();
        let mut events = Events::default();
        let answer = client
            .send(&octets, |content, time| match options.mode {
                Mode::Sse => events.feed(content, time, |lag| {
                    if counts() {
                        seen.borrow_mut().lags.push(lag);
                    }
                }),
                Mode::Download if counts() => seen.borrow_mut().bytes += content.len() as u64,
                Mode::Download | Mode::Json => {}
            })
            .await;
        let time = now() - begin;
        let fault = match answer {
            Err(what) => Some(what),
            Ok(answer) if answer.status != 200 => Some(format!("status {}", answer.status)),
            Ok(answer) if answer.length == 0 => Some("no content".into()),
            Ok(_) if options.mode == Mode::Sse && !events.is_complete => {
                Some("no last event".into())
            }
            Ok(_) if options.mode == Mode::Sse && events.timed != options.events => {
                Some(format!("{} events", events.timed))
            }
            Ok(_) => None,
        };
        let has_failed = fault.is_some();
        if counts() {
            let mut seen = seen.borrow_mut();
            seen.reconnects += std::mem::take(&mut client.reconnects);
            match fault {
                Some(fault) => *seen.errors.entry(fault).or_default() += 1,
                None => {
                    seen.ok += 1;
                    seen.latencies.push(time);
                    seen.first_events
                        .extend(events.first.map(|first| first - begin));
                }
            }
        }
        if options.once {
            control.finished.fetch_add(1, Relaxed);
            return;
        }
        if has_failed {
            sleep(Duration::from_millis(10)).await;
        }
    }
}
