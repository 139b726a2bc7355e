//! Facts of a session, as the two ways to ask for them tell them: a key's own session, and the API for
//! operators.

use serde_json::Value;

/// Facts of a session that a status line shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct SessionFacts {
    /// The sums of the session; none if they are not recorded.
    pub(super) sums: Option<SessionCost>,
    /// The budget that is nearest to its end, if there is one.
    pub(super) budget: Option<BudgetLeft>,
    /// Number of upstreams.
    pub(super) upstreams: u64,
    /// Those whose circuit is open.
    pub(super) unavailable: u64,
}

/// Sums of a session.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct SessionCost {
    pub(super) cost_usd: f64,
    /// True if it cost more.
    pub(super) is_floor: bool,
    /// Share of the input that was read from a cache; none without input.
    pub(super) cache_hit_share: Option<f64>,
}

/// A budget.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BudgetLeft {
    pub(super) left_usd: f64,
    pub(super) bound_usd: f64,
    pub(super) percent: f64,
    /// `day`, `week` or `month`; empty for one without a period.
    pub(super) period: &'static str,
}

impl SessionFacts {
    /// The answer to a key that asks for its own session.
    pub(super) fn of_key(answer: &Value) -> Option<Self> {
        let upstreams = answer.get("upstreams")?;
        Some(Self {
            sums: answer.get("session").and_then(SessionCost::of),
            budget: answer.get("budget").and_then(BudgetLeft::of),
            upstreams: upstreams["total"].as_u64().unwrap_or_default(),
            unavailable: upstreams["unavailable"].as_u64().unwrap_or_default(),
        })
    }

    /// Answers of the API: a session, the limits of its key, the upstreams.
    pub(super) fn of_operator(
        session: Option<&Value>,
        limits: Option<&Value>,
        upstreams: &Value,
    ) -> Self {
        let of = |name: &str| {
            limits
                .and_then(|limits| limits[name].as_array())
                .into_iter()
                .flatten()
        };
        let spends = of("limits").chain(of("above"));
        let budgets = spends
            .filter(|row| row["kind"] == "spend")
            .filter_map(BudgetLeft::of);
        let circuits = upstreams["items"].as_array().into_iter().flatten();
        let circuits: Vec<_> = circuits
            .map(|row| row["circuit"].as_str().unwrap_or_default())
            .collect();
        let is_open = |circuit: &&&str| matches!(**circuit, "open" | "half_open");
        Self {
            sums: session.and_then(SessionCost::of),
            budget: budgets.max_by(|one, other| one.percent.total_cmp(&other.percent)),
            upstreams: circuits.len() as u64,
            unavailable: circuits.iter().filter(is_open).count() as u64,
        }
    }
}

impl SessionCost {
    fn of(session: &Value) -> Option<Self> {
        session.get("requests")?;
        let tokens = |name: &str| session["tokens"][name].as_u64().unwrap_or_default();
        let kinds = ["input", "cache_read", "cache_write_5m", "cache_write_1h"];
        let has_input = kinds.into_iter().any(|kind| tokens(kind) > 0);
        Some(Self {
            cost_usd: session["cost_usd"].as_f64().unwrap_or_default(),
            is_floor: session["cost_is_floor"] == true,
            cache_hit_share: session["cache_hit_share"].as_f64().filter(|_| has_input),
        })
    }
}

impl BudgetLeft {
    fn of(budget: &Value) -> Option<Self> {
        // rows of limits name the amount with grants `bound`
        let usd = |name: &str| {
            let value = budget
                .get(format!("{name}_usd"))
                .or_else(|| budget.get(name));
            value.and_then(Value::as_f64)
        };
        Some(Self {
            left_usd: usd("left")?,
            bound_usd: usd("bound")?,
            percent: budget["percent"].as_f64()?,
            period: match budget["period"].as_str()? {
                "day" => "day",
                "week" => "week",
                "month" => "month",
                _ => "",
            },
        })
    }
}
