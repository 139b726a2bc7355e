// The time zone of the pages: the reader's own, or the proxy's (TZ), as the reader chooses.

import { cell, kept } from "./view.js";
import { session } from "./api.js";

const own = Intl.DateTimeFormat().resolvedOptions().timeZone;

/**
 * Whose time zone the pages use.
 * @type {Page.Cell<"own" | "proxy">}
 */
export const chosen = cell(kept.get("zone") === "proxy" ? "proxy" : "own");

/** @param {"own" | "proxy"} whose */
export function choose(whose) {
  kept.set("zone", whose === "own" ? null : whose);
  chosen.set(whose);
}

/** Both zones: the reader's, and the proxy's as far as it is known. */
export const zones = () => ({ own, proxy: session.get()?.zone ?? null });

/** The zone in use. */
export const zone = () => (chosen.get() === "proxy" && session.get()?.zone) || own;

/** @type {Map<string, Intl.DateTimeFormat>} */
const clocks = new Map();

/** @param {string} name */
function clock(name) {
  const known =
    clocks.get(name) ??
    new Intl.DateTimeFormat("en-US", {
      timeZone: name,
      hourCycle: "h23",
      year: "numeric",
      month: "numeric",
      day: "numeric",
      hour: "numeric",
      minute: "numeric",
      second: "numeric",
    });
  clocks.set(name, known);
  return known;
}

/**
 * A moment as the zone's clocks show it, in milliseconds as if they showed UTC.
 * @param {number} at
 */
export function wall(at, name = zone()) {
  /** @type {Record<string, number>} */
  const parts = {};
  for (const { type, value } of clock(name).formatToParts(at)) parts[type] = Number(value);
  return Date.UTC(parts.year, parts.month - 1, parts.day, parts.hour, parts.minute, parts.second);
}

/**
 * The moment at which the zone's clocks show this; where they skip it, the first one after the gap.
 * @param {number} shown
 */
export function moment(shown, name = zone()) {
  const first = shown - (wall(shown, name) - shown);
  const second = shown - (wall(first, name) - first);
  return wall(second, name) === shown ? second : Math.max(first, second);
}
