// The list of requests: its rows, their order, and their changes since the list was loaded.

/** The server's ring: more that have ended are never held. */
export const MOST = 5000;
// a tick comes every second: where some are missing, what they told is missing, too
const SILENCE = 3000;

/**
 * Pending ones first, newest first: the server's order.
 * @param {Api.Row} a
 * @param {Api.Row} b
 */
export const order = (a, b) => Number(b.state === "pending") - Number(a.state === "pending") || b.seq - a.seq;

/** How an exchange may have ended: the server's words for it. */
export const RESULTS = ["succeeded", "failed", "canceled"];

/**
 * Whether the client did not get a whole answer.
 * @param {Api.Row} row
 */
const isAborted = (row) =>
  row.status === null || (row.ended && row.ended.by !== "complete" && row.ended.phase === "response");

/**
 * Whether a row is of the status that is asked for: one status, its hundred, a result, or a state.
 * @param {Api.Row} row
 * @param {string} status
 */
function hasStatus(row, status) {
  if (!status) return true;
  if (row.state === "pending") return status === "pending";
  if (status === "aborted") return isAborted(row);
  if (RESULTS.includes(status)) return row.result === status;
  return (
    row.status !== null && (String(row.status) === status || `${Math.floor(row.status / 100)}xx` === status)
  );
}

/** @type {("path" | "model" | "session" | "upstream" | "user_agent")[]} */
const TEXTS = ["path", "model", "session", "upstream", "user_agent"];

/**
 * Whether a row belongs to what is asked for; the server's rules.
 * @param {Api.Row} row
 * @param {Page.Filters} filters
 */
export function matches(row, filters) {
  /** @type {(name: Page.FilterName, value: string | null) => boolean} */
  const has = (name, value) =>
    !filters[name] || (value ?? "").toLowerCase().includes(filters[name].toLowerCase());
  return (
    hasStatus(row, filters.status) &&
    TEXTS.every((name) => has(name, row[name])) &&
    (!filters.method || filters.method.toUpperCase() === row.method.toUpperCase()) &&
    (!filters.since || row.at >= filters.since) &&
    (!filters.until || row.at < filters.until) &&
    has(
      "q",
      [
        row.id,
        row.path,
        row.session,
        row.user_agent,
        row.client,
        row.upstream_request_id,
        row.upstream,
        row.ended?.label,
        row.model,
        row.error_type,
      ]
        .filter(Boolean)
        .join("\n"),
    )
  );
}

/**
 * The stage of a row: it begins, has a response head, ends.
 * @param {Api.Row} row
 */
const stage = (row) => (row.state === "done" ? 2 : row.status === null ? 0 : 1);

/**
 * Of two tellings of one row that which knows more; where they know the same, the one that came last.
 * @type {(was: Api.Row | null | undefined, row: Api.Row) => Api.Row}
 */
export const later = (was, row) => (was && stage(was) > stage(row) ? was : row);

/**
 * A row in flight with how far it has come by now.
 * @param {Api.Row} row
 * @param {Api.Running} running
 * @returns {Api.Row}
 */
const advanced = (row, { upstream, tokens, output_events, ...sums }) => {
  const isMetered = output_events > 0 || Object.values(tokens).some((count) => count > 0);
  return {
    ...row,
    ...sums,
    upstream: upstream ?? row.upstream,
    ...(isMetered ? { tokens, output_events } : {}),
  };
};

/**
 * How a row was when it began.
 * @param {Api.Row} row
 * @returns {Api.Row}
 */
const begun = (row) => ({
  ...row,
  state: "pending",
  status: null,
  ended: null,
  result: null,
  model: null,
  upstream: null,
  upstream_request_id: null,
  error_type: null,
});

/**
 * The duration of a row in milliseconds; of one in flight, until now.
 * @param {Api.Row} row
 */
export const spent = (row, now = Date.now()) =>
  row.state === "pending" ? Math.max(row.duration_ms, now - row.at) : row.duration_ms;

/** The rows that are listed: the answers to the questions for them, and what the stream tells. */
export class Roster {
  /** @type {Map<number, Api.Row>} */
  rows = new Map();
  /** @type {number | null} */
  total = null;
  /** @type {number | null} */
  next = null;
  /** Whether something was told that is not held: then only the list itself helps. */
  isBehind = false;
  /**
   * What was told since the list stands still; null while it moves.
   * @type {Map<number, Api.Row> | null}
   */
  #held = null;
  /**
   * What was told since the list was asked for; null while it is not.
   * @type {Map<number, Api.Row> | null}
   */
  #during = null;
  /**
   * How far rows in flight have come, while that is not shown.
   * @type {Map<number, Api.Running>}
   */
  #meanwhile = new Map();
  #top = 0;
  /** @type {Api.Tick | null} */
  #last;

  /**
   * `last`: what the stream told last, or null if it has not begun.
   * @param {Api.Tick | null} last
   */
  constructor(last = null) {
    this.#last = last;
  }

  /** The list is asked for: from its beginning, or on from what is there. */
  begin(isMore = false) {
    this.#during = new Map();
    if (isMore) return;
    this.#held?.clear();
    this.isBehind = false;
  }

  /**
   * The list's answer. What was told since it was asked for may be later than it.
   * @param {Api.Page} page
   * @param {Page.Filters} filters
   */
  answer(page, filters, isMore = false) {
    if (!isMore) ((this.rows = new Map()), (this.#top = 0));
    for (const row of page.items) {
      this.rows.set(row.seq, later(this.rows.get(row.seq), row));
      this.#top = Math.max(this.#top, row.seq);
    }
    this.next = page.next_before;
    this.total = page.total;
    this.fail(filters);
  }

  /**
   * There is no answer: the rows stay, and what was told meanwhile counts.
   * @param {Page.Filters} filters
   */
  fail(filters) {
    const news = this.#during;
    this.#during = null;
    if (news) this.#take(news.values(), filters);
    if (!this.#held) this.#advance();
  }

  /**
   * What a second brought.
   * @param {Api.Tick} tick
   * @param {Page.Filters} filters
   */
  tell(tick, filters) {
    const last = this.#last;
    this.#last = tick;
    // the first tick tells nothing of what went before it
    const isApart = last === null || tick.boot_id !== last.boot_id || tick.now - last.now > SILENCE;
    if (tick.dropped || isApart) this.isBehind = true;
    for (const one of tick.running) {
      this.#meanwhile.set(one.seq, one);
      // of a list that stands still for long, what came first has ended long ago
      if (this.#meanwhile.size > MOST) this.#meanwhile.delete(this.#meanwhile.keys().next().value ?? 0);
    }
    const kept = this.#held ?? this.#during;
    if (!kept) {
      this.#take(tick.rows, filters);
      this.#age(filters);
      return this.#advance();
    }
    for (const row of tick.rows) {
      if (kept.size < MOST || kept.has(row.seq)) kept.set(row.seq, later(kept.get(row.seq), row));
      else this.isBehind = true;
    }
  }

  pause() {
    this.#held ??= new Map();
  }

  /**
   * Goes on with what was told meanwhile. Where that is not all, the list must be asked for (`isBehind`).
   * @param {Page.Filters} filters
   */
  resume(filters) {
    const news = this.#held;
    this.#held = null;
    if (!news || this.isBehind) return;
    if (this.#during) for (const [seq, row] of news) this.#during.set(seq, row);
    else (this.#take(news.values(), filters), this.#advance());
  }

  get isPaused() {
    return this.#held !== null;
  }

  /**
   * How many rows wait that are not listed.
   * @param {Page.Filters} filters
   */
  waiting(filters) {
    let count = 0;
    for (const row of this.#held?.values() ?? [])
      if (!this.rows.has(row.seq) && matches(row, filters)) count += 1;
    return count;
  }

  /** The rows in their order, and no more than are held. */
  items() {
    const items = [...this.rows.values()].sort(order);
    for (const row of items.splice(MOST)) this.rows.delete(row.seq);
    if (this.total !== null) {
      const pending = items.findIndex((row) => row.state !== "pending");
      this.total = Math.max(
        items.length,
        Math.min(this.total, MOST + (pending < 0 ? items.length : pending)),
      );
    }
    return items;
  }

  /**
   * @param {Iterable<Api.Row>} news
   * @param {Page.Filters} filters
   */
  #take(news, filters) {
    for (const told of news) {
      const was = this.rows.get(told.seq);
      const row = later(was, told);
      const isIn = matches(row, filters);
      // of those that began before the question some are counted without being listed
      const wasIn = was !== undefined || (row.seq <= this.#top && matches(begun(row), filters));
      if (isIn) this.rows.set(row.seq, row);
      else this.rows.delete(row.seq);
      if (this.total !== null) this.total += Number(isIn) - Number(wasIn);
    }
  }

  /**
   * Rows that have ended leave the time range that is asked for, as it moves on.
   * @param {Page.Filters} filters
   */
  #age({ since }) {
    if (!since) return;
    for (const row of this.rows.values()) {
      if (row.at >= since) continue;
      this.rows.delete(row.seq);
      if (this.total !== null) this.total -= 1;
    }
  }

  #advance() {
    for (const one of this.#meanwhile.values()) {
      const row = this.rows.get(one.seq);
      if (row?.state === "pending") this.rows.set(one.seq, advanced(row, one));
    }
    this.#meanwhile.clear();
  }
}
