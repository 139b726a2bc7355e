// Which page the address names. Pages are the server's, too: a reload gives the same page.

import { cell, entries, html } from "./view.js";

const BASE = "/admin";
export const PAGES = [
  "overview",
  "requests",
  "sessions",
  "errors",
  "usage",
  "spend",
  "keys",
  "audit",
  "upstreams",
  "doctor",
  "config",
  "connect",
  "docs",
];

const read = () => {
  const name = location.pathname.slice(BASE.length).replace(/^\/|\/$/g, "") || "overview";
  return { page: PAGES.includes(name) ? name : null, query: new URLSearchParams(location.search) };
};

export const route = cell(read());
addEventListener("popstate", () => route.set(read()));

/**
 * @param {string} page
 * @param {Page.Query} [query]
 */
export const href = (page, query) => {
  const text = new URLSearchParams(entries(query)).toString();
  return BASE + (page === "overview" ? "" : `/${page}`) + (text ? `?${text}` : "");
};

/** @param {string} target */
export function navigate(target) {
  history.pushState(null, "", target);
  route.set(read());
  scrollTo(0, 0);
}

/**
 * Sets parts of the query of the page that is shown; null takes one away.
 * @param {Page.Query} changes
 */
export function setQuery(changes, { push = false } = {}) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") query.delete(name);
    else query.set(name, String(value));
  }
  const text = query.toString();
  const target = location.pathname + (text ? `?${text}` : "");
  if (target === location.pathname + location.search) return;
  history[push ? "pushState" : "replaceState"](null, "", target);
  route.set(read());
}

/**
 * A link inside of the dashboard.
 * @param {{to: string, query?: Page.Query, children?: Page.Child, onFollow?: () => void}} props
 */
export function Link({ to, query, children, ...rest }) {
  const target = href(to, query);
  /** @param {Page.FieldEvent} event */
  const follow = (event) => {
    if (
      event.defaultPrevented ||
      event.button ||
      event.metaKey ||
      event.ctrlKey ||
      event.shiftKey ||
      event.altKey
    )
      return;
    event.preventDefault();
    rest.onFollow?.();
    navigate(target);
  };
  return html`
    <a ...${rest} href=${target} onClick=${follow}>
      ${children}
    </a>
  `;
}

/**
 * The value if it is one of the choices, else `otherwise`.
 * @param {string[]} choices
 * @param {string | null} value
 * @param {string} otherwise
 */
export const oneOf = (choices, value, otherwise) =>
  value !== null && choices.includes(value) ? value : otherwise;
