// Questions to the admin API, and whether it knows us.

import { cell, useCallback, useCell, useEffect, useRef, useState } from "./view.js";

const ROOT = "/admin/api/v1";

/** `{authenticated, key_required, loopback}`, or null until it is known. */
export const session = cell(null);
/** When data last came, in this machine's time. */
export const updated = cell(null);
/** The last wish to see everything anew: someone `asked`, or the server is `back`. */
export const refreshes = cell({ why: null });
/** Requests in flight that the reader waits for, without those that a timer sent. */
export const busy = cell(0);

export const refresh = (why = "asked") => refreshes.set({ why });

/** An answer that is none: the API's code, or `unreachable`. */
export class Fault extends Error {
  constructor(code, message, status, retryAfter) {
    super(message);
    this.code = code;
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export const address = (path, query) => {
  const text = new URLSearchParams(
    Object.entries(query ?? {}).filter(([, value]) => value !== null && value !== undefined && value !== ""),
  ).toString();
  return ROOT + path + (text ? `?${text}` : "");
};

export async function ask(path, { query, method = "GET", body, signal } = {}) {
  let res;
  try {
    res = await fetch(address(path, query), {
      method,
      signal,
      credentials: "same-origin",
      headers: body ? { "content-type": "application/json" } : {},
      body: body && JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault("unreachable", error.message, 0);
  }
  if (!res.ok) {
    const fault = (await res.json().catch(() => null))?.error ?? {};
    if ((res.status === 401 || res.status === 403) && path !== "/session") greet().catch(() => {});
    throw new Fault(
      fault.code ?? "unknown",
      fault.message ?? res.statusText,
      res.status,
      Number(res.headers.get("retry-after")) || null,
    );
  }
  try {
    return res.status === 204 ? null : await res.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault("unreachable", error.message, 0);
  }
}

/** Asks who we are to the server. */
export async function greet() {
  session.set(await ask("/session"));
}

export async function login(key) {
  await ask("/session", { method: "POST", body: { key } });
  await greet();
}

export async function logout() {
  await ask("/session", { method: "DELETE" });
  await greet();
}

/**
 * What the API says at `path`, kept while the next answer is awaited: `{data, fault, isLoading}`. Asked
 * anew at each refresh, and every `every` milliseconds while the page is seen.
 */
export function useAnswer(path, query, every = 0) {
  const [state, setState] = useState({ data: null, fault: null, name: null });
  const name = address(path, query);
  const refreshed = useCell(refreshes);
  const running = useRef(null);

  const load = useCallback(
    async (isQuiet) => {
      running.current?.abort();
      const controller = (running.current = new AbortController());
      if (!isQuiet) busy.set(busy.get() + 1);
      try {
        const data = await ask(path, { query, signal: controller.signal });
        setState({ data, fault: null, name });
        updated.set(Date.now());
      } catch (fault) {
        if (fault.name !== "AbortError")
          setState((was) => ({ data: was.name === name ? was.data : null, fault, name }));
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
