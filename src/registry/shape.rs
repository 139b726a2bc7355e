//! A limit as the API, the command line and the key file write it, and the rule that it is.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::money;
use crate::access::{LimitKind, LimitRule, Pattern, Period, Unreachable};

/// A limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LimitShape {
    /// The quantity that it bounds.
    pub kind: LimitName,
    /// Its upper bound: requests, tokens, exchanges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<u64>,
    /// Its upper bound in US dollars, for `spend`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_usd: Option<f64>,
    /// `day`, `week`, `month` or `total`, for `spend`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(example = "month"))]
    pub period: Option<String>,
    /// The IANA time zone of the period; UTC where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(example = "Europe/Berlin"))]
    pub zone: Option<String>,
    /// Pattern of the models that it counts; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(example = "claude-opus-*"))]
    pub models: Option<String>,
    /// `open` or `closed`: its effect while the shared state is unreachable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<String>,
}

/// Quantity that a limit bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LimitName {
    /// Requests a minute.
    RequestsPerMinute,
    /// Tokens of input a minute.
    InputTokensPerMinute,
    /// Tokens of output a minute.
    OutputTokensPerMinute,
    /// Exchanges at once.
    AtOnce,
    /// US dollars in a period.
    Spend,
}

impl LimitShape {
    /// The limit of a budget, as [`super::budget`] reads it.
    pub fn of_budget((kind, amount): (LimitKind, u64)) -> Self {
        Self::of(&LimitRule {
            kind,
            amount,
            models: None,
            unreachable: None,
        })
    }

    /// The limit of a rule.
    pub fn of(rule: &LimitRule) -> Self {
        let mut shape = Self {
            kind: LimitName::Spend,
            amount: Some(rule.amount),
            amount_usd: None,
            period: None,
            zone: None,
            models: rule.models.as_ref().map(ToString::to_string),
            unreachable: rule.unreachable.map(|it| {
                let name = match it {
                    Unreachable::Open => "open",
                    Unreachable::Closed => "closed",
                };
                name.to_owned()
            }),
        };
        shape.kind = match &rule.kind {
            LimitKind::RequestsPerMinute => LimitName::RequestsPerMinute,
            LimitKind::InputTokensPerMinute => LimitName::InputTokensPerMinute,
            LimitKind::OutputTokensPerMinute => LimitName::OutputTokensPerMinute,
            LimitKind::AtOnce => LimitName::AtOnce,
            LimitKind::Spend { period, zone } => {
                shape.amount = None;
                shape.amount_usd = Some(money::number(rule.amount));
                shape.period = Some(money::period_name(*period).to_owned());
                // all time has no days
                let zone = zone.as_ref().filter(|_| *period != Period::Total);
                shape.zone = zone.map(ToString::to_string);
                LimitName::Spend
            }
        };
        shape
    }

    /// The rule.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn rule(&self) -> Result<LimitRule, String> {
        let models = self.models.as_deref().map(|text| {
            let pattern: Result<Pattern, _> = text.parse();
            pattern.map_err(|error| format!("models: {error}"))
        });
        let unreachable = match self.unreachable.as_deref() {
            None => None,
            Some("open") => Some(Unreachable::Open),
            Some("closed") => Some(Unreachable::Closed),
            Some(other) => {
                return Err(format!("unreachable: `{other}` is not one of open, closed"));
            }
        };
        let (kind, amount) = match self.kind {
            LimitName::Spend => self.spend()?,
            other => (other.kind(), self.count()?),
        };
        let rule = LimitRule {
            kind,
            amount,
            models: models.transpose()?,
            unreachable,
        };
        match amount_fault(&rule) {
            Some((problem, remedy)) => Err(format!("{}: {problem}; {remedy}", self.text())),
            None => Ok(rule),
        }
    }

    fn spend(&self) -> Result<(LimitKind, u64), String> {
        if self.amount.is_some() {
            return Err("spend: amount is not used; give amount_usd".to_owned());
        }
        let amount = self.amount_usd.ok_or("spend: amount_usd is missing")?;
        let name = self
            .period
            .as_deref()
            .ok_or("spend: period is missing: day, week, month or total")?;
        let period = money::period(name)
            .ok_or_else(|| format!("`{name}` is no period: expected day, week, month or total"))?;
        if let Some(zone) = &self.zone {
            money::check_zone(zone)?;
            if period == Period::Total {
                return Err("a budget in total has no days: leave zone out".to_owned());
            }
        }
        let zone = self.zone.as_deref().map(Into::into);
        Ok((LimitKind::Spend { period, zone }, money::of_number(amount)?))
    }

    fn count(&self) -> Result<u64, String> {
        let name = self.kind.label();
        if self.amount_usd.is_some() || self.period.is_some() || self.zone.is_some() {
            return Err(format!("{name}: amount_usd, period and zone are for spend"));
        }
        self.amount
            .ok_or_else(|| format!("{name}: amount is missing"))
    }

    /// True for a limit of the same quantity, period and models; one that has neither an amount nor a period
    /// names those of all periods.
    pub(super) fn names(&self, other: &Self) -> bool {
        let is_any_period = self.has_no_amount() && self.period.is_none();
        self.kind == other.kind
            && self.models == other.models
            && (is_any_period || self.period == other.period)
    }

    /// True for one that removes a limit.
    pub(super) fn has_no_amount(&self) -> bool {
        self.amount.is_none() && self.amount_usd.is_none()
    }

    /// The limit as the command line writes it.
    pub fn text(&self) -> String {
        let amount = match (self.amount_usd, self.amount) {
            (Some(usd), _) => {
                money::of_number(usd).map_or_else(|_| usd.to_string(), money::show_usd)
            }
            (None, Some(amount)) => amount.to_string(),
            (None, None) => "none".to_owned(),
        };
        let unit = match self.kind {
            LimitName::RequestsPerMinute => " requests/min".to_owned(),
            LimitName::InputTokensPerMinute => " input tokens/min".to_owned(),
            LimitName::OutputTokensPerMinute => " output tokens/min".to_owned(),
            LimitName::AtOnce => " at once".to_owned(),
            LimitName::Spend => {
                let zone = self.zone.as_ref().map(|zone| format!("@{zone}"));
                format!(
                    "/{}{}",
                    self.period.as_deref().unwrap_or("?"),
                    zone.unwrap_or_default()
                )
            }
        };
        let models = self.models.as_ref().map(|it| format!(" of {it}"));
        let unreachable = self.unreachable.as_ref().map(|it| format!(" ({it})"));
        format!(
            "{amount}{unit}{}{}",
            models.unwrap_or_default(),
            unreachable.unwrap_or_default()
        )
    }
}

/// Problem and remedy of an amount that no limit may have, the same for flags, the API and files.
pub(super) fn amount_fault(rule: &LimitRule) -> Option<(String, String)> {
    let mut faults = rule.check().into_iter();
    let fault = faults.find(|fault| fault.place == "amount")?;
    Some((fault.problem, fault.remedy))
}

/// A limit that is there twice: of two, the strictest would win in silence.
pub(super) fn twice(rules: &[LimitRule]) -> Option<String> {
    let mut seen = BTreeSet::new();
    rules.iter().find_map(|rule| {
        let shape = LimitShape::of(rule);
        let text = shape.text();
        let is_new = seen.insert((shape.kind, shape.period, shape.models));
        (!is_new).then_some(text)
    })
}

impl LimitName {
    /// Its name in JSON.
    pub fn label(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "requests_per_minute",
            Self::InputTokensPerMinute => "input_tokens_per_minute",
            Self::OutputTokensPerMinute => "output_tokens_per_minute",
            Self::AtOnce => "at_once",
            Self::Spend => "spend",
        }
    }

    fn kind(self) -> LimitKind {
        match self {
            Self::RequestsPerMinute => LimitKind::RequestsPerMinute,
            Self::InputTokensPerMinute => LimitKind::InputTokensPerMinute,
            Self::OutputTokensPerMinute => LimitKind::OutputTokensPerMinute,
            Self::AtOnce | Self::Spend => LimitKind::AtOnce,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_and_rules_are_one_thing() {
        for text in [
            r#"{"kind":"requests_per_minute","amount":60}"#,
            r#"{"kind":"at_once","amount":1,"unreachable":"closed"}"#,
            r#"{"kind":"spend","amount_usd":0.25,"period":"month","zone":"Europe/Berlin","models":"claude-opus-*"}"#,
            r#"{"kind":"spend","amount_usd":500.0,"period":"total"}"#,
        ] {
            let shape: LimitShape = serde_json::from_str(text).unwrap();
            let rule = shape.rule().unwrap();
            assert_eq!(LimitShape::of(&rule), shape, "{text}");
            assert_eq!(serde_json::to_string(&shape).unwrap(), text);
        }
    }

    #[test]
    fn a_shape_that_is_no_limit_says_why() {
        for (text, expected) in [
            (
                r#"{"kind":"spend","amount":5,"period":"day"}"#,
                "amount_usd",
            ),
            (r#"{"kind":"spend","amount_usd":5}"#, "period is missing"),
            (
                r#"{"kind":"spend","amount_usd":-5,"period":"day"}"#,
                "must be 0 or more",
            ),
            (
                r#"{"kind":"spend","amount_usd":5,"period":"year"}"#,
                "is no period",
            ),
            (
                r#"{"kind":"spend","amount_usd":5,"period":"day","zone":"X/Y"}"#,
                "no time zone",
            ),
            (
                r#"{"kind":"spend","amount_usd":5,"period":"total","zone":"UTC"}"#,
                "zone",
            ),
            (r#"{"kind":"at_once","amount":0}"#, "revoke"),
            (r#"{"kind":"at_once"}"#, "amount is missing"),
            (
                r#"{"kind":"at_once","amount":1,"period":"day"}"#,
                "for spend",
            ),
            (r#"{"kind":"at_once","amount":1,"models":""}"#, "models: "),
            (
                r#"{"kind":"at_once","amount":1,"unreachable":"ajar"}"#,
                "open, closed",
            ),
        ] {
            let shape: LimitShape = serde_json::from_str(text).unwrap();
            let said = shape.rule().unwrap_err();
            assert!(said.contains(expected), "{text}: {said}");
        }
    }

    #[test]
    fn a_limit_is_written_as_it_is_read() {
        let shape = |text: &str| serde_json::from_str::<LimitShape>(text).unwrap().text();
        assert_eq!(
            shape(r#"{"kind":"spend","amount_usd":0.25,"period":"month","zone":"Europe/Berlin"}"#),
            "$0.25/month@Europe/Berlin"
        );
        assert_eq!(
            shape(r#"{"kind":"requests_per_minute","amount":60,"models":"claude-opus-*"}"#),
            "60 requests/min of claude-opus-*"
        );
    }
}
