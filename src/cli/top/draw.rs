//! The view on a terminal: a head, a list, a line of keys, and what lies over them. 80 columns of 24 lines are
//! enough; on a smaller one, what does not fit is left out.

use std::time::Instant;

use ratatui::{
    Frame,
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
    widgets::{Block, Clear, Widget},
};

use super::{
    grid::{Column, GridRow},
    snapshot::{Snapshot, TopView},
    state::{Popup, TopState},
    tone::{self, Tone, TonedText, count, duration, percent, usd},
};

/// Draws the view.
pub(super) fn draw(frame: &mut Frame<'_>, state: &TopState, now: Instant) {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    let mut lines = Lines { buffer, area };
    title(&mut lines, state);
    if let Some(snapshot) = &state.snapshot {
        totals(&mut lines, state, snapshot);
        upstreams(&mut lines, snapshot);
    }
    tabs(&mut lines, state);
    let rows = state.rows();
    match &rows {
        Some(rows) => list(&mut lines, state, rows),
        None => lines.write(LIST, &[TonedText::toned(unknown(state), Tone::Faint)]),
    }
    bottom(&mut lines, state, now);
    popup(&mut lines, state, &rows.unwrap_or_default());
}

/// Line of the list's column names.
const LIST: u16 = 4;

/// Reason for which there is no list.
fn unknown(state: &TopState) -> &'static str {
    match (&state.snapshot, state.view) {
        (Some(_), TopView::Budgets | TopView::Limits) => {
            "nothing: the server keeps no keys and limits (DATA_DIR is not set), or is an older one"
        }
        _ => "asking the server …",
    }
}

fn title(lines: &mut Lines<'_>, state: &TopState) {
    let mut parts = vec![
        TonedText::plain("anthropic-proxy"),
        TonedText::plain(&state.server),
    ];
    if let Some(Snapshot { overview, .. }) = &state.snapshot {
        let up = duration(overview.uptime_ms as f64);
        parts.push(TonedText::toned(
            format!("{} up {up}", overview.version),
            Tone::Faint,
        ));
    }
    if let Some(fault) = &state.fault {
        parts.push(TonedText::toned(fault, Tone::Bad));
    }
    lines.write(0, &parts);
}

fn totals(lines: &mut Lines<'_>, state: &TopState, snapshot: &Snapshot) {
    let overview = &snapshot.overview;
    let totals = &overview.totals;
    let failed = match totals.error_rate {
        rate if rate > 0.05 => Tone::Bad,
        rate if rate > 0.0 => Tone::Warning,
        _ => Tone::Plain,
    };
    let first_token = totals.ttft_ms.p50.map_or("-".to_owned(), duration);
    lines.write(
        1,
        &[
            TonedText::plain(format!("{} in flight", overview.in_flight)),
            TonedText::plain(format!("{:.0} tok/s", state.rates.sum())),
            TonedText::plain(format!("{:.1} req/s", totals.requests_per_second)),
            TonedText::toned(format!("{:.1}% fail", 100.0 * totals.error_rate), failed),
            TonedText::plain(format!("today {}", usd(overview.today.cost_usd))),
            TonedText::plain(format!("cache {}", percent(totals.cache_hit_share))),
            TonedText::plain(format!("ttft {first_token}")),
        ],
    );
}

fn upstreams(lines: &mut Lines<'_>, snapshot: &Snapshot) {
    let upstreams = snapshot.overview.upstreams.iter();
    let cells: Vec<_> = upstreams
        .map(|it| {
            TonedText::toned(
                format!("{} {}", tone::health(&it.circuit), it.name),
                tone::circuit(&it.circuit),
            )
        })
        .collect();
    lines.write(2, &cells);
}

fn tabs(lines: &mut Lines<'_>, state: &TopState) {
    let mut x = 0;
    for (number, view) in TopView::ALL.into_iter().enumerate() {
        let style = match view == state.view {
            true => Style::new().add_modifier(Modifier::REVERSED),
            false => Style::new(),
        };
        x = lines.put(x, 3, &format!(" {} {} ", number + 1, view.title()), style);
    }
    let total = match (&state.snapshot, state.view) {
        (Some(snapshot), TopView::Requests) => {
            beyond(snapshot.requests.items.len(), snapshot.requests.total)
        }
        (Some(snapshot), TopView::Sessions) => snapshot
            .sessions
            .as_ref()
            .map_or(String::new(), |page| beyond(page.items.len(), page.total)),
        (Some(snapshot), TopView::Limits) => snapshot
            .limits
            .as_ref()
            .map_or(String::new(), |page| beyond(page.items.len(), page.total)),
        _ => String::new(),
    };
    let filter = match (&state.typed, &*state.filter) {
        (None, "") => String::new(),
        (_, filter) => format!("  filter {}", state.typed.as_deref().unwrap_or(filter)),
    };
    let text = format!("  by {}{total}{filter}", state.order());
    lines.put(
        x,
        3,
        &TonedText::plain(text).text,
        Style::new().add_modifier(Modifier::DIM),
    );
}

/// The number of all, where a list has not all of them.
fn beyond(listed: usize, total: usize) -> String {
    match total > listed {
        true => format!(", {listed} of {}", count(total as u64)),
        false => String::new(),
    }
}

fn list(lines: &mut Lines<'_>, state: &TopState, rows: &[GridRow]) {
    let columns = state.view.columns();
    let widths = widths(columns, lines.area.width);
    let mut x = 0;
    let bold = Style::new().add_modifier(Modifier::BOLD);
    for (column, width) in columns.iter().zip(&widths) {
        lines.cell(x, LIST, *width, column, column.name, bold);
        x += width + 1;
    }
    let first_line = LIST + 1;
    let height = usize::from(lines.area.height.saturating_sub(first_line + 1));
    if rows.is_empty() && height > 0 {
        lines.write(first_line, &[TonedText::toned("nothing", Tone::Faint)]);
    }
    let selected = state.selection(rows);
    let offset = selected.saturating_sub(height.saturating_sub(1));
    for (at, row) in rows.iter().enumerate().skip(offset).take(height) {
        let line = first_line + u16::try_from(at - offset).unwrap_or(u16::MAX);
        let mut x = 0;
        for ((column, width), cell) in columns.iter().zip(&widths).zip(&row.cells) {
            lines.cell(x, line, *width, column, &cell.text, style(cell.tone));
            x += width + 1;
        }
        if at == selected {
            let area = Rect::new(0, line, lines.area.width, 1);
            let area = area.intersection(lines.area);
            lines
                .buffer
                .set_style(area, Style::new().add_modifier(Modifier::REVERSED));
        }
    }
}

/// Widths of columns: one of 0 takes what the others leave.
fn widths(columns: &[Column], all: u16) -> Vec<u16> {
    let blanks = u16::try_from(columns.len().saturating_sub(1)).unwrap_or_default();
    let fixed: u16 = columns.iter().map(|column| column.width).sum();
    let rest = all.saturating_sub(fixed).saturating_sub(blanks).max(8);
    let width = |column: &Column| {
        if column.width == 0 {
            rest
        } else {
            column.width
        }
    };
    columns.iter().map(width).collect()
}

fn bottom(lines: &mut Lines<'_>, state: &TopState, now: Instant) {
    let line = lines.area.height.saturating_sub(1);
    if let Some(typed) = &state.typed {
        lines.put(
            0,
            line,
            &TonedText::plain(format!("filter: {typed}_")).text,
            Style::new(),
        );
        return;
    }
    if let Some(notice) = state.notice(now) {
        lines.put(
            0,
            line,
            &TonedText::plain(notice).text,
            style(Tone::Warning),
        );
        return;
    }
    let keys = match state.view {
        TopView::Requests => {
            "q quit  1-5 views  enter detail  / filter  s order  e end a request  ? help"
        }
        _ => "q quit  1-5 views  enter detail  / filter  s order  ? help",
    };
    lines.put(0, line, keys, Style::new().add_modifier(Modifier::DIM));
}

fn popup(lines: &mut Lines<'_>, state: &TopState, rows: &[GridRow]) {
    match &state.popup {
        Popup::None => {}
        Popup::Help => lines.popup("Keys", &HELP.map(|(keys, text)| (keys, text.to_owned()))),
        Popup::Detail(name) => match rows.iter().find(|row| row.name == *name) {
            Some(row) => lines.popup("Detail", &row.facts),
            None => lines.popup(
                "Detail",
                &[("", "it has ended, or is not listed any more".to_owned())],
            ),
        },
        Popup::Confirm(id) => lines.popup(
            "End this request?",
            &[
                ("request", id.clone()),
                (
                    "",
                    "Its client sees the stream aborted, and may send it again.".to_owned(),
                ),
                ("", "y ends it, any other key goes back".to_owned()),
            ],
        ),
    }
}

const HELP: [(&str, &str); 9] = [
    (
        "1 to 5, tab",
        "requests in flight, sessions, upstreams, budgets, limits",
    ),
    ("up, down, j, k", "select; page up, page down, home, end"),
    ("enter", "detail of the selected row"),
    ("/", "filter; enter keeps it, escape goes back"),
    ("escape", "remove the filter"),
    ("s", "another order"),
    ("e, then y", "end the selected request (operators alone)"),
    ("q, ctrl-c", "quit"),
    ("TOK/S", "output tokens a second, over 5 seconds"),
];

/// Lines of the terminal. What does not fit is cut.
struct Lines<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
}

impl Lines<'_> {
    /// Writes a text, and gives the column after it.
    fn put(&mut self, x: u16, y: u16, text: &str, style: Style) -> u16 {
        if y >= self.area.height || x >= self.area.width {
            return x;
        }
        let left = usize::from(self.area.width - x);
        self.buffer.set_stringn(x, y, text, left, style).0
    }

    /// Writes parts with two blanks between them.
    fn write(&mut self, y: u16, parts: &[TonedText]) {
        let mut x = 0;
        for part in parts {
            x = self.put(x, y, &part.text, style(part.tone)) + 2;
        }
    }

    /// Writes a cell of a list.
    fn cell(&mut self, x: u16, y: u16, width: u16, column: &Column, text: &str, style: Style) {
        if y >= self.area.height || x >= self.area.width {
            return;
        }
        let width = width.min(self.area.width - x);
        let used = u16::try_from(text.chars().count()).unwrap_or(u16::MAX);
        let indent = match column.is_number {
            true => width.saturating_sub(used),
            false => 0,
        };
        let left = usize::from(width - indent);
        self.buffer.set_stringn(x + indent, y, text, left, style);
    }

    /// Draws a box in the middle, with names and texts.
    fn popup(&mut self, title: &str, facts: &[(&str, String)]) {
        let most = self.area.width.saturating_sub(2);
        let height = u16::try_from(facts.len())
            .unwrap_or(u16::MAX)
            .saturating_add(2);
        let (width, height) = (most.min(76), height.min(self.area.height));
        let area = Rect::new(
            (self.area.width - width) / 2,
            (self.area.height - height) / 2,
            width,
            height,
        );
        Clear.render(area, self.buffer);
        Block::bordered().title(title).render(area, self.buffer);
        let inner = area.width.saturating_sub(4);
        let shown = facts.iter().take(usize::from(height.saturating_sub(2)));
        for (line, (name, text)) in shown.enumerate() {
            let y = area.y + 1 + u16::try_from(line).unwrap_or_default();
            let dim = Style::new().add_modifier(Modifier::DIM);
            let (x, text) = (area.x + 2, TonedText::plain(text).text);
            self.buffer.set_stringn(x, y, name, usize::from(inner), dim);
            let indent = match name.is_empty() {
                true => 0,
                false => NAMES.min(inner),
            };
            let left = usize::from(inner - indent);
            self.buffer
                .set_stringn(x + indent, y, text, left, Style::new());
        }
    }
}

/// Columns of the names in a box.
const NAMES: u16 = 18;

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Faint => Style::new().add_modifier(Modifier::DIM),
        Tone::Good => Style::new().fg(Color::Green),
        Tone::Warning => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red),
    }
}

#[cfg(test)]
mod tests;
