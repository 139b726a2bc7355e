// Values as people read them. A value that is not there is a dash.

import { locale, t } from "./i18n.js";
import { moment as momentOf, wall, zone } from "./zone.js";

const NONE = "–";
const made = new Map();
/** @typedef {number | null | undefined} Maybe */

/** @param {Intl.NumberFormatOptions} options */
const numbers = (options, lang = locale()) =>
  intl(`n${lang}`, options, () => new Intl.NumberFormat(lang, options));

/** @param {Intl.DateTimeFormatOptions} options */
export function dates(options) {
  const all = { ...options, timeZone: zone() };
  return intl(`d${locale()}`, all, () => new Intl.DateTimeFormat(locale(), all));
}

/**
 * A formatter, made once.
 * @template F
 * @param {string} kind
 * @param {object} options
 * @param {() => F} make
 * @returns {F}
 */
function intl(kind, options, make) {
  const name = kind + JSON.stringify(options);
  const known = made.get(name) ?? make();
  made.set(name, known);
  return known;
}

/**
 * @param {Maybe} value
 * @returns {value is null | undefined}
 */
const isNone = (value) => value === null || value === undefined || Number.isNaN(value);

/**
 * A count: exact up to 9,999, then as the language shortens it: 12.3K, 1.23万.
 * @param {Maybe} value
 */
export function count(value) {
  if (isNone(value)) return NONE;
  if (Math.abs(value) < 10_000) return numbers({ maximumFractionDigits: 0 }).format(value);
  // British English would write 1.23m, which elsewhere is a thousandth
  return numbers(
    { notation: "compact", minimumSignificantDigits: 3, maximumSignificantDigits: 3 },
    locale() === "en-GB" ? "en" : locale(),
  ).format(value);
}

/** @param {Maybe} value */
export const exact = (value) => (isNone(value) ? NONE : numbers({ maximumFractionDigits: 0 }).format(value));

/**
 * A rate: two digits behind the point when it is small.
 * @param {Maybe} value
 */
export function rate(value) {
  if (isNone(value)) return NONE;
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return numbers({ minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

/** @param {Maybe} value */
export function percent(value) {
  if (isNone(value)) return NONE;
  const digits = value === 0 || value === 1 ? 0 : value > 0.1 && value < 0.99 ? 1 : 2;
  return numbers({
    style: "percent",
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  }).format(value);
}

/**
 * Shares of one whole, in hundredths of a percent: what is shown of them adds up to 100 %.
 * @param {number[]} counts
 */
export function shares(counts) {
  const whole = counts.reduce((sum, count) => sum + count, 0);
  if (!whole) return counts.map(() => NONE);
  const exact = counts.map((count) => (count / whole) * 10_000);
  const floors = exact.map(Math.floor);
  // what rounding down left over goes to those that lost most by it
  let rest = 10_000 - floors.reduce((sum, floor) => sum + floor, 0);
  for (const [, i] of exact.map((value, i) => [value - floors[i], i]).sort((a, b) => b[0] - a[0]))
    if (rest-- > 0) floors[i] += 1;
  const digits = floors.every((floor) => floor % 100 === 0)
    ? 0
    : floors.every((floor) => floor % 10 === 0)
      ? 1
      : 2;
  return floors.map((floor) =>
    numbers({
      style: "percent",
      minimumFractionDigits: digits,
      maximumFractionDigits: digits,
    }).format(floor / 10_000),
  );
}

/**
 * A value that is a floor is marked as one.
 * @param {string} text
 * @param {unknown} isFloor
 */
export const atLeast = (text, isFloor) => (isFloor && text !== NONE ? `≥\u202f${text}` : text);

/**
 * US dollars: cents, or four digits where a cent is too coarse.
 * @param {Maybe} value
 */
export function money(value) {
  if (isNone(value)) return NONE;
  const digits = value !== 0 && Math.abs(value) < 1 ? 4 : 2;
  return "$" + numbers({ minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

/** @param {Maybe} value */
export function bytes(value) {
  if (isNone(value)) return NONE;
  let unit = 0;
  while (value >= 1000 && unit < 5) ((value /= 1024), unit++);
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${["B", "KiB", "MiB", "GiB", "TiB", "PiB"][unit]}`;
}

/**
 * Milliseconds as a duration: 11 µs, 0.21 ms, 84 ms, 3.25 s, 2 min 05 s; in Chinese 84 毫秒.
 * @param {Maybe} ms
 */
export function duration(ms) {
  if (isNone(ms)) return NONE;
  /** @type {(number: string | number, unit: string) => string} */
  const said = (number, unit) => `${number} ${t(unit)}`;
  if (ms > 0 && ms < 0.1) return said((ms * 1000).toFixed(0), "unit.us");
  if (ms < 1) return said(ms.toFixed(ms === 0 ? 0 : 2), "unit.ms");
  if (ms < 999.5) return said(ms < 9.95 ? ms.toFixed(1) : ms.toFixed(0), "unit.ms");
  if (ms < 59_950) return said((ms / 1000).toFixed(ms < 9_995 ? 2 : 1), "unit.s");
  const seconds = Math.round(ms / 1000);
  if (seconds >= 3600) return span(seconds * 1000);
  const rest = String(seconds % 60).padStart(2, "0");
  return `${said(Math.floor(seconds / 60), "unit.min")} ${said(rest, "unit.s")}`;
}

/**
 * A long duration in its two greatest units: 3 d 4 h.
 * @param {Maybe} ms
 */
export function span(ms) {
  if (isNone(ms)) return NONE;
  const seconds = Math.max(0, Math.floor(ms / 1000));
  /** @type {[number, string][]} */
  const parts = [
    [86400, "unit.d"],
    [3600, "unit.h"],
    [60, "unit.m"],
    [1, "unit.s"],
  ];
  const at = Math.max(
    0,
    parts.findIndex(([size]) => seconds >= size),
  );
  const first = seconds < 1 ? 3 : at;
  const [size, unit] = parts[first];
  const whole = Math.floor(seconds / size);
  const next = parts[first + 1];
  const rest = next ? Math.floor((seconds % size) / next[0]) : 0;
  return rest ? `${whole} ${t(unit)} ${rest} ${t(next[1])}` : `${whole} ${t(unit)}`;
}

/** @type {Intl.DateTimeFormatOptions} */
const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };

/** @param {Maybe} at */
export const clock = (at) => (isNone(at) ? NONE : dates(CLOCK).format(at));

/** @param {Maybe} at */
export const moment = (at) =>
  isNone(at) ? NONE : dates({ year: "numeric", month: "short", day: "numeric", ...CLOCK }).format(at);

/** @param {Maybe} at */
export const date = (at) =>
  isNone(at) ? NONE : dates({ year: "numeric", month: "short", day: "numeric" }).format(at);

/** @param {number} at */
const day = (at) => Math.floor(wall(at) / 86_400_000);

/**
 * Whether a moment is of today.
 * @param {number} at
 */
export const isToday = (at, now = Date.now()) => day(at) === day(now);

/**
 * A moment in a list: the clock for today, else with its day.
 * @param {Maybe} at
 */
export const when = (at, now = Date.now()) =>
  isNone(at)
    ? NONE
    : dates(isToday(at, now) ? CLOCK : { month: "short", day: "numeric", ...CLOCK }).format(at);

/**
 * A moment as a field of date and time has it.
 * @param {Maybe} at
 */
export const localInput = (at) => (isNone(at) ? "" : new Date(wall(at)).toISOString().slice(0, 19));

/**
 * The moment that a field of date and time has.
 * @param {string} text
 */
export const ofInput = (text) => momentOf(Date.parse(`${text}Z`));

/** @param {Maybe} at */
export function ago(at, now = Date.now()) {
  if (isNone(at)) return NONE;
  const past = now - at;
  return past < 5000
    ? t("time.now")
    : t("time.ago", { span: span(past < 60_000 ? past : past - (past % 60_000)) });
}

/**
 * All the tokens that went in.
 * @param {Api.Tokens | null} tokens
 */
export const read = (tokens) =>
  tokens ? tokens.input + tokens.cache_read + tokens.cache_write_5m + tokens.cache_write_1h : null;

/**
 * The cache's share of the input tokens.
 * @param {Api.Tokens} tokens
 */
export function cacheShare(tokens) {
  const whole = read(tokens);
  return whole ? tokens.cache_read / whole : null;
}
