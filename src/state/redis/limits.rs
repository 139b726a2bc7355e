//! Limits that replicas share, on Redis: one script a meter, all of a call in one pipeline.

use std::sync::Arc;

use redis::from_redis_value;

use super::{
    command::{Command, LuaScript},
    connection::RedisConnection,
    settings::RedisSettings,
};
use crate::state::shared::{
    BudgetAnswer, BudgetReport, MeterAnswer, MeterReport, RateAnswer, RateReport, ReportOrigin,
    ReportedState, SharedLimits, SlotAnswer, SlotReport, Unanswered,
};

static RATE: LuaScript = LuaScript::new(include_str!("rate.lua"));
static BUDGET: LuaScript = LuaScript::new(include_str!("budget.lua"));
static SLOTS: LuaScript = LuaScript::new(include_str!("slots.lua"));

/// Limits that replicas share on Redis.
pub struct RedisLimits {
    connection: RedisConnection,
    /// Times that its servers had been found when this was last asked.
    found: u64,
}

impl RedisLimits {
    /// Limits on the server of these settings. Nothing is opened yet.
    pub fn new(settings: &Arc<RedisSettings>) -> Self {
        let connection = RedisConnection::new(settings).naming();
        Self {
            connection,
            found: 0,
        }
    }

    fn command(&self, origin: &ReportOrigin, report: &MeterReport) -> Command {
        let name = &report.name;
        let key = self.connection.key(&name.subject, &name.meter);
        let call = |script: &'static LuaScript| {
            let call = script.call(&[&key]);
            let is_last = u8::from(report.is_last);
            call.arg(&*origin.boot).arg(origin.sequence).arg(is_last)
        };
        match report.state {
            ReportedState::Rate(RateReport {
                charged,
                confirmed,
                full_at,
                asks,
            }) => call(&RATE)
                .arg(charged)
                .arg(confirmed)
                .arg(full_at)
                .arg(u8::from(asks)),
            ReportedState::Budget(BudgetReport {
                spent,
                held,
                kept,
                asks,
                limit,
                is_known,
                ref ended,
                seen,
                keep,
            }) => call(&BUDGET)
                .arg(&[spent, held, kept, asks, limit])
                .arg(u8::from(is_known))
                .arg(&**ended)
                .arg(&[seen, keep]),
            ReportedState::Slots(SlotReport {
                claim,
                needs,
                wishes,
                limit,
                is_known,
            }) => call(&SLOTS)
                .arg(&[claim, needs, wishes, limit])
                .arg(u8::from(is_known))
                .arg(origin.replicas)
                .with_server(),
        }
    }
}

impl SharedLimits for RedisLimits {
    fn exchange(
        &mut self,
        origin: &ReportOrigin,
        reports: &[MeterReport],
    ) -> Result<Vec<Option<MeterAnswer>>, Unanswered> {
        let commands: Vec<Command> = reports
            .iter()
            .map(|report| self.command(origin, report))
            .collect();
        let sent = self.connection.send(&commands);
        let values = sent.map_err(|error| Unanswered(error.to_string()))?;
        let mut fault = None;
        let mut answers = Vec::with_capacity(values.len());
        for (value, report) in values.into_iter().zip(reports) {
            answers.push(match value {
                Ok(value) => {
                    let numbers: Option<Vec<String>> = from_redis_value(value).unwrap_or_default();
                    numbers.and_then(|numbers| answer(&report.state, &numbers))
                }
                Err(refused) => {
                    fault.get_or_insert(refused);
                    None
                }
            });
        }
        match fault {
            Some(fault) if answers.iter().all(Option::is_none) => {
                Err(Unanswered(fault.to_string()))
            }
            _ => Ok(answers),
        }
    }

    fn is_another(&mut self) -> bool {
        let found = self.connection.found();
        std::mem::replace(&mut self.found, found) != found
    }
}

/// The answer of a script.
fn answer(report: &ReportedState, numbers: &[String]) -> Option<MeterAnswer> {
    // what exceeds 64 bits is as good as the largest number
    let number = |at: usize| -> Option<u64> {
        let text = numbers.get(at)?;
        let digits = text.bytes().all(|it| it.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    Some(match report {
        ReportedState::Rate(_) => MeterAnswer::Rate(RateAnswer {
            full_at: number(0)?,
            now: number(1)?,
            replicas: number(2)?,
            rank: number(3),
        }),
        ReportedState::Budget(_) => MeterAnswer::Budget(BudgetAnswer {
            spent: number(0)?,
            others: number(1)?,
            given: number(2)?,
            is_rest: number(3)? == 1,
            fair: number(4)?,
            is_wanted: number(5)? == 1,
            ended: numbers.get(6)?.as_str().into(),
            replicas: number(7)?,
            is_new: number(8)? == 1,
        }),
        ReportedState::Slots(_) => MeterAnswer::Slots(SlotAnswer {
            claim: number(0)?,
            fair: number(1)?,
            others: number(2)?,
            is_wanted: number(3)? == 1,
            replicas: number(4)?,
            is_new: number(5)? == 1,
        }),
    })
}

#[cfg(test)]
mod tests;
