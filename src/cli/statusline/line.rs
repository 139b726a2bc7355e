//! The line: what a session has cost, and what is left or wrong, in the colours of a terminal or without.

use serde_json::Value;

use super::facts::{BudgetLeft, SessionCost, SessionFacts};
use crate::cli::table::cell;

/// The line; none if there is nothing to say of the session.
pub(super) fn line(input: &Value, facts: &SessionFacts, has_colours: bool) -> Option<String> {
    let budget = facts.budget.as_ref();
    let parts = [
        facts.sums.as_ref().map(cost),
        facts.sums.as_ref().and_then(cache),
        budget.map(left),
        trouble(facts),
    ];
    let mut parts: Vec<_> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        return None;
    }
    let model = match &input["model"] {
        Value::Object(model) => model.get("display_name").or(model.get("id")),
        model => Some(model),
    };
    if let Some(Value::String(_)) = model {
        let name: String = model
            .map(cell)
            .unwrap_or_default()
            .chars()
            .take(40)
            .collect();
        parts.insert(0, (Colour::Plain, name));
    }
    let separator = match has_colours {
        true => "\u{1b}[2m · \u{1b}[0m",
        false => " · ",
    };
    let parts: Vec<_> = parts
        .into_iter()
        .map(|part| painted(part, has_colours))
        .collect();
    Some(parts.join(separator))
}

/// A colour, by its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colour {
    Plain,
    Good,
    Warning,
    Bad,
}

type Part = (Colour, String);

fn painted((tone, text): Part, has_colours: bool) -> String {
    let code = match tone {
        Colour::Good => 32,
        Colour::Warning => 33,
        Colour::Bad => 31,
        Colour::Plain => return text,
    };
    match has_colours {
        true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        false => text,
    }
}

fn cost(sums: &SessionCost) -> Part {
    let more = if sums.is_floor { "+" } else { "" };
    (Colour::Plain, format!("{}{more}", usd(sums.cost_usd)))
}

fn cache(sums: &SessionCost) -> Option<Part> {
    // a share of floats may be below itself by a hair
    let percent = (100.0 * sums.cache_hit_share? + 1e-9).floor();
    let tone = match percent {
        80.0.. => Colour::Good,
        50.0.. => Colour::Warning,
        _ => Colour::Bad,
    };
    Some((tone, format!("cache {percent:.0}%")))
}

fn left(budget: &BudgetLeft) -> Part {
    let tone = match budget.percent {
        95.0.. => Colour::Bad,
        75.0.. => Colour::Warning,
        _ => Colour::Plain,
    };
    let bound = usd(budget.bound_usd);
    let bound = bound.strip_suffix(".00").unwrap_or(&bound);
    let period = match budget.period {
        "" => String::new(),
        period => format!("/{period}"),
    };
    (
        tone,
        format!("{} left of {bound}{period}", usd(budget.left_usd)),
    )
}

fn trouble(facts: &SessionFacts) -> Option<Part> {
    match (facts.unavailable, facts.upstreams) {
        (0, _) => None,
        (1, 1) => Some((Colour::Bad, "upstream down".to_owned())),
        (down, all) if down >= all => Some((Colour::Bad, format!("all {all} upstreams down"))),
        (down, all) => Some((Colour::Warning, format!("{down} of {all} upstreams down"))),
    }
}

/// US dollars with two decimals; less than a cent is told apart from nothing.
fn usd(amount: f64) -> String {
    match amount {
        amount if amount > 0.0 && amount < 0.01 => "<$0.01".to_owned(),
        amount => format!("${:.2}", amount.max(0.0)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts() -> SessionFacts {
        SessionFacts {
            sums: Some(SessionCost {
                cost_usd: 1.234,
                is_floor: false,
                cache_hit_share: Some(0.936),
            }),
            budget: None,
            upstreams: 1,
            unavailable: 0,
        }
    }

    fn plain(input: &Value, facts: &SessionFacts) -> String {
        line(input, facts, false).unwrap()
    }

    #[test]
    fn the_line_says_what_is_known() {
        assert_eq!(plain(&json!({}), &facts()), "$1.23 · cache 93%");
        let model = json!({"model": {"display_name": "Opus 4.5\u{1b}[2J", "id": "x"}});
        assert_eq!(plain(&model, &facts()), "Opus 4.5[2J · $1.23 · cache 93%");
        let mut known = facts();
        known.sums = Some(SessionCost {
            cost_usd: 0.004,
            is_floor: true,
            cache_hit_share: None,
        });
        known.budget = Some(BudgetLeft {
            left_usd: 38.0,
            bound_usd: 50.0,
            percent: 24.0,
            period: "month",
        });
        (known.upstreams, known.unavailable) = (2, 1);
        assert_eq!(
            plain(&json!({"model": "m"}), &known),
            "m · <$0.01+ · $38.00 left of $50/month · 1 of 2 upstreams down"
        );
        known.unavailable = 2;
        assert!(plain(&json!({}), &known).ends_with("all 2 upstreams down"));
        (known.upstreams, known.unavailable) = (1, 1);
        assert!(plain(&json!({}), &known).ends_with(" · upstream down"));
        assert_eq!(line(&model, &SessionFacts::default(), false), None);
    }

    #[test]
    fn colours_say_how_good_it_is() {
        let of = |share: f64| {
            let mut facts = facts();
            facts.sums.as_mut().unwrap().cache_hit_share = Some(share);
            line(&json!({}), &facts, true).unwrap()
        };
        for (share, code) in [(1.0, 32), (0.8, 32), (0.79, 33), (0.5, 33), (0.0, 31)] {
            assert!(
                of(share).contains(&format!("\u{1b}[{code}mcache")),
                "{share}"
            );
        }
        assert!(!plain(&json!({}), &facts()).contains('\u{1b}'));
    }

    #[test]
    fn answers_of_the_api_and_of_a_key_are_the_same_facts() {
        let tokens = json!({"input": 10, "cache_read": 90});
        let session = json!({"requests": 2, "key": "k", "tokens": tokens, "cost_usd": 1.0,
            "cost_is_floor": true, "cache_hit_share": 0.9});
        let limits = json!({
            "limits": [{"kind": "rpm", "bound": 5, "left": 1, "percent": 99.0}],
            "above": [
                {"kind": "spend", "period": "day", "bound": 10.0, "left": 5.0, "percent": 50.0},
                {"kind": "spend", "period": "month", "bound": 50.0, "left": 5.0, "percent": 90.0},
            ],
        });
        let upstreams = json!({"items": [{"circuit": "open"}, {"circuit": "closed"}]});
        let of_operator = SessionFacts::of_operator(Some(&session), Some(&limits), &upstreams);
        let own = json!({
            "session": session,
            "budget": {"of": "team", "period": "month", "bound_usd": 50.0, "left_usd": 5.0, "percent": 90.0},
            "upstreams": {"total": 2, "unavailable": 1},
        });
        assert_eq!(SessionFacts::of_key(&own), Some(of_operator));
        assert_eq!(SessionFacts::of_key(&json!({"error": {}})), None);
    }
}
