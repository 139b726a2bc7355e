//! Messages of replicas to each other, on Redis: below the hash tag `{fleet}`, so that scripts may touch several keys.
//!
//! | Key | What | Expires |
//! |---|---|---|
//! | `beats`, `times` | heartbeats and their times, by boot | 10 s after the last one of a boot |
//! | `moves` | stream of sessions that changed their upstream | an hour after the last one |
//! | `common` | random text that all have in common | never |
//! | `sum:TABLE:SPAN` | sums by `boot\nname`; of boots that were added up by `\nname` | with what the pages keep |
//! | `boots` | boots that wrote sums lately | 40 days |
//! | `sessions`, `session:NAME` | times of the last writes; registers by boot | 90 days |
//! | `names` | names of keys by id | never |

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use redis::Value;

use super::{
    command::{Command, LuaScript},
    connection::RedisConnection,
    settings::RedisSettings,
};
use crate::state::{
    fleet::{
        BEAT_LIFE, Fleet, SUM_NUMBERS, SessionRegister, StoredBeat, StoredMoves, StoredSession,
        StoredSum, SumRegister, SumTable, Sums,
    },
    store::StateError,
};

static BEAT: LuaScript = LuaScript::new(include_str!("beat.lua"));
static MOVES: LuaScript = LuaScript::new(include_str!("moves.lua"));
static SIGN: LuaScript = LuaScript::new(include_str!("sign.lua"));
static SESSION: LuaScript = LuaScript::new(include_str!("session.lua"));
static MERGE_SESSION: LuaScript = LuaScript::new(include_str!("merge_session.lua"));
static MERGE_SUMS: LuaScript = LuaScript::new(include_str!("merge_sums.lua"));

/// The hash tag of all keys.
const TAG: &str = "fleet";
/// Moves that are kept, about: as many as a replica remembers sessions.
const MOVES_KEPT: usize = 16_384;
/// The longest lifetime of a prompt cache.
const MOVES_LIFE: Duration = Duration::from_secs(3600);
/// A sum of an hour by model is shown for 32 days, one of a day for 400, one of an hour by another name for 7.
const DAY: Duration = Duration::from_secs(86_400);
const BOOTS_LIFE: Duration = Duration::from_secs(40 * 86_400);
const SESSIONS_LIFE: Duration = Duration::from_secs(90 * 86_400);
/// Sessions in the index: as many as a replica keeps in memory.
const SESSIONS_KEPT: isize = 10_000;
/// Registers of a session that are many: then those of boots that have ended are made one.
const MANY_REGISTERS: i64 = 16;
/// Time without a sign after which a boot writes to no session any more.
const SILENT: Duration = Duration::from_secs(86_400);
/// Time for which a replica has the turn to add up.
const TURN: Duration = Duration::from_secs(3000);
/// Commands, and fields of one, that are sent at once.
const AT_ONCE: usize = 256;

/// Messages of replicas to each other, on Redis.
pub struct RedisFleet {
    connection: RedisConnection,
}

impl RedisFleet {
    /// Connects at the first use.
    pub fn new(settings: &Arc<RedisSettings>) -> Self {
        Self {
            connection: RedisConnection::new(settings),
        }
    }

    fn key(&self, rest: &str) -> String {
        self.connection.key(TAG, rest)
    }

    fn span_key(&self, table: SumTable, span: u64) -> String {
        self.key(&format!("sum:{}:{span}", label(table)))
    }

    fn session_key(&self, session: &str) -> String {
        self.key(&format!("session:{session}"))
    }

    /// Sends commands in pieces; the first refusal of any is the error.
    fn send(&mut self, commands: &[Command]) -> Result<Vec<Value>, StateError> {
        let mut answers = Vec::with_capacity(commands.len());
        for commands in commands.chunks(AT_ONCE) {
            for answer in self.connection.send(commands)? {
                answers.push(answer.map_err(StateError::Redis)?);
            }
        }
        Ok(answers)
    }

    /// Sessions beyond those that are kept, and those that expired, leave the index.
    fn trim_sessions(&mut self) -> Result<(), StateError> {
        let index = self.key("sessions");
        let beyond = Command::new("ZRANGE", &index)
            .arg(0)
            .arg(-1 - SESSIONS_KEPT);
        let beyond: Vec<String> = self.connection.query(&beyond)?;
        let mut commands = Vec::new();
        for session in &beyond {
            commands.push(Command::new("UNLINK", &self.session_key(session)));
            commands.push(Command::new("ZREM", &index).arg(session));
        }
        self.send(&commands).map(drop)
    }
}

impl Fleet for RedisFleet {
    fn beat(&mut self, boot: &str, text: &str) -> Result<Vec<StoredBeat>, StateError> {
        let (beats, times) = (self.key("beats"), self.key("times"));
        let beat = BEAT.call(&[&beats, &times]);
        let beat = beat.arg(boot).arg(text).arg(millis(BEAT_LIFE));
        let found: Vec<(String, u64, String)> = self.connection.query(&beat)?;
        let beats = found.into_iter().map(|(boot, age, text)| StoredBeat {
            boot,
            age: Duration::from_millis(age),
            text,
        });
        Ok(beats.collect())
    }

    fn leave(&mut self, boot: &str) -> Result<(), StateError> {
        self.beat(boot, "").map(drop)
    }

    fn common_text(&mut self, proposed: &str) -> Result<String, StateError> {
        let key = self.key("common");
        let commands = [
            Command::new("SET", &key).arg(proposed).arg("NX"),
            Command::new("GET", &key),
        ];
        let answers = self.send(&commands)?;
        let text = answers.last().and_then(text);
        Ok(text.unwrap_or_else(|| proposed.to_owned()))
    }

    fn moves(&mut self, own: &[String], after: &str) -> Result<StoredMoves, StateError> {
        let key = self.key("moves");
        let command = MOVES.call(&[&key]);
        let command = command.arg(after).arg(MOVES_KEPT).arg(millis(MOVES_LIFE));
        let found: Vec<String> = self.connection.query(&command.arg(own))?;
        let mut found = found.into_iter();
        let position = found.next().unwrap_or_default();
        let mut moves = Vec::new();
        while let (Some(age), Some(text)) = (found.next(), found.next()) {
            let age = age.parse().map(Duration::from_millis);
            moves.extend(age.ok().map(|age| (age, text)));
        }
        Ok(StoredMoves { moves, position })
    }
}

impl Sums for RedisFleet {
    fn sign(&mut self, boot: &str) -> Result<bool, StateError> {
        let boots = self.key("boots");
        let sign = SIGN.call(&[&boots]).arg(boot).arg(millis(BOOTS_LIFE));
        self.connection.query(&sign)
    }

    fn write_sums(&mut self, boot: &str, rows: &[SumRegister]) -> Result<(), StateError> {
        let mut spans: BTreeMap<(SumTable, u64), Vec<&SumRegister>> = BTreeMap::new();
        for row in rows {
            spans.entry((row.table, row.span)).or_default().push(row);
        }
        let mut commands = Vec::new();
        for ((table, span), rows) in spans {
            let key = self.span_key(table, span);
            for rows in rows.chunks(AT_ONCE) {
                let mut set = Command::new("HSET", &key);
                for row in rows {
                    set = set.arg(field(boot, &row.name)).arg(shown(&row.numbers));
                }
                commands.push(set);
            }
            commands.push(Command::new("PEXPIRE", &key).arg(millis(life(table))));
        }
        self.send(&commands).map(drop)
    }

    fn sums(
        &mut self,
        table: SumTable,
        spans: &[u64],
        except: &str,
    ) -> Result<Vec<StoredSum>, StateError> {
        let read = |span: &u64| Command::new("HGETALL", &self.span_key(table, *span));
        let commands: Vec<_> = spans.iter().map(read).collect();
        let answers = self.send(&commands)?;
        let mut sums: BTreeMap<(u64, String), [u64; SUM_NUMBERS]> = BTreeMap::new();
        for (span, answer) in spans.iter().zip(answers) {
            for (field, value) in pairs(answer) {
                let Some((boot, name)) = field.split_once('\n') else {
                    continue;
                };
                let Some(numbers) = numbers(&value).filter(|_| boot != except) else {
                    continue;
                };
                let sum = sums.entry((*span, name.to_owned())).or_default();
                for (sum, number) in sum.iter_mut().zip(numbers) {
                    *sum = sum.saturating_add(number);
                }
            }
        }
        let sums = sums.into_iter().map(|((span, name), numbers)| StoredSum {
            span,
            name,
            numbers,
        });
        Ok(sums.collect())
    }

    fn merge_sums(&mut self, table: SumTable, spans: &[u64]) -> Result<(), StateError> {
        for span in spans {
            let key = self.span_key(table, *span);
            let fields: Vec<String> = self.connection.query(&Command::new("HKEYS", &key))?;
            let of_boots = |field: &String| !field.starts_with('\n') && field.contains('\n');
            let fields: Vec<_> = fields.into_iter().filter(of_boots).collect();
            // one by one: a script is the only thing that the server does meanwhile
            for fields in fields.chunks(AT_ONCE) {
                self.send(&[MERGE_SUMS.call(&[&key]).arg(fields)])?;
            }
        }
        Ok(())
    }

    fn take_turn(&mut self, boot: &str) -> Result<bool, StateError> {
        let turn = Command::new("SET", &self.key("turn")).arg(boot);
        let turn = turn.arg("NX").arg("PX").arg(millis(TURN));
        let taken: Option<String> = self.connection.query(&turn)?;
        Ok(taken.is_some())
    }

    fn write_sessions(&mut self, rows: &[SessionRegister]) -> Result<Vec<String>, StateError> {
        let index = self.key("sessions");
        let write = |row: &SessionRegister| {
            let key = self.session_key(&row.session);
            let write = SESSION.call(&[&index, &key]).arg(&row.session);
            let write = write.arg(&row.register).arg(&row.record);
            write.arg(millis(SESSIONS_LIFE))
        };
        let commands: Vec<_> = rows.iter().map(write).collect();
        let answers = self.send(&commands)?;
        self.trim_sessions()?;
        let crowded = rows
            .iter()
            .zip(answers)
            .filter(|(_, answer)| matches!(answer, Value::Int(count) if *count > MANY_REGISTERS));
        Ok(crowded.map(|(row, _)| row.session.clone()).collect())
    }

    fn sessions(&mut self, after: u64) -> Result<(u64, Vec<StoredSession>), StateError> {
        let changed = Command::new("ZRANGEBYSCORE", &self.key("sessions"));
        let changed = changed.arg(after).arg("+inf").arg("WITHSCORES");
        let changed: Vec<(String, f64)> = self.connection.query(&changed)?;
        let last = changed.last().map_or(after, |(_, at)| *at as u64);
        let read =
            |(session, _): &(String, f64)| Command::new("HGETALL", &self.session_key(session));
        let commands: Vec<_> = changed.iter().map(read).collect();
        let answers = self.send(&commands)?;
        let sessions = changed.into_iter().zip(answers);
        let sessions = sessions.map(|((session, _), answer)| StoredSession {
            session,
            registers: pairs(answer),
        });
        Ok((last, sessions.collect()))
    }

    fn merge_session(
        &mut self,
        session: &str,
        merge: &dyn Fn(&[String]) -> Option<String>,
    ) -> Result<(), StateError> {
        let (key, boots) = (self.session_key(session), self.key("boots"));
        let heard = Command::new("ZRANGE", &boots).arg(0).arg(-1);
        let commands = [heard.arg("WITHSCORES"), Command::new("HGETALL", &key)];
        let mut answers = self.send(&commands)?.into_iter();
        let signs = answers.next().map(scores).unwrap_or_default();
        let registers = answers.next().map(pairs).unwrap_or_default();
        // the last sign is one of now: the boot that asks has just written
        let last = signs.values().copied().max().unwrap_or_default();
        let silent = millis(SILENT);
        let heard = |boot: &str| signs.get(boot).is_some_and(|at| last - at < silent);
        let is_silent = |register: &str| {
            let boot = register.split('.').next().unwrap_or_default();
            !heard(boot)
        };
        let silent: Vec<_> = registers
            .into_iter()
            .filter(|(register, _)| is_silent(register))
            .collect();
        let records: Vec<String> = silent.iter().map(|(_, record)| record.clone()).collect();
        let Some(merged) = merge(&records).filter(|_| silent.len() > 1) else {
            return Ok(());
        };
        let mut command = MERGE_SESSION.call(&[&key]).arg(merged);
        for (register, record) in silent {
            command = command.arg(register).arg(record);
        }
        self.send(&[command]).map(drop)
    }

    fn write_names(&mut self, names: &[(String, String)]) -> Result<(), StateError> {
        if names.is_empty() {
            return Ok(());
        }
        let mut command = Command::new("HSET", &self.key("names"));
        for (id, name) in names {
            command = command.arg(id).arg(name);
        }
        self.send(&[command]).map(drop)
    }

    fn names(&mut self) -> Result<Vec<(String, String)>, StateError> {
        let command = Command::new("HGETALL", &self.key("names"));
        Ok(self.send(&[command])?.pop().map(pairs).unwrap_or_default())
    }
}

fn label(table: SumTable) -> &'static str {
    match table {
        SumTable::HoursByModel => "hour",
        SumTable::DaysByModel => "day",
        SumTable::HoursByName => "hour_by",
        SumTable::DaysByName => "day_by",
    }
}

/// Time after the last write for which a span is kept: longer than the pages show it.
fn life(table: SumTable) -> Duration {
    match table {
        SumTable::HoursByModel => DAY * 34,
        SumTable::HoursByName => DAY * 9,
        SumTable::DaysByModel | SumTable::DaysByName => DAY * 402,
    }
}

fn field(boot: &str, name: &str) -> String {
    format!("{boot}\n{name}")
}

fn shown(numbers: &[u64; SUM_NUMBERS]) -> String {
    numbers.map(|number| number.to_string()).join(" ")
}

/// The numbers of a sum; none if they cannot be read.
fn numbers(text: &str) -> Option<[u64; SUM_NUMBERS]> {
    let mut numbers = text.split(' ').map(str::parse);
    let mut read = [0; SUM_NUMBERS];
    for number in &mut read {
        *number = numbers.next()?.ok()?;
    }
    Some(read)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn text(value: &Value) -> Option<String> {
    redis::from_redis_value_ref(value).ok()
}

/// Members of a sorted set with their times.
fn scores(value: Value) -> BTreeMap<String, u64> {
    let pairs: Vec<(String, f64)> = redis::from_redis_value(value).unwrap_or_default();
    let pairs = pairs.into_iter();
    pairs.map(|(member, at)| (member, at as u64)).collect()
}

/// Fields and values of a hash; none of those that are no text.
fn pairs(value: Value) -> Vec<(String, String)> {
    redis::from_redis_value(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;
