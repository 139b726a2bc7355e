// Questions to the admin API, and whether it knows us.

import { cell, entries, useCallback, useCell, useEffect, useRef, useState } from "./view.js";

const ROOT = "/admin/api/v1";

/**
 * The state of the session, or null until it is known.
 * @type {Page.Cell<Api.SessionStatus | null>}
 */
export const session = cell(null);
/**
 * The fault of the last attempt to sign in.
 * @type {Page.Cell<Page.Fault | null>}
 */
export const refused = cell(null);
/**
 * The time of the last data, by this machine's clock.
 * @type {Page.Cell<number | null>}
 */
export const updated = cell(null);
/**
 * The last request to reload everything: by the reader (`asked`), or because the server is `back`.
 * @type {Page.Cell<{why: string | null}>}
 */
export const refreshes = cell({ why: null });
/** Requests in flight that the reader waits for, without those that a timer sent. */
export const busy = cell(0);

/** @type {(Api.Role | null | undefined)[]} */
const ROLES = ["viewer", "operator", "admin"];

/**
 * Whether the reader has this role, or a higher one. The server decides; the pages leave out what it would
 * refuse.
 * @param {Api.Role} role
 */
export const useMay = (role) => ROLES.indexOf(useCell(session)?.role) >= ROLES.indexOf(role);

export const refresh = (why = "asked") => refreshes.set({ why });

/** An answer that is none: the API's code, or `unreachable`. */
export class Fault extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {number} status
   * @param {number | null} [retryAfter]
   * @param {{diff?: Api.DiffLine[], lines?: string[]}} [more]
   */
  constructor(code, message, status, retryAfter, more = {}) {
    super(message);
    this.diff = more.diff;
    this.lines = more.lines;
    this.code = code;
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/**
 * An error as it is thrown on: that of a question given up as it is, any other as a fault.
 * @param {unknown} error
 */
const unreachable = (error) =>
  isAborted(error) ? error : new Fault("unreachable", error instanceof Error ? error.message : "", 0);

/** @param {unknown} error */
export const isAborted = (error) => error instanceof DOMException && error.name === "AbortError";

/**
 * The fault of a caught error; one that is no fault is a mistake of the page.
 * @param {unknown} error
 * @returns {Page.Fault}
 */
export function asFault(error) {
  if (error instanceof Fault) return error;
  throw error;
}

/**
 * @param {string} path
 * @param {Page.Query | null} [query]
 */
export const address = (path, query) => {
  const text = new URLSearchParams(entries(query)).toString();
  return ROOT + path + (text ? `?${text}` : "");
};

/**
 * @template {string} P
 * @param {P} path
 * @param {{
 *   query?: Page.Query | null, method?: string, body?: object, version?: string, signal?: AbortSignal
 * }} [options] `version`: the one that the request changes
 * @returns {Promise<Page.Data<P>>}
 */
export async function ask(path, { query, method = "GET", body, version, signal } = {}) {
  let res;
  try {
    res = await fetch(address(path, query), {
      method,
      signal,
      credentials: "same-origin",
      headers: {
        ...(body ? { "content-type": "application/json" } : {}),
        ...(version ? { "if-match": `"${version}"` } : {}),
      },
      body: body && JSON.stringify(body),
    });
  } catch (error) {
    throw unreachable(error);
  }
  if (!res.ok) {
    const fault = (await res.json().catch(() => null))?.error ?? {};
    if ((res.status === 401 || res.status === 403) && path !== "/session") greet().catch(() => {});
    throw new Fault(
      fault.code ?? "unknown",
      fault.message ?? res.statusText,
      res.status,
      Number(res.headers.get("retry-after")) || null,
      { diff: fault.diff, lines: fault.lines },
    );
  }
  try {
    return JSON.parse(res.status === 204 ? "null" : await res.text());
  } catch (error) {
    throw unreachable(error);
  }
}

/** Asks who we are to the server. */
export async function greet() {
  session.set(await ask("/session"));
}

/** @param {string} key */
export async function login(key) {
  refused.set(null);
  try {
    await ask("/session", { method: "POST", body: { key } });
    await greet();
  } catch (error) {
    refused.set(asFault(error));
    throw error;
  }
}

export async function logout() {
  refused.set(null);
  await ask("/session", { method: "DELETE" });
  await greet();
}

/**
 * What the API says at `path`, kept while the next answer is awaited: `{data, fault, isLoading}`. Asked
 * anew at each refresh, and every `every` milliseconds while the page is seen.
 * @template {string} P
 * @param {P} path
 * @param {Page.Query | null} query
 * @returns {Page.Answer<Page.Data<P>>}
 */
export function useAnswer(path, query, every = 0) {
  /** @type {{data: Page.Data<P> | null, fault: Page.Fault | null, name: string | null}} */
  const none = { data: null, fault: null, name: null };
  const [state, setState] = useState(none);
  const name = address(path, query);
  const refreshed = useCell(refreshes);
  const running = useRef(/** @type {AbortController | null} */ (null));

  const load = useCallback(
    async (isQuiet = false) => {
      running.current?.abort();
      const controller = (running.current = new AbortController());
      if (!isQuiet) busy.set(busy.get() + 1);
      try {
        const data = await ask(path, { query, signal: controller.signal });
        setState({ data, fault: null, name });
        updated.set(Date.now());
      } catch (error) {
        if (!isAborted(error))
          setState((was) => ({ data: was.name === name ? was.data : null, fault: asFault(error), name }));
      } finally {
        if (running.current === controller) running.current = null;
        if (!isQuiet) busy.set(busy.get() - 1);
      }
    },
    [name],
  );

  useEffect(() => void load(), [load, refreshed]);
  useEffect(() => () => running.current?.abort(), []);
  useEffect(() => {
    if (!every) return;
    const timer = setInterval(() => document.hidden || running.current || load(true), every);
    return () => clearInterval(timer);
  }, [load, every]);

  // an answer to another question is shown until the new one is there, greyed by `isStale`
  return {
    data: state.data,
    fault: state.name === name ? state.fault : null,
    isStale: state.name !== name && state.data !== null,
    reload: () => load(),
  };
}
