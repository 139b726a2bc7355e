use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use serde_json::json;

use super::*;
use crate::cli::top::{
    snapshot::{
        Listing, ShownBudget, ShownLimit, ShownOverview, ShownRequest, ShownSession, ShownUpstream,
    },
    state::{Action, News},
};

fn of<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn request(seq: u64, model: &str, events: u64) -> ShownRequest {
    of(json!({
        "seq": seq, "id": format!("req_{seq}"), "method": "POST", "path": "/v1/messages", "model": model,
        "user": "ada", "session": "0123456789ab", "duration_ms": 1000.0 * seq as f64, "ttft_ms": 840.0,
        "tokens": {"input": 10, "cache_read": 1990, "output": 1}, "output_events": events,
    }))
}

fn snapshot(requests: Vec<ShownRequest>) -> Snapshot {
    let overview: ShownOverview = of(json!({
        "version": "0.1.0", "uptime_ms": 7_500_000, "in_flight": requests.len(),
        "totals": {"requests_per_second": 1.25, "error_rate": 0.02, "cache_hit_share": 0.93,
                   "ttft_ms": {"p50": 840.0}},
        "today": {"cost_usd": 12.345},
        "upstreams": [{"name": "https://a.test", "circuit": "closed"}, {"name": "https://b.test", "circuit": "open"}],
    }));
    Snapshot {
        overview,
        requests: Listing {
            total: requests.len(),
            items: requests,
        },
        ..Snapshot::default()
    }
}

struct Shown {
    state: TopState,
    terminal: Terminal<TestBackend>,
    now: Instant,
}

impl Shown {
    fn new(width: u16, height: u16) -> Self {
        Self {
            state: TopState::new("/data/admin.sock".to_owned()),
            terminal: Terminal::new(TestBackend::new(width, height)).unwrap(),
            now: Instant::now(),
        }
    }

    fn learns(&mut self, snapshot: Snapshot) {
        self.state
            .learns(News::Look(Box::new(snapshot)), self.now, 1_000_000);
    }

    fn key(&mut self, code: KeyCode) -> Action {
        self.state.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    /// The lines of the screen, without blanks at their ends.
    fn screen(&mut self) -> Vec<String> {
        let (state, now) = (&self.state, self.now);
        self.terminal.draw(|frame| draw(frame, state, now)).unwrap();
        let buffer = self.terminal.backend().buffer();
        let width = usize::from(buffer.area.width);
        let lines = buffer.content.chunks(width);
        lines
            .map(|line| {
                line.iter()
                    .map(|cell| cell.symbol())
                    .collect::<String>()
                    .trim_end()
                    .to_owned()
            })
            .collect()
    }

    fn text(&mut self) -> String {
        self.screen().join("\n")
    }
}

#[test]
fn requests_are_shown_in_80_columns_of_24_lines() {
    let mut shown = Shown::new(80, 24);
    assert!(shown.text().contains("asking the server"));
    shown.learns(snapshot(vec![
        request(2, "claude-opus-4-8", 10),
        request(1, "claude-haiku-4-5", 0),
    ]));
    shown.now += std::time::Duration::from_secs(1);
    shown.learns(snapshot(vec![
        request(2, "claude-opus-4-8", 62),
        request(1, "claude-haiku-4-5", 0),
    ]));
    let screen = shown.screen();
    assert_eq!(
        screen[0],
        "anthropic-proxy  /data/admin.sock  0.1.0 up 2h05m"
    );
    assert_eq!(
        screen[1],
        "2 in flight  52 tok/s  1.2 req/s  2.0% fail  today $12.35  cache 93%  ttft 0.8s"
    );
    assert_eq!(screen[2], "healthy https://a.test  down https://b.test");
    assert_eq!(
        screen[3],
        " 1 Requests  2 Sessions  3 Upstreams  4 Budgets  5 Limits   by age"
    );
    let head = "   AGE MODEL                 WHO            SESSION      IN    OUT  TOK/S   TTFT";
    assert_eq!(screen[4], head);
    assert_eq!(head.len(), 80);
    let rows = [
        "  1.0s claude-haiku-4-5      ada            01234567   2.0k      1      0   0.8s",
        "  2.0s claude-opus-4-8       ada            01234567   2.0k     62     52   0.8s",
    ];
    assert_eq!(screen[5..7], rows);
    assert!(screen[23].starts_with("q quit"), "{screen:?}");
}

#[test]
fn rows_are_filtered_ordered_and_selected_by_keys() {
    let mut shown = Shown::new(80, 24);
    shown.learns(snapshot(vec![
        request(2, "claude-opus-4-8", 9),
        request(1, "claude-haiku-4-5", 1),
    ]));
    // by output
    assert!(matches!(shown.key(KeyCode::Char('s')), Action::Look(_)));
    let screen = shown.screen();
    assert!(
        screen[5].contains("opus") && screen[3].ends_with("by output"),
        "{screen:?}"
    );
    for key in ['/', 'H', 'a', 'i'] {
        shown.key(KeyCode::Char(key));
    }
    let screen = shown.screen();
    assert!(
        screen[5].contains("haiku") && screen[6].is_empty(),
        "{screen:?}"
    );
    assert_eq!(screen[23], "filter: Hai_");
    let Action::Look(query) = shown.key(KeyCode::Enter) else {
        panic!("the filter is asked for")
    };
    assert_eq!(query.filter, "Hai");
    shown.key(KeyCode::Esc);
    assert!(shown.text().contains("opus"));
    // the selection stays with its row when the order changes
    shown.key(KeyCode::Down);
    shown.key(KeyCode::Char('s'));
    shown.key(KeyCode::Enter);
    assert_eq!(shown.state.popup, Popup::Detail("req_1".to_owned()));
    let text = shown.text();
    assert!(
        text.contains("Detail") && text.contains("1990 read from the cache"),
        "{text}"
    );
    shown.key(KeyCode::Esc);
    assert_eq!(shown.state.popup, Popup::None);
}

#[test]
fn a_request_is_ended_after_a_question() {
    let mut shown = Shown::new(80, 24);
    shown.learns(snapshot(vec![request(1, "claude-haiku-4-5", 1)]));
    shown.key(KeyCode::Char('e'));
    let text = shown.text();
    assert!(
        text.contains("End this request?") && text.contains("req_1"),
        "{text}"
    );
    // what another look brings does not change which one it is
    shown.learns(snapshot(vec![
        request(2, "claude-opus-4-8", 1),
        request(1, "claude-haiku-4-5", 2),
    ]));
    assert_eq!(shown.key(KeyCode::Char('n')), Action::None);
    assert_eq!(shown.state.popup, Popup::None);
    shown.key(KeyCode::Char('e'));
    assert_eq!(
        shown.key(KeyCode::Char('y')),
        Action::End("req_1".to_owned())
    );
    let now = shown.now;
    shown
        .state
        .learns(News::Ended("req_1 is being ended".to_owned()), now, 0);
    assert_eq!(shown.screen()[23], "req_1 is being ended");
    // sessions have no end
    shown.key(KeyCode::Char('2'));
    shown.key(KeyCode::Char('e'));
    assert_eq!(shown.state.popup, Popup::None);
}

#[test]
fn sessions_upstreams_budgets_and_limits_have_their_views() {
    let mut shown = Shown::new(80, 24);
    let session: ShownSession = of(json!({
        "id": "s-1", "user": "ada", "models": ["claude-opus-4-8"], "requests": 12, "errors": 1,
        "tokens": {"input": 1, "cache_read": 9}, "cache_hit_share": 0.9, "cache_breaks": 2,
        "cost_usd": 1.5, "cost_is_floor": true, "last_at": 940_000,
    }));
    let upstream: ShownUpstream = of(
        json!({"name": "https://a.test", "circuit": "open", "requests": 1234, "errors": 5,
        "status_529": 4, "head_ms": {"p50": 300.0}}),
    );
    let budgets: Vec<ShownBudget> = of(json!([
        {"subject": "team:core", "period": "month", "limit_usd": 500.0, "spent_usd": 480.0, "left_usd": 20.0,
         "percent": 96.0, "forecast_usd": 620.0},
        {"subject": "key:1", "name": "ci", "period": "day", "limit_usd": 5.0, "left_usd": 5.0},
    ]));
    let limits: Vec<ShownLimit> = of(json!([
        {"subject": "key:1", "name": "ci", "kind": "requests_per_minute", "bound": 60.0, "spent": 57.0,
         "left": 3.0, "percent": 95.0, "resets_at": "2026-01-01T00:00:57Z"},
        {"subject": "user:ann", "default_of": "core", "kind": "output_tokens_per_minute", "bound": 80_000.0,
         "spent": 20_000.0, "left": 60_000.0, "percent": 25.0},
        {"subject": "org", "kind": "at_once", "bound": 40.0, "spent": 0.0, "left": 40.0, "waiting": 2,
         "shared": {"state": "fresh", "replicas": 2, "counts": "unknown"}},
    ]));
    shown.learns(Snapshot {
        limits: Some(Listing {
            total: 7,
            items: limits,
        }),
        sessions: Some(Listing {
            items: vec![session],
            total: 1,
        }),
        upstreams: Some(vec![upstream]),
        budgets: Some(budgets),
        ..snapshot(Vec::new())
    });
    assert!(shown.screen()[5].starts_with("nothing"));
    shown.key(KeyCode::Tab);
    let line = "s-1      ada          claude-opus-4-8      12    1   90%      2    $1.50+  1m00s";
    assert_eq!(shown.screen()[5], line);
    shown.key(KeyCode::Tab);
    assert!(
        shown.screen()[5].contains("down            1.2k      5     0     4   0.3s      -"),
        "{}",
        shown.text()
    );
    shown.key(KeyCode::Tab);
    let screen = shown.screen();
    assert!(
        screen[5].starts_with("team:core") && screen[5].ends_with("$20.00   96%   $620.00"),
        "{screen:?}"
    );
    assert!(screen[6].starts_with("key ci"), "{screen:?}");
    shown.key(KeyCode::Char('5'));
    let screen = shown.screen();
    let rows = [
        "SUBJECT                 LIMIT               IN USE       OF     LEFT  USED  WAIT",
        "key ci                  requests/min            57       60        3   95%     0",
        "user:ann of core        output tokens/min      20k      80k      60k   25%     0",
        "org                     at once                  -       40        -     -     2",
    ];
    assert_eq!(screen[4..8], rows);
    assert!(screen[3].ends_with("by used, 3 of 7"), "{screen:?}");
    shown.key(KeyCode::Enter);
    assert!(
        shown.text().contains("2026-01-01T00:00:57Z"),
        "{}",
        shown.text()
    );
    shown.key(KeyCode::Esc);
    shown.key(KeyCode::Char('s'));
    assert!(shown.screen()[5].starts_with("key ci"));
    shown.key(KeyCode::Char('s'));
    assert!(shown.screen()[5].starts_with("org"));
    shown.key(KeyCode::BackTab);
    assert_eq!(shown.state.view, TopView::Budgets);
    shown.key(KeyCode::Tab);
    shown.key(KeyCode::Tab);
    assert_eq!(shown.state.view, TopView::Requests);
    shown.key(KeyCode::Char('?'));
    assert!(shown.text().contains("end the selected request"));
}

#[test]
fn any_size_and_any_text_is_drawn() {
    for (width, height) in [(1, 1), (3, 5), (20, 6), (79, 23), (300, 100)] {
        let mut shown = Shown::new(width, height);
        let mut odd = request(1, "evil\u{1b}[2J模型\u{202e}", u64::MAX);
        odd.user = Some("名".repeat(50));
        shown.learns(snapshot((0..50).map(|_| odd.clone()).collect()));
        shown.state.fault = Some("no answer\n\u{7}".to_owned());
        for key in ['G', 'e', '?', '/', 'x'] {
            shown.key(KeyCode::Char(key));
            assert!(!shown.text().contains('\u{1b}'));
        }
    }
}

#[test]
fn keys_end_it() {
    let mut shown = Shown::new(80, 24);
    assert_eq!(shown.key(KeyCode::Char('q')), Action::Quit);
    shown.key(KeyCode::Char('/'));
    assert!(
        matches!(shown.key(KeyCode::Char('q')), Action::Look(_)),
        "it is typed"
    );
    let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(shown.state.key(ctrl_c), Action::Quit);
}
