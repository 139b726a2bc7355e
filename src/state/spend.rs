//! Registers of spend: one row for each subject, cell and boot.
//!
//! A row is absolute since its boot. A boot that did not end with a last write counts with the upper bound
//! that it had reserved, so what counts is never less than what was spent.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, Rows, params};

use super::store::{SpendRegister, StoredRegister, StoredSpend};

/// Periods that are kept, for each subject, time zone and pattern: 13 months, 57 weeks and 400 days. Rows
/// are deleted by the number of newer ones, not by the clock, so a clock that jumps resets no budget.
const KEPT: [(usize, usize); 3] = [
    ("2026-11".len(), 13),
    ("2026-W48".len(), 57),
    ("2026-11-28".len(), 400),
];

pub(super) fn write(
    connection: &Connection,
    boot: &str,
    rows: &[SpendRegister],
) -> rusqlite::Result<()> {
    let mut write = connection.prepare(
        "INSERT INTO spend (subject, cell, boot, spent, upto, is_ended) VALUES (?1, ?2, ?3, ?4, ?5, 0)
         ON CONFLICT (subject, cell, boot)
         DO UPDATE SET spent = excluded.spent, upto = excluded.upto, is_ended = 0",
    )?;
    for row in rows {
        let upto = row.upto.max(row.spent);
        write.execute(params![
            row.subject,
            row.cell,
            boot,
            signed(row.spent),
            signed(upto)
        ])?;
    }
    Ok(())
}

/// Adds rows of earlier boots to cells that have no row.
pub(super) fn seed(connection: &Connection, spends: &[StoredSpend]) -> rusqlite::Result<()> {
    let mut write = connection.prepare(
        "INSERT INTO spend (subject, cell, boot, spent, upto, is_ended)
         SELECT ?1, ?2, '', ?3, ?3, 1
         WHERE NOT EXISTS (SELECT 1 FROM spend WHERE subject = ?1 AND cell = ?2)",
    )?;
    for spend in spends {
        let upto = signed(spend.upto.max(spend.spent));
        write.execute(params![spend.subject, spend.cell, upto])?;
    }
    Ok(())
}

pub(super) fn end(connection: &Connection, boot: &str) -> rusqlite::Result<()> {
    let end = "UPDATE spend SET upto = spent, is_ended = 1 WHERE boot = ?1";
    connection.execute(end, [boot]).map(drop)
}

pub(super) fn all_but(connection: &Connection, boot: &str) -> rusqlite::Result<Vec<StoredSpend>> {
    let mut read = connection.prepare(
        "SELECT subject, cell, boot, spent, upto, is_ended FROM spend
         WHERE boot <> ?1 OR boot = ''
         ORDER BY subject, cell",
    )?;
    sums(read.query([boot])?)
}

/// The spend of all boots but one in the cells that others of them have charged. The rows of the one, which may
/// be many, are not looked at.
pub(super) fn of_others(connection: &Connection, boot: &str) -> rusqlite::Result<Vec<StoredSpend>> {
    let mut read = connection.prepare(
        "SELECT subject, cell, spend.boot, spent, upto, is_ended
         FROM (SELECT subject, cell FROM spend WHERE boot > '' AND boot < ?1
               UNION SELECT subject, cell FROM spend WHERE boot > ?1)
         CROSS JOIN spend USING (subject, cell)
         WHERE spend.boot <> ?1
         ORDER BY subject, cell",
    )?;
    sums(read.query([boot])?)
}

/// Adds up rows that are sorted by subject and cell.
fn sums(mut rows: Rows<'_>) -> rusqlite::Result<Vec<StoredSpend>> {
    let mut spends: Vec<StoredSpend> = Vec::new();
    while let Some(row) = rows.next()? {
        let (subject, register): (String, StoredRegister) = (row.get(0)?, register(row)?);
        let upto = register.counted();
        match spends.last_mut() {
            Some(last) if last.subject == subject && last.cell == register.cell => {
                last.spent = last.spent.saturating_add(register.spent);
                last.upto = last.upto.saturating_add(upto);
            }
            _ => spends.push(StoredSpend {
                subject,
                cell: register.cell,
                spent: register.spent,
                upto,
            }),
        }
    }
    Ok(spends)
}

pub(super) fn of_subject(
    connection: &Connection,
    subject: &str,
) -> rusqlite::Result<Vec<StoredRegister>> {
    let mut read = connection.prepare(
        "SELECT subject, cell, boot, spent, upto, is_ended FROM spend WHERE subject = ?1
         ORDER BY cell, boot",
    )?;
    read.query_map([subject], register)?.collect()
}

fn register(row: &Row<'_>) -> rusqlite::Result<StoredRegister> {
    let number = |at: usize| {
        row.get::<_, i64>(at)
            .map(|it| u64::try_from(it).unwrap_or(0))
    };
    Ok(StoredRegister {
        cell: row.get(1)?,
        boot: row.get(2)?,
        spent: number(3)?,
        upto: number(4)?,
        is_ended: row.get(5)?,
    })
}

/// Adds up the rows of all boots, and deletes old periods.
pub(super) fn merge(connection: &Connection) -> rusqlite::Result<()> {
    let boots = "SELECT count(*) FROM spend WHERE boot <> ''";
    let boots: i64 = connection.query_row(boots, [], |row| row.get(0))?;
    if boots == 0 {
        return Ok(());
    }
    let spends = newest(all_but(connection, "")?);
    connection.execute("DELETE FROM spend", [])?;
    let mut write = connection.prepare(
        "INSERT INTO spend (subject, cell, boot, spent, upto, is_ended) VALUES (?1, ?2, '', ?3, ?3, 1)",
    )?;
    for spend in spends {
        write.execute(params![spend.subject, spend.cell, signed(spend.upto)])?;
    }
    Ok(())
}

/// The rows of the newest periods.
fn newest(mut spends: Vec<StoredSpend>) -> Vec<StoredSpend> {
    let mut newer: BTreeMap<(String, String, usize), usize> = BTreeMap::new();
    // the newest first: periods are ISO 8601, whose order is that of their texts
    spends.sort_by(|one, other| other.cell.cmp(&one.cell));
    spends.retain(|spend| {
        let (period, rest) = spend.cell.split_once('@').unwrap_or((&spend.cell, ""));
        let kept = KEPT.iter().find(|(length, _)| period.len() == *length);
        let Some((length, kept)) =
            kept.filter(|_| period.starts_with(|c: char| c.is_ascii_digit()))
        else {
            return true;
        };
        let of_kind = (spend.subject.clone(), rest.to_owned(), *length);
        let newer = newer.entry(of_kind).or_default();
        *newer += 1;
        *newer <= *kept
    });
    spends
}

/// SQLite's integers are signed; nine billion dollars are enough.
fn signed(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_periods_go_by_the_number_of_newer_ones() {
        let spend = |subject: &str, cell: String| StoredSpend {
            subject: subject.to_owned(),
            cell,
            spent: 1,
            upto: 1,
        };
        let months = (2000..2003).flat_map(|year| (1..=12).map(move |month| (year, month)));
        let mut all: Vec<_> = months
            .map(|(year, month)| spend("org", format!("{year}-{month:02}@UTC")))
            .collect();
        all.push(spend("org", "2000-01@Europe/Berlin".to_owned()));
        all.push(spend("team:core", "2000-01@UTC|claude-opus-*".to_owned()));
        all.push(spend("org", "2000-W01@UTC".to_owned()));
        all.push(spend("org", "total".to_owned()));
        all.push(spend("org", "total@UTC|claude-*".to_owned()));
        let kept = newest(all);
        let utc: Vec<_> = kept
            .iter()
            .filter(|it| it.cell.ends_with("@UTC") && it.cell.len() == "2000-01@UTC".len())
            .map(|it| it.cell.as_str())
            .collect();
        assert_eq!(utc.len(), 13);
        assert_eq!(utc.last(), Some(&"2001-12@UTC"));
        assert_eq!(kept.len(), 13 + 5);
    }
}
