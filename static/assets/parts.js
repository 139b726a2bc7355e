// The small parts that pages are made of.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./view.js";
import { t, word } from "./i18n.js";
import * as as from "./format.js";

/** @type {Record<string, string>} */
const PATHS = {
  overview: "M4 19V9m5.3 10V5m5.4 14v-7M20 19V8",
  requests: "M4 6h16M4 12h16M4 18h10",
  errors:
    "M12 8v5m0 3.5v.01M10.3 4.3 2.8 17.2A2 2 0 0 0 4.5 20h15a2 2 0 0 0 1.7-2.8L13.7 4.3a2 2 0 0 0-3.4 0Z",
  usage:
    "M12 3v18M17 6.5C16 5.3 14.2 5 12 5c-2.8 0-5 1-5 3.3 0 4.7 10 2.2 10 7" +
    " 0 2.3-2.2 3.7-5 3.7-2.4 0-4.3-.7-5.3-2.2",
  sessions: "M4 5h11v8H9l-4 3v-3H4V5Zm13 4h3v8h-1v3l-4-3H9",
  spend: "M4 19h16M6 15V9m4 6V5m4 10v-4m4 4V7",
  keys: "M14.500 9.500a4.500 4.500 0 1 0-3.200 4.300L13 15.500h2v2h2v2h3v-3l-5.800-5.800",
  audit: "M6 4h12v16H6V4Zm3 5h6m-6 4h6m-6 4h3",
  upstreams:
    "M4 7a2 2 0 0 1 2-2h12a2 2 0 0 1 2 2v2a2 2 0 0 1-2 2H6a2 2 0 0 1-2-2V7Zm0 8" +
    "a2 2 0 0 1 2-2h12a2 2 0 0 1 2 2v2a2 2 0 0 1-2 2H6a2 2 0 0 1-2-2v-2Zm4-7v.01M8 16v.01",
  doctor: "M6 4v5a4 4 0 0 0 8 0V4M10 13v2.500a4.500 4.500 0 0 0 9 0V14m0 0a2 2 0 1 0 0-4 2 2 0 0 0 0 4Z",
  config: "M4 7h9m4 0h3M4 17h3m4 0h9M15 5v4M9 15v4",
  connect: "M9 8V3m6 5V3M6 8h12v3a6 6 0 0 1-12 0V8Zm6 9v4",
  docs: "M5 4h9l5 5v11H5V4Zm9 0v5h5M8.500 13h7m-7 3.500h7",
  refresh:
    "M20 11a8 8 0 0 0-14.300-4L4 8.700M4 4v4.700h4.700M4 13a8 8 0 0 0 14.300 4L20 15.300M20 20v-4.700h-4.700",
  sun:
    "M12 4V2.5m0 19V20m8-8h1.5m-19 0H4m13.7-5.7 1-1m-13.4 13.4 1-1m0-11.4-1-1m13.4 13.4-1-1" +
    "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8Z",
  moon: "M20 14.500A8.500 8.500 0 0 1 9.500 4 8.500 8.500 0 1 0 20 14.500Z",
  copy: "M9 9h10v11H9V9Zm-4 6V4h10",
  check: "m5 12.500 4.500 4.500L19 7.500",
  close: "M6 6l12 12M18 6 6 18",
  pause: "M8 5v14m8-14v14",
  play: "M7 5l11 7-11 7V5Z",
  menu: "M4 7h16M4 12h16M4 17h16",
  logout: "M14 4H6v16h8m-3-8h10m-3.500-3.500L21 12l-3.500 3.500",
  download: "M12 4v11m-4.500-4.500L12 15l4.500-4.500M5 20h14",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14Zm5-2 4.500 4.500",
  info: "M12 11v5.500m0-9v.01M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18Z",
  up: "m6 15 6-6 6 6",
  down: "m6 9 6 6 6-6",
};

/** @param {{name: string}} props */
export const Icon = ({ name }) => html`
  <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
    <path d=${PATHS[name]} />
  </svg>
`;

/** @param {{icon: string, label: string} & Record<string, unknown>} props */
export const IconButton = ({ icon, label, ...rest }) => html`
  <button type="button" class="icon-button" aria-label=${label} title=${label} ...${rest}>
    <${Icon} name=${icon} />
  </button>
`;

/**
 * A number with its name, and perhaps a line of its past.
 * @param {{
 *   label: string, value: Page.Child, note?: Page.Child, spark?: (number | null)[],
 *   tone?: string | null, help?: string
 * }} props
 */
export function Tile({ label, value, note, spark, tone, help }) {
  return html`
    <div class=${"tile" + (tone ? ` tone-${tone}` : "")}>
      <dt title=${help}>${label}</dt>
      <dd>
        ${
          value === undefined || value === null
            ? html`<span class="bone bone-number"></span>`
            : html`<span class="number">${value}</span>`
        }
        ${note !== undefined && note !== null && html`<span class="note">${note}</span>`}
      </dd>
      ${spark && html`<${Spark} values=${spark} />`}
    </div>
  `;
}

/**
 * The shape of a row of numbers; nothing to read, so nothing is read out.
 * @param {{values: (number | null)[]}} props
 */
export function Spark({ values }) {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return html`<svg class="spark" aria-hidden="true"></svg>`;
  const [width, height] = [120, 28];
  const top = Math.max(...known, 1e-9);
  /** @param {number} i */
  const x = (i) => ((i / (values.length - 1)) * width).toFixed(1);
  /** @param {number} value */
  const y = (value) => (height - 1.5 - (value / top) * (height - 4)).toFixed(1);
  let line = "";
  values.forEach((value, i) => {
    if (value !== null && value !== undefined) line += `${line ? "L" : "M"}${x(i)} ${y(value)}`;
  });
  return html`
    <svg class="spark" viewBox=${`0 0 ${width} ${height}`} preserveAspectRatio="none" aria-hidden="true">
      <path class="spark-area" d=${`${line}L${width} ${height}L0 ${height}Z`} />
      <path class="spark-line" d=${line} />
    </svg>
  `;
}

/**
 * One of a few: buttons side by side.
 * @param {{
 *   label: string, value: string, options: [string, string][], onChoose: (value: string) => void
 * }} props
 */
export const Choice = ({ label, value, options, onChoose }) => html`
  <div class="choice" role="group" aria-label=${label}>
    ${options.map(
      ([key, text]) => html`
        <button key=${key} type="button" aria-pressed=${String(key === value)} onClick=${() => onChoose(key)}>
          ${text}
        </button>
      `,
    )}
  </div>
`;

/**
 * Whose sums a page shows, where replicas share them.
 * @param {{of: Api.SharedSums | null | undefined}} props
 */
export const SharedNote = ({ of }) =>
  of &&
  html`
    <p class="note">
      ${of.complete ? t("replicas.sums") : t("replicas.partial", { time: as.when(of.read_at) })}
    </p>
  `;

/** The ranges that the overview and the errors have; usage has others. */
export const RANGES = ["5m", "15m", "1h", "6h", "24h", "7d"];

/** @param {{value: string, onChoose: (value: string) => void, ranges?: string[]}} props */
export const RangeChoice = ({ value, onChoose, ranges = RANGES }) => html`
  <${Choice}
    label=${t("range.label")}
    value=${value}
    onChoose=${onChoose}
    options=${ranges.map((range) => [range, t(`range.${range}`)])}
  />
`;

/** @param {{text: string, label?: string, children?: Page.Child}} props */
export function Copy({ text, label, children }) {
  // whether it was copied; null while nothing was tried
  const [isDone, setDone] = useState(/** @type {boolean | null} */ (null));
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  const copy = async () => {
    const isCopied = await toClipboard(text);
    setDone(isCopied);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setDone(null), isCopied ? 1600 : 5000);
  };
  const icon = isDone === null ? "copy" : isDone ? "check" : "errors";
  const says = isDone === null ? null : t(isDone ? "copied" : "copy.failed");
  return children
    ? html`
      <button type="button" class="button" onClick=${copy}>
        <${Icon} name=${icon} />
        <span aria-live="polite">${says ?? children}</span>
      </button>
    `
    : html`
      <span class=${"copy" + (isDone === false ? " text-bad" : "")}>
        <${IconButton} icon=${icon} label=${says ?? label ?? t("copy")} onClick=${copy} />
        <span class="unseen" role="status">
          ${says}
        </span>
      </span>
    `;
}

/**
 * Whether the text is in the clipboard now.
 * @param {string} text
 */
async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // over plain HTTP from another machine there is no clipboard API
    const area = document.createElement("textarea");
    area.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    const focused = document.activeElement;
    area.select();
    const isCopied = document.execCommand("copy");
    area.remove();
    if (focused instanceof HTMLElement) focused.focus();
    return isCopied;
  }
}

/** @param {{text: string, label?: string}} props */
export const Code = ({ text, label }) => html`
  <div class="code">
    <pre tabindex="0" aria-label=${label}>
      <code>${text}</code>
    </pre>
    <${Copy} text=${text} label=${label ? `${t("copy")}: ${label}` : undefined} />
  </div>
`;

/** @param {{title: string, children?: Page.Child}} props */
export const Empty = ({ title, children }) => html`
  <div class="empty">
    <p class="empty-title">${title}</p>
    ${children && html`<p>${children}</p>`}
  </div>
`;

const FAULTS = new Set([
  "unreachable",
  "unauthorized",
  "forbidden",
  "not_found",
  "bad_range",
  "bad_filter",
  "bad_request",
  "too_many_attempts",
  "unavailable",
  "too_late",
  "method_not_allowed",
  "role_forbidden",
  "no_role",
]);

/**
 * What went wrong, in the reader's language: the API's own words only where its code is not known.
 * @param {Page.Fault} fault
 */
export const faultText = (fault) =>
  FAULTS.has(fault.code) ? t(`fault.${fault.code}`) : `${t("fault.other")} ${fault.message}`;

/**
 * What went wrong with a question, and a way to ask again.
 * @param {{fault: Page.Fault | null, onRetry?: () => void}} props
 */
export function FaultNote({ fault, onRetry }) {
  if (!fault) return null;
  return html`
    <div class="notice notice-bad" role="alert">
      <${Icon} name="errors" />
      <p>${faultText(fault)}</p>
      ${
        onRetry &&
        html`
          <button type="button" class="button" onClick=${onRetry}>
            ${t("retry")}
          </button>
        `
      }
    </div>
  `;
}

/**
 * Grey bars where rows will be.
 * @param {{rows?: number}} props
 */
export const Bones = ({ rows = 5 }) => html`
  <div class="bones" role="status" aria-label=${t("loading")}>
    ${Array.from({ length: rows }, (_, i) => html`<span key=${i} class="bone"></span>`)}
  </div>
`;

/**
 * @param {{
 *   title: string, note?: Page.Child, tools?: Page.Child, children?: Page.Child, flush?: boolean
 * }} props
 */
export const Card = ({ title, note, tools, children, flush }) => html`
  <section class=${"card" + (flush ? " flush" : "")}>
    <header>
      <h2>${title}</h2>
      ${note && html`<span class="note">${note}</span>`}
      ${tools && html`<div class="tools">${tools}</div>`}
    </header>
    ${children}
  </section>
`;

/** @param {{tone?: Page.Tone, children?: Page.Child, title?: string}} props */
export const Badge = ({ tone = "plain", children, title }) => html`
  <span class=${`badge badge-${tone}`} title=${title}>
    ${children}
  </span>
`;

/**
 * The tone of a row: how it ended, or that it did not yet.
 * @param {Api.Row} row
 * @returns {Page.Tone}
 */
export function tone(row) {
  if (row.state === "pending") return "busy";
  if (row.ended && row.ended.by !== "complete" && row.ended.by !== "proxy") return "warn";
  if (row.status === null || row.status >= 500) return "bad";
  return row.status >= 400 ? "warn" : row.result === "failed" ? "bad" : "good";
}

/**
 * The status in words, never by colour alone.
 * @param {Api.Row} row
 */
export function statusText(row) {
  if (row.state === "pending")
    return row.ending
      ? t("state.ending")
      : row.status === null
        ? t("state.pending")
        : `${row.status} ${t("state.streaming")}`;
  const status = row.status ?? "";
  if (row.ended?.by === "client") return `${status} ${t("ended.client.short")}`.trim();
  if (row.ended?.by === "upstream") return `${status} ${t("ended.upstream.short")}`.trim();
  // an error that came with a status of success
  if (row.result === "failed" && (row.status ?? 0) < 400)
    return `${status} ${t(row.ended?.by === "proxy" ? "ended.proxy.short" : "state.error")}`.trim();
  return String(status || "–");
}

/**
 * A label of the proxy in words; one that is not known stands for itself.
 * @param {string} label
 */
export const labelText = (label) => word(`label.${label}`, label);

/**
 * What a row cost, as far as it is known.
 * @param {Api.Row} row
 */
export const costText = (row) =>
  row.cost_usd === null ? "–" : as.atLeast(as.money(row.cost_usd), row.at_least);

/**
 * The tokens of a row, in and out; of one in flight those so far.
 * @param {Api.Row} row
 */
export function tokensText(row) {
  if (!row.tokens) return "–";
  const isRunning = row.state === "pending";
  const out = isRunning ? Math.max(row.tokens.output, row.output_events ?? 0) : row.tokens.output;
  return `${as.count(as.read(row.tokens))} → ${as.atLeast(as.count(out), isRunning || row.at_least)}`;
}

/** @param {{row: Api.Row}} props */
export const Status = ({ row }) => html`
  <span class=${`status tone-${tone(row)}`}>
    <span class="dot" aria-hidden="true"></span>
    ${statusText(row)}
  </span>
`;

/**
 * A table that scrolls sideways without the page; on a narrow screen each row is a list.
 * `head`: the columns' names, each with its class.
 * @param {{label: string, head: [string, string?][], children?: Page.Child}} props
 */
export function Table({ label, head, children }) {
  const body = useRef(/** @type {HTMLTableSectionElement | null} */ (null));
  // a cell that stands alone needs its column's name
  useLayoutEffect(() => {
    for (const row of body.current?.rows ?? [])
      [...row.cells].forEach((cell, i) => (cell.dataset.label = head[i]?.[0] ?? ""));
  });
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label=${label}>
      <table>
        <thead>
          <tr>
            ${head.map(
              ([text, kind]) => html`
                <th key=${text} scope="col" class=${kind}>
                  ${text}
                </th>
              `,
            )}
          </tr>
        </thead>
        <tbody ref=${body}>${children}</tbody>
      </table>
    </div>
  `;
}

/**
 * A field with a few values, and the one that is chosen at first.
 * @param {{label: string, value: string, options: [string, string][]} & Record<string, unknown>} props
 */
export const Select = ({ label, value, options, ...rest }) => html`
  <label class="field">
    <span>${label}</span>
    <select ...${rest}>
      ${options.map(
        ([key, text]) => html`
          <option key=${key} value=${key} selected=${key === value}>${text}</option>
        `,
      )}
    </select>
  </label>
`;

/**
 * Names and values; those without a value are left out.
 * @param {{facts: Page.Fact[]}} props
 */
export const Facts = ({ facts }) => html`
  <dl class="pairs">
    ${facts
      .filter(([, value]) => value)
      .map(
        ([key, value, copies]) => html`
          <div key=${key}>
            <dt>${t(key)}</dt>
            <dd class=${copies ? "mono copies" : ""}>
              <span>${value}</span>
              ${copies && html`<${Copy} text=${value} label=${`${t("copy")}: ${t(key)}`} />`}
            </dd>
          </div>
        `,
      )}
  </dl>
`;
