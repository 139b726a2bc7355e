// The stream of events: one tick a second while the page is seen, taken up again when it breaks.

import { cell } from "./view.js";
import { address, greet, refresh, session, updated } from "./api.js";

/** @type {Page.Cell<Page.Link>} */
export const link = cell({ state: "connecting", retryAt: null });
/** @type {Page.Cell<Api.Tick | null>} */
export const tick = cell(null);
/**
 * The last ticks, oldest first, for the small lines in the tiles.
 * @type {Api.Tick[]}
 */
export const past = [];

const KEPT = 60;
// a server that starts is there within a second; one that is away is asked four times a minute
const WAITS = [500, 1000, 2000, 4000, 8000, 15000];
// a tick comes every second: after this long without one the stream is dead, whatever TCP says
const SILENCE = 8000;

/** @type {EventSource | null} */
let source = null;
let timer = 0;
let watch = 0;
let failures = 0;
let isWanted = false;
// whether something was missed: known when the line is back, asked for when it tells again
let isBack = false;

export function follow() {
  isWanted = true;
  if (!document.hidden) open();
}

export function leave() {
  isWanted = false;
  close();
}

function open() {
  close();
  if (link.get().state !== "lost") link.set({ state: "connecting", retryAt: null });
  source = new EventSource(address("/events"));
  source.addEventListener("tick", (event) => {
    hear();
    const value = JSON.parse(event.data);
    // another process has another past
    if (past.at(-1)?.boot_id !== value.boot_id) past.length = 0;
    past.push(value);
    if (past.length > KEPT) past.shift();
    updated.set(Date.now());
    tick.set(value);
    // the stream tells what changes after its first tick: what was asked for before that may lack some
    if (isBack) refresh("back");
    isBack = false;
  });
  source.addEventListener("open", () => {
    hear();
    failures = 0;
    isBack ||= link.get().state !== "connecting" || past.length > 0;
    link.set({ state: "live", retryAt: null });
  });
  source.addEventListener("error", lose);
  hear();
}

function hear() {
  clearTimeout(watch);
  watch = setTimeout(lose, SILENCE);
}

function close() {
  clearTimeout(timer);
  clearTimeout(watch);
  source?.close();
  source = null;
}

async function lose() {
  close();
  const wait = WAITS[Math.min(failures++, WAITS.length - 1)];
  link.set({ state: "lost", retryAt: Date.now() + wait });
  timer = setTimeout(async () => {
    try {
      // a session that ended with the server is no failure of the net: then the login is shown
      await greet();
      if (!session.get()?.authenticated) return;
    } catch {
      if (isWanted && !document.hidden) lose();
      return;
    }
    if (isWanted && !document.hidden) open();
  }, wait);
}

export function retry() {
  failures = 0;
  if (isWanted) open();
}

document.addEventListener("visibilitychange", () => {
  if (!isWanted) return;
  if (document.hidden) {
    close();
    link.set({ state: "hidden", retryAt: null });
  } else {
    retry();
  }
});
