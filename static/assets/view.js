// What every part renders with: Preact, htm, and cells (values that components follow).

import {
  html,
  render,
  createContext,
  useCallback,
  useContext,
  useEffect,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} from "./vendor/htm-preact-standalone.module.js";

export {
  html,
  render,
  createContext,
  useCallback,
  useContext,
  useEffect,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
};

/** A value and those who follow it. */
export function cell(value) {
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
      return () => followers.delete(follower);
    },
  };
}

/** The cell's value; the component is rendered anew when it changes. */
export function useCell(cell) {
  const [, again] = useState(0);
  useLayoutEffect(() => cell.follow(() => again((n) => n + 1)), [cell]);
  return cell.get();
}

/** What the browser keeps for us, if it keeps anything. */
export const kept = {
  get(name) {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      if (value === null) localStorage.removeItem(name);
      else localStorage.setItem(name, value);
    } catch {
      // a private window: the choice lasts as long as the page
    }
  },
};
