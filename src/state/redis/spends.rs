//! Spend of all replicas: the index of its cells, and their registers.
//!
//! The limits write the registers (`ap:{subject}:b:<cell>`). A note in the index tells that a cell was charged,
//! so that the other replicas read those cells alone.

use std::collections::{HashMap, HashSet};

use super::{
    command::{Command, LuaScript},
    connection::RedisConnection,
    settings::{RedisSettings, TAG},
};
use crate::state::store::{SpendRegister, StateError, StoredRegister, StoredSpend};

/// Cells in one call.
const PAGE: usize = 500;

/// Time after which a cell without registers is no longer in the index: they have lapsed.
const FORGOTTEN_MS: u64 = 24 * 60 * 60 * 1_000;

static CELLS: LuaScript = LuaScript::new(include_str!("cells.lua"));

static SEED: LuaScript = LuaScript::new(include_str!("seed.lua"));

/// The index as far as it was read.
#[derive(Default)]
pub(super) struct SpendIndex {
    /// Time of the newest note that was read.
    read_to: u64,
    /// Cells of that time: another note may have the same.
    at_end: HashSet<String>,
    /// Notes of this replica, by cell.
    own: HashMap<String, u64>,
}

impl SpendIndex {
    /// Notes that cells were charged.
    pub(super) fn note(
        &mut self,
        connection: &mut RedisConnection,
        settings: &RedisSettings,
        rows: &[SpendRegister],
    ) -> Result<(), StateError> {
        let mut rows: Vec<_> = rows.iter().map(|row| (&row.subject, &row.cell)).collect();
        rows.sort();
        rows.dedup();
        let name = name(settings);
        for page in rows.chunks(PAGE) {
            let cells: Vec<_> = page
                .iter()
                .map(|(subject, cell)| format!("{subject}\n{cell}"))
                .collect();
            let at: u64 = connection.query(&CELLS.call(&[&name]).arg(&cells))?;
            self.own.extend(cells.into_iter().map(|cell| (cell, at)));
        }
        Ok(())
    }

    /// Raises the spend of cells to what is known of it from elsewhere: of those that are not there, or younger than
    /// `age` (ms).
    pub(super) fn seed(
        &mut self,
        connection: &mut RedisConnection,
        settings: &RedisSettings,
        spends: &[StoredSpend],
        age: u64,
    ) -> Result<(), StateError> {
        let rows: Vec<_> = spends
            .iter()
            .map(|it| SpendRegister {
                subject: it.subject.clone(),
                cell: it.cell.clone(),
                spent: it.spent,
                upto: it.upto,
            })
            .collect();
        self.note(connection, settings, &rows)?;
        for page in spends.chunks(PAGE) {
            let seeds: Vec<_> = page
                .iter()
                .map(|it| {
                    let name = settings.key(&it.subject, &format!("b:{}", it.cell));
                    SEED.call(&[&name]).arg(it.upto.max(it.spent)).arg(age)
                })
                .collect();
            for answer in connection.send(&seeds)? {
                answer.map_err(StateError::Redis)?;
            }
        }
        Ok(())
    }

    /// The spend of all boots but one, in all cells.
    pub(super) fn all(
        &mut self,
        connection: &mut RedisConnection,
        settings: &RedisSettings,
        except: &str,
    ) -> Result<Vec<StoredSpend>, StateError> {
        let cells = cells(connection, settings, "-inf")?;
        self.read_until(&cells);
        let names: Vec<_> = cells.iter().map(|(cell, _)| cell.as_str()).collect();
        let registers = registers(connection, settings, &names)?;
        let newest = self.read_to;
        let lapsed = cells.iter().filter(|(cell, at)| {
            !registers.contains_key(cell) && at.saturating_add(FORGOTTEN_MS) < newest
        });
        let lapsed: Vec<_> = lapsed.map(|(cell, _)| cell.as_str()).collect();
        for page in lapsed.chunks(PAGE) {
            let _: u64 = connection.query(&Command::new("ZREM", &name(settings)).arg(page))?;
        }
        Ok(sums(registers, except))
    }

    /// The spend of all boots but one, in the cells that others have charged since the last call.
    pub(super) fn changed(
        &mut self,
        connection: &mut RedisConnection,
        settings: &RedisSettings,
        except: &str,
    ) -> Result<Vec<StoredSpend>, StateError> {
        // the newest again: another note may have come in the same millisecond
        let mut cells = cells(connection, settings, &self.read_to.to_string())?;
        let is_known = |cell: &String, at: &u64| {
            self.own.get(cell) == Some(at) || (*at == self.read_to && self.at_end.contains(cell))
        };
        let others = cells.iter().filter(|(cell, at)| !is_known(cell, at));
        let others: Vec<_> = others.map(|(cell, _)| cell.as_str()).collect();
        let registers = registers(connection, settings, &others)?;
        if !cells.is_empty() {
            cells.sort_by_key(|(_, at)| *at);
            self.read_until(&cells);
            let read_to = self.read_to;
            self.own.retain(|_, at| *at >= read_to);
        }
        Ok(sums(registers, except))
    }

    fn read_until(&mut self, cells: &[(String, u64)]) {
        let newest = cells.iter().map(|(_, at)| *at).max().unwrap_or(0);
        if newest > self.read_to {
            self.at_end.clear();
        }
        self.read_to = self.read_to.max(newest);
        let at_end = cells.iter().filter(|(_, at)| *at == self.read_to);
        self.at_end.extend(at_end.map(|(cell, _)| cell.clone()));
    }
}

/// All registers of a subject.
pub(super) fn of_subject(
    connection: &mut RedisConnection,
    settings: &RedisSettings,
    subject: &str,
) -> Result<Vec<StoredRegister>, StateError> {
    let cells = cells(connection, settings, "-inf")?;
    let mut own: Vec<_> = cells
        .iter()
        .map(|(cell, _)| cell.as_str())
        .filter(|cell| cell.split_once('\n').is_some_and(|(it, _)| it == subject))
        .collect();
    own.sort_unstable();
    let mut found = registers(connection, settings, &own)?;
    let found = own.into_iter().filter_map(|cell| found.remove(cell));
    Ok(found.flatten().collect())
}

/// Cells with the times of their notes, from a time on.
fn cells(
    connection: &mut RedisConnection,
    settings: &RedisSettings,
    since: &str,
) -> Result<Vec<(String, u64)>, StateError> {
    let read = Command::new("ZRANGEBYSCORE", &name(settings))
        .arg(since)
        .arg("+inf")
        .arg("WITHSCORES");
    let cells: Vec<(String, f64)> = connection.query(&read)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "milliseconds of this age are far below 2^53"
    )]
    let cells = cells.into_iter().map(|(cell, at)| (cell, at as u64));
    Ok(cells.collect())
}

/// The registers of cells, without cells that have none.
fn registers(
    connection: &mut RedisConnection,
    settings: &RedisSettings,
    cells: &[&str],
) -> Result<HashMap<String, Vec<StoredRegister>>, StateError> {
    let mut found = HashMap::with_capacity(cells.len());
    for page in cells.chunks(PAGE) {
        let split: Vec<_> = page
            .iter()
            .filter_map(|cell| cell.split_once('\n').map(|parts| (*cell, parts)))
            .collect();
        let reads: Vec<_> = split
            .iter()
            .map(|(_, (subject, cell))| {
                Command::new("HGETALL", &settings.key(subject, &format!("b:{cell}")))
            })
            .collect();
        let answers = connection.send(&reads)?;
        for ((name, (_, cell)), answer) in split.into_iter().zip(answers) {
            let value = answer.map_err(StateError::Redis)?;
            let fields: HashMap<String, String> = connection.converted(value)?;
            let registers = of_fields(cell, &fields);
            if !registers.is_empty() {
                found.insert(name.to_owned(), registers);
            }
        }
    }
    Ok(found)
}

/// Adds up the registers of each cell.
fn sums(cells: HashMap<String, Vec<StoredRegister>>, except: &str) -> Vec<StoredSpend> {
    let cells = cells.into_iter().filter_map(|(name, registers)| {
        let (subject, cell) = name.split_once('\n')?;
        let mut others = registers
            .iter()
            .filter(|it| it.boot.is_empty() || it.boot != except)
            .peekable();
        others.peek()?;
        let (spent, upto) = others.fold((0_u64, 0_u64), |(spent, upto), register| {
            (
                spent.saturating_add(register.spent),
                upto.saturating_add(register.counted()),
            )
        });
        Some(StoredSpend {
            subject: subject.to_owned(),
            cell: cell.to_owned(),
            spent,
            upto,
        })
    });
    let mut spends: Vec<_> = cells.collect();
    spends.sort_by(|one, other| (&one.subject, &one.cell).cmp(&(&other.subject, &other.cell)));
    spends
}

/// The registers in the fields of a cell: one of each boot that the store can tell, and one of the others, which
/// are gone.
fn of_fields(cell: &str, fields: &HashMap<String, String>) -> Vec<StoredRegister> {
    let number = |text: Option<&str>| text.and_then(|it| it.parse::<u64>().ok()).unwrap_or(0);
    let mut registers: Vec<_> = fields
        .iter()
        .filter_map(|(field, value)| {
            let boot = field.strip_prefix("b:")?;
            let mut parts = value.split(':').skip(1);
            let spent = number(parts.next());
            Some(StoredRegister {
                boot: boot.to_owned(),
                cell: cell.to_owned(),
                spent,
                upto: spent.saturating_add(number(parts.next())),
                is_ended: false,
            })
        })
        .collect();
    // a boot that rests, or has ended: it may be the one that asks, whose own sum is not another's
    let gone = fields.iter().filter_map(|(field, value)| {
        let boot = field
            .strip_prefix("l:")
            .or_else(|| field.strip_prefix("e:"))?;
        let counted = number(value.split(':').next());
        (counted > 0).then(|| StoredRegister {
            boot: boot.to_owned(),
            cell: cell.to_owned(),
            spent: counted,
            upto: counted,
            is_ended: true,
        })
    });
    let running = registers.len();
    registers.extend(gone);
    let told = registers.iter().skip(running);
    let told = told.fold(0_u64, |sum, it| sum.saturating_add(it.spent));
    registers.sort_by(|one, other| one.boot.cmp(&other.boot));
    let of = |name| number(fields.get(name).map(String::as_str));
    let gone = of("dead").saturating_sub(told).saturating_add(of("gap"));
    if gone > 0 || (registers.is_empty() && fields.contains_key("dead")) {
        registers.insert(
            0,
            StoredRegister {
                boot: String::new(),
                cell: cell.to_owned(),
                spent: gone,
                upto: gone,
                is_ended: true,
            },
        );
    }
    registers
}

fn name(settings: &RedisSettings) -> String {
    settings.key(TAG, "cells")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_read_from_the_fields_of_a_cell() {
        let fields = [
            ("at", "1"),
            ("dead", "15"),
            ("gap", "2"),
            ("b:two", "9:20:7:0:1:2:0"),
            ("b:one", "3:10:0:0:1:2:0"),
            ("e:old", "5:99"),
            ("l:two-hosts", "4:99"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let registers = of_fields("total", &HashMap::from(fields));
        let read: Vec<_> = registers
            .iter()
            .map(|it| (it.boot.as_str(), it.spent, it.upto, it.is_ended))
            .collect();
        assert_eq!(
            read,
            [
                ("", 8, 8, true),
                ("old", 5, 5, true),
                ("one", 10, 10, false),
                ("two", 20, 27, false),
                ("two-hosts", 4, 4, true),
            ]
        );
        let cells = HashMap::from([("team:core\ntotal".to_owned(), registers)]);
        let sum = sums(cells.clone(), "two").pop().unwrap();
        assert_eq!(
            (sum.subject.as_str(), sum.cell.as_str()),
            ("team:core", "total")
        );
        assert_eq!((sum.spent, sum.upto), (27, 27));
        assert_eq!(sums(cells.clone(), "").pop().unwrap().upto, 54);
        // one that rests is in the sum of all, and not in that of the others
        assert_eq!(sums(cells, "two-hosts").pop().unwrap().upto, 50);
        assert!(of_fields("total", &HashMap::new()).is_empty());
    }
}
