// What every part renders with: Preact, htm, and cells (values that components follow).

import {
  html,
  render,
  useCallback,
  useEffect,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} from "./vendor/htm-preact-standalone.module.js";

export { html, render, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState };

/**
 * A value and those who follow it.
 * @template T
 * @param {T} value
 * @returns {Page.Cell<T>}
 */
export function cell(value) {
  /** @type {Set<(value: T) => void>} */
  const followers = new Set();
  return {
    get: () => value,
    set(next) {
      if (next === value) return;
      value = next;
      for (const follower of [...followers]) follower(value);
    },
    follow(follower) {
      followers.add(follower);
      return () => void followers.delete(follower);
    },
  };
}

/**
 * The cell's value; the component is rendered anew when it changes.
 * @template T
 * @param {Page.Cell<T>} cell
 */
export function useCell(cell) {
  const [, again] = useState(0);
  useLayoutEffect(() => cell.follow(() => again((n) => n + 1)), [cell]);
  return cell.get();
}

/**
 * The set entries of a query, as text.
 * @param {Page.Query | null | undefined} query
 * @returns {[string, string][]}
 */
export const entries = (query) =>
  Object.entries(query ?? {}).flatMap(([name, value]) =>
    value === null || value === undefined || value === "" ? [] : [[name, String(value)]],
  );

/** What the browser keeps for us, if it keeps anything. */
export const kept = {
  /** @param {string} name */
  get(name) {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  },
  /**
   * @param {string} name
   * @param {string | null} value
   */
  set(name, value) {
    try {
      if (value === null) localStorage.removeItem(name);
      else localStorage.setItem(name, value);
    } catch {
      // a private window: the choice lasts as long as the page
    }
  },
};
