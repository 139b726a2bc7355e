//! State of the view, and what keys and answers change in it. Without I/O.

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{
    grid::{self, Column, GridRow},
    rates::TokenRates,
    snapshot::{Query, Snapshot, TopView},
};

/// The view.
pub(super) struct TopState {
    /// Place of the server, for the title.
    pub(super) server: String,
    pub(super) view: TopView,
    pub(super) filter: String,
    /// The filter while it is typed.
    pub(super) typed: Option<String>,
    sorts: [usize; 5],
    /// Name of the selected row of each view.
    selected: [Option<String>; 5],
    pub(super) popup: Popup,
    pub(super) snapshot: Option<Snapshot>,
    pub(super) rates: TokenRates,
    /// Reason for which there is no newer snapshot.
    pub(super) fault: Option<String>,
    notice: Option<(String, Instant)>,
    /// Time of the snapshot, in Unix milliseconds.
    now_ms: u64,
}

/// Box over the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Popup {
    None,
    Help,
    /// Facts of the row of this name.
    Detail(String),
    /// The question if the request of this name is to be ended.
    Confirm(String),
}

/// Consequence of a key, beyond the view itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    None,
    Quit,
    /// Look now, since what is asked for has changed.
    Look(Query),
    /// End the request of this name.
    End(String),
}

/// News of the thread that asks the server.
#[derive(Debug)]
pub(super) enum News {
    Look(Box<Snapshot>),
    Fault(String),
    /// Outcome of ending a request.
    Ended(String),
}

/// Time for which a notice is shown.
const NOTICE: Duration = Duration::from_secs(5);

impl TopView {
    pub(super) const ALL: [Self; 5] = [
        Self::Requests,
        Self::Sessions,
        Self::Upstreams,
        Self::Budgets,
        Self::Limits,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Requests => "Requests",
            Self::Sessions => "Sessions",
            Self::Upstreams => "Upstreams",
            Self::Budgets => "Budgets",
            Self::Limits => "Limits",
        }
    }

    fn at(self) -> usize {
        Self::ALL
            .iter()
            .position(|view| *view == self)
            .unwrap_or_default()
    }

    /// Orders of its rows; the first is the usual one.
    fn orders(self) -> &'static [&'static str] {
        match self {
            Self::Requests => &["age", "output", "tokens a second", "input", "who"],
            // as the API names them
            Self::Sessions => &[
                "last",
                "cost",
                "requests",
                "cache_hit_share",
                "cache_breaks",
                "errors",
            ],
            Self::Upstreams => &["preference", "requests", "errors"],
            Self::Budgets => &["used", "spent", "left"],
            Self::Limits => &["used", "subject", "waiting"],
        }
    }

    pub(super) fn columns(self) -> &'static [Column] {
        match self {
            Self::Requests => grid::REQUESTS,
            Self::Sessions => grid::SESSIONS,
            Self::Upstreams => grid::UPSTREAMS,
            Self::Budgets => grid::BUDGETS,
            Self::Limits => grid::LIMITS,
        }
    }
}

impl TopState {
    pub(super) fn new(server: String) -> Self {
        Self {
            server,
            view: TopView::Requests,
            filter: String::new(),
            typed: None,
            sorts: [0; 5],
            selected: Default::default(),
            popup: Popup::None,
            snapshot: None,
            rates: TokenRates::default(),
            fault: None,
            notice: None,
            now_ms: 0,
        }
    }

    /// The query for the server.
    pub(super) fn query(&self) -> Query {
        Query {
            view: self.view,
            filter: self.typed.clone().unwrap_or_else(|| self.filter.clone()),
            session_order: TopView::Sessions.orders()[self.sorts[TopView::Sessions.at()]],
        }
    }

    /// The order of the rows.
    pub(super) fn order(&self) -> &'static str {
        self.view.orders()[self.sorts[self.view.at()]]
    }

    /// Text for the bottom line.
    pub(super) fn notice(&self, now: Instant) -> Option<&str> {
        let (text, at) = self.notice.as_ref()?;
        (now.duration_since(*at) < NOTICE).then_some(text)
    }

    /// Takes news.
    pub(super) fn learns(&mut self, news: News, now: Instant, now_ms: u64) {
        match news {
            News::Look(snapshot) => {
                // what a filter hides has no rate: it begins anew
                self.rates.take(&snapshot.requests.items, now);
                let mut snapshot = *snapshot;
                if let Some(before) = self.snapshot.take() {
                    // until another look brings them
                    snapshot.sessions = snapshot.sessions.or(before.sessions);
                    snapshot.upstreams = snapshot.upstreams.or(before.upstreams);
                    snapshot.budgets = snapshot.budgets.or(before.budgets);
                    snapshot.limits = snapshot.limits.or(before.limits);
                }
                self.snapshot = Some(snapshot);
                self.fault = None;
                self.now_ms = now_ms;
            }
            News::Fault(fault) => self.fault = Some(fault),
            News::Ended(text) => self.notice = Some((text, now)),
        }
    }

    /// The rows of the view, filtered and in order; none before they are known.
    pub(super) fn rows(&self) -> Option<Vec<GridRow>> {
        let snapshot = self.snapshot.as_ref()?;
        let order = self.order();
        let mut rows = match self.view {
            TopView::Requests => {
                let mut rows = snapshot.requests.items.clone();
                match order {
                    "output" => rows.sort_by_key(|row| std::cmp::Reverse(row.output())),
                    "input" => rows.sort_by_key(|row| std::cmp::Reverse(row.input())),
                    "tokens a second" => rows.sort_by(|one, other| {
                        let rate = |seq| self.rates.of(seq).unwrap_or_default();
                        rate(other.seq).total_cmp(&rate(one.seq))
                    }),
                    "who" => rows.sort_by(|one, other| one.who().cmp(other.who())),
                    _ => rows.sort_by_key(|row| row.seq),
                }
                grid::requests(&rows, &self.rates)
            }
            // in the order of the server
            TopView::Sessions => grid::sessions(&snapshot.sessions.as_ref()?.items, self.now_ms),
            TopView::Upstreams => {
                let mut rows = snapshot.upstreams.clone()?;
                match order {
                    "requests" => rows.sort_by_key(|row| std::cmp::Reverse(row.requests)),
                    "errors" => rows.sort_by_key(|row| std::cmp::Reverse(row.errors)),
                    _ => {}
                }
                grid::upstreams(&rows)
            }
            TopView::Budgets => {
                let mut rows = snapshot.budgets.clone()?;
                match order {
                    "spent" => rows.sort_by(|one, other| other.spent_usd.total_cmp(&one.spent_usd)),
                    "left" => rows.sort_by(|one, other| one.left_usd.total_cmp(&other.left_usd)),
                    _ => {}
                }
                grid::budgets(&rows)
            }
            TopView::Limits => {
                let mut rows = snapshot.limits.clone()?.items;
                match order {
                    "subject" => rows.sort_by(|one, other| one.subject.cmp(&other.subject)),
                    "waiting" => rows.sort_by_key(|row| std::cmp::Reverse(row.waiting)),
                    // in the order of the server
                    _ => {}
                }
                grid::limits(&rows)
            }
        };
        let filter = self.query().filter.to_lowercase();
        if !filter.is_empty() {
            let has = |text: &str| text.to_lowercase().contains(&filter);
            rows.retain(|row| {
                row.cells.iter().any(|cell| has(&cell.text))
                    || row.facts.iter().any(|(_, fact)| has(fact))
            });
        }
        Some(rows)
    }

    /// Position of the selected row: the first, where it is gone.
    pub(super) fn selection(&self, rows: &[GridRow]) -> usize {
        let name = self.selected[self.view.at()].as_ref();
        let found = name.and_then(|name| rows.iter().position(|row| row.name == *name));
        found.unwrap_or_default()
    }

    /// Does what a key asks for.
    pub(super) fn key(&mut self, key: KeyEvent) -> Action {
        if key.kind == KeyEventKind::Release {
            return Action::None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL)
            && matches!(key.code, KeyCode::Char('c' | 'd'))
        {
            return Action::Quit;
        }
        if self.typed.is_some() {
            return self.types(key.code);
        }
        match std::mem::replace(&mut self.popup, Popup::None) {
            Popup::None => self.command(key.code),
            Popup::Confirm(id) => match key.code {
                KeyCode::Char('y' | 'Y') => Action::End(id),
                _ => Action::None,
            },
            Popup::Detail(id) if key.code == KeyCode::Char('e') => {
                self.confirm(id);
                Action::None
            }
            // any other key closes it
            Popup::Detail(_) | Popup::Help => Action::None,
        }
    }

    /// A key while the filter is typed.
    fn types(&mut self, code: KeyCode) -> Action {
        let mut typed = self.typed.take().unwrap_or_default();
        match code {
            KeyCode::Enter => self.filter = typed,
            // as it was before
            KeyCode::Esc => {}
            KeyCode::Backspace => {
                typed.pop();
                self.typed = Some(typed);
            }
            KeyCode::Char(char) if typed.chars().count() < LONGEST_FILTER => {
                typed.push(char);
                self.typed = Some(typed);
            }
            _ => self.typed = Some(typed),
        }
        Action::Look(self.query())
    }

    fn command(&mut self, code: KeyCode) -> Action {
        match code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Esc if self.filter.is_empty() => {}
            KeyCode::Esc => {
                self.filter.clear();
                return Action::Look(self.query());
            }
            KeyCode::Char('?' | 'h') => self.popup = Popup::Help,
            KeyCode::Char('/') => self.typed = Some(self.filter.clone()),
            KeyCode::Char(digit @ '1'..='5') => {
                return self.turn_to(usize::from(digit as u8 - b'1'));
            }
            KeyCode::Tab | KeyCode::Right => return self.turn_to(self.view.at() + 1),
            KeyCode::BackTab | KeyCode::Left => {
                return self.turn_to(self.view.at() + TopView::ALL.len() - 1);
            }
            KeyCode::Char('s') => {
                let at = self.view.at();
                self.sorts[at] = (self.sorts[at] + 1) % self.view.orders().len();
                return Action::Look(self.query());
            }
            KeyCode::Down | KeyCode::Char('j') => self.moves(1),
            KeyCode::Up | KeyCode::Char('k') => self.moves(-1),
            KeyCode::PageDown => self.moves(10),
            KeyCode::PageUp => self.moves(-10),
            KeyCode::Home | KeyCode::Char('g') => self.moves(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.moves(isize::MAX),
            KeyCode::Enter => {
                if let Some(name) = self.selected_name() {
                    self.popup = Popup::Detail(name);
                }
            }
            KeyCode::Char('e') => {
                if let Some(name) = self.selected_name() {
                    self.confirm(name);
                }
            }
            _ => {}
        }
        Action::None
    }

    /// Asks if the request of this name is to be ended.
    fn confirm(&mut self, name: String) {
        if self.view == TopView::Requests {
            self.popup = Popup::Confirm(name);
        }
    }

    fn turn_to(&mut self, at: usize) -> Action {
        self.view = TopView::ALL[at % TopView::ALL.len()];
        Action::Look(self.query())
    }

    fn moves(&mut self, by: isize) {
        let rows = self.rows().unwrap_or_default();
        let last = rows.len().saturating_sub(1);
        let to = self.selection(&rows).saturating_add_signed(by).min(last);
        self.selected[self.view.at()] = rows.into_iter().nth(to).map(|row| row.name);
    }

    fn selected_name(&self) -> Option<String> {
        let rows = self.rows()?;
        let at = self.selection(&rows);
        rows.into_iter().nth(at).map(|row| row.name)
    }
}

/// Characters of a filter.
const LONGEST_FILTER: usize = 100;
