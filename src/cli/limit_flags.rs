//! Limits as flags give them, and as lines show them.

use clap::Args;
use serde_json::Value;

use super::desk::VerbError;
use crate::registry::{LimitName, LimitShape, budget};

/// Limits as flags.
#[derive(Debug, Default, Args)]
pub(super) struct LimitFlags {
    /// US dollars in a period, as $500/month@Europe/Berlin (day, week, month, total); may be given again
    #[arg(long, value_name = "AMOUNT/PERIOD", allow_hyphen_values = true)]
    budget: Vec<String>,
    /// Requests a minute
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    rpm: Option<String>,
    /// Tokens of input a minute
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    input_tpm: Option<String>,
    /// Tokens of output a minute
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    output_tpm: Option<String>,
    /// Exchanges at once
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    streams: Option<String>,
    /// Effect of these limits while the state that replicas share is lost: closed (budgets' default) refuses
    #[arg(long, value_name = "EFFECT", value_parser = ["open", "closed"])]
    unreachable: Option<String>,
}

impl LimitFlags {
    /// A budget alone.
    pub(super) fn of_budget(text: &str) -> Self {
        Self {
            budget: vec![text.to_owned()],
            ..Self::default()
        }
    }

    /// The limits, for some models or for all. `none` in the place of an amount removes one.
    pub(super) fn shapes(&self, models: Option<&str>) -> Result<Vec<LimitShape>, VerbError> {
        let mut shapes = Vec::new();
        let shape = |kind: LimitName| LimitShape {
            kind,
            amount: None,
            amount_usd: None,
            period: None,
            zone: None,
            models: models.map(str::to_owned),
            unreachable: self.unreachable.clone(),
        };
        for text in &self.budget {
            if let Some(period) = text.strip_prefix("none/") {
                // the amount only checks the rest
                budget(&format!("0/{period}"))
                    .map_err(|fault| VerbError::Usage(format!("--budget: {fault}")))?;
                let (period, _) = period.split_once('@').unwrap_or((period, ""));
                shapes.push(LimitShape {
                    period: Some(period.to_owned()),
                    ..shape(LimitName::Spend)
                });
                continue;
            }
            if text == "none" {
                shapes.push(shape(LimitName::Spend));
                continue;
            }
            let rule =
                budget(text).map_err(|fault| VerbError::Usage(format!("--budget: {fault}")))?;
            shapes.push(LimitShape {
                models: models.map(str::to_owned),
                unreachable: self.unreachable.clone(),
                ..checked("--budget", LimitShape::of_budget(rule))?
            });
        }
        for (flag, kind, text) in [
            ("--rpm", LimitName::RequestsPerMinute, &self.rpm),
            (
                "--input-tpm",
                LimitName::InputTokensPerMinute,
                &self.input_tpm,
            ),
            (
                "--output-tpm",
                LimitName::OutputTokensPerMinute,
                &self.output_tpm,
            ),
            ("--streams", LimitName::AtOnce, &self.streams),
        ] {
            let Some(text) = text else { continue };
            let amount = match text.as_str() {
                "none" => None,
                number => Some(number.parse().map_err(|_| {
                    VerbError::Usage(format!(
                        "{flag}: `{number}` is no whole number of 1 or more; `none` removes the limit"
                    ))
                })?),
            };
            let shape = LimitShape {
                amount,
                ..shape(kind)
            };
            shapes.push(match amount {
                Some(_) => checked(flag, shape)?,
                None => shape,
            });
        }
        if shapes.is_empty() && self.unreachable.is_some() {
            return Err(VerbError::Usage(
                "--unreachable is for the limits of the same command, and there is none".to_owned(),
            ));
        }
        Ok(shapes)
    }
}

/// Refuses an amount that no limit may have, by the name of its flag.
fn checked(flag: &str, shape: LimitShape) -> Result<LimitShape, VerbError> {
    // the pattern of its models is judged where the limit is set
    let amount = LimitShape {
        models: None,
        ..shape.clone()
    };
    match amount.rule() {
        Ok(_) => Ok(shape),
        Err(fault) => Err(VerbError::Usage(format!("{flag}: {fault}"))),
    }
}

/// Limits as the command line writes them.
pub(super) fn limit_texts(limits: &Value) -> Vec<String> {
    let limits = limits.as_array().into_iter().flatten();
    limits
        .filter_map(|limit| serde_json::from_value::<LimitShape>(limit.clone()).ok())
        .map(|shape| shape.text())
        .collect()
}
