// Spans of time in the zone of the pages: months, days, and hours put together to days.

import { moment, wall } from "./zone.js";

/**
 * The day of a moment: 2026-11-28.
 * @param {number} at
 */
export const day = (at) => new Date(wall(at)).toISOString().slice(0, 10);

/**
 * The first moment of a day, or of one that is `later` days after it.
 * @param {string} text
 */
export function begin(text, later = 0) {
  const [year, month, date] = text.split("-").map(Number);
  return moment(Date.UTC(year, month - 1, date + later));
}

/**
 * A month as a span: `2026-11`.
 * @param {string} text
 */
export function month(text) {
  const [year, number] = text.split("-").map(Number);
  return { since: moment(Date.UTC(year, number - 1, 1)), until: moment(Date.UTC(year, number, 1)) };
}

/** The last months, this one first. */
export function months(count = 13, now = Date.now()) {
  const date = new Date(wall(now));
  return Array.from({ length: count }, (_, i) =>
    new Date(Date.UTC(date.getUTCFullYear(), date.getUTCMonth() - i, 1)).toISOString().slice(0, 7),
  );
}

/**
 * Rows of hours as rows of days, the newest first.
 * @param {Api.UsageRow[]} rows
 */
export function byDay(rows) {
  /** @type {Map<string, Api.UsageRow>} */
  const days = new Map();
  for (const row of rows) {
    const name = day(row.at ?? 0);
    const sum = days.get(name);
    if (!sum) {
      days.set(name, { ...row, key: name, day: name, tokens: { ...row.tokens } });
      continue;
    }
    for (const kind of /** @type {(keyof Api.Tokens)[]} */ (Object.keys(sum.tokens)))
      sum.tokens[kind] += row.tokens[kind];
    for (const name of /** @type {const} */ ([
      "requests",
      "cost_usd",
      "cost_estimate_usd",
      "unpriced_requests",
    ]))
      sum[name] += row[name];
    for (const name of /** @type {const} */ (["cost_is_floor", "at_least", "unpriced"]))
      sum[name] ||= row[name];
  }
  return [...days.values()]
    .map((row) => ({ ...row, cache_hit_share: share(row.tokens) }))
    .sort((a, b) => (a.key < b.key ? 1 : -1));
}

/** @param {Api.Tokens} tokens */
const share = ({ input, cache_read, cache_write_5m, cache_write_1h }) =>
  cache_read / Math.max(1, input + cache_read + cache_write_5m + cache_write_1h);

/**
 * A series of hours as one of days.
 * @param {Api.UsageSeries} series
 * @returns {Api.UsageSeries}
 */
export function seriesByDay(series) {
  const days = [...new Set(series.t.map(day))];
  const places = series.t.map((at) => days.indexOf(day(at)));
  /** @param {number[]} values */
  const sums = (values) => {
    const sum = days.map(() => 0);
    values.forEach((value, i) => (sum[places[i]] += value));
    return sum;
  };
  return {
    step_ms: 86_400_000,
    t: days.map((name) => begin(name)),
    lines: series.lines.map((line) => ({
      ...line,
      requests: sums(line.requests),
      tokens_in: sums(line.tokens_in),
      tokens_out: sums(line.tokens_out),
      cost_usd: sums(line.cost_usd),
    })),
  };
}
