// Sessions of Claude Code: what each used and cost, its agents, and the health of its prompt cache.

import { html, useEffect, useRef, useState } from "../view.js";
import { t, word } from "../i18n.js";
import * as as from "../format.js";
import { useAnswer } from "../api.js";
import { Link, oneOf, setQuery } from "../router.js";
import {
  Badge,
  Bones,
  Card,
  Empty,
  Facts,
  FaultNote,
  Icon,
  Select,
  SharedNote,
  Status,
  Table,
  Tile,
  costText,
} from "../parts.js";

const ROWS = 100;
/** @type {Record<string, number>} */
const SPANS = { "24h": 1, "7d": 7, "30d": 30, "90d": 90 };
const DAY = 86_400_000;
const SORTS = ["last", "cost", "tokens", "requests", "duration", "errors", "cache_hit_share", "cache_breaks"];
// the server refuses a longer one
const LONGEST = 256;

/** @param {{query: URLSearchParams}} props */
export default function Sessions({ query }) {
  const id = query.get("id");
  return id === null
    ? html`<${List} query=${query} />`
    : html`<${One} key=${id} id=${id} owner=${query.get("key")} />`;
}

/** @param {{query: URLSearchParams}} props */
function List({ query }) {
  const range = oneOf(Object.keys(SPANS), query.get("range"), "7d");
  const sort = oneOf(SORTS, query.get("sort"), "last");
  const offset = Math.max(0, Number(query.get("offset")) || 0);
  const q = query.get("q") ?? "";
  // a minute that is not over asks the same question
  const since = Math.floor(Date.now() / 60_000) * 60_000 - SPANS[range] * DAY;
  const { data, fault, isStale, reload } = useAnswer(
    "/sessions",
    { q, sort, since, offset: offset || null, limit: ROWS },
    15_000,
  );
  return html`
    <div class="bar">
      <${Search} value=${q} />
      <div class="bar">
        <${Select}
          label=${t("range.label")}
          value=${range}
          options=${Object.keys(SPANS).map((span) => [span, t(`range.${span}`)])}
          onChange=${
            /** @param {Page.FieldEvent} event */ ({ target: { value } }) =>
              setQuery({ range: value === "7d" ? null : value, offset: null })
          }
        />
        <${Select}
          label=${t("sessions.sort")}
          value=${sort}
          options=${SORTS.map((name) => [name, t(`sessions.sort.${name}`)])}
          onChange=${
            /** @param {Page.FieldEvent} event */ ({ target: { value } }) =>
              setQuery({ sort: value === "last" ? null : value, offset: null })
          }
        />
      </div>
    </div>
    <${FaultNote} fault=${fault} onRetry=${reload} />
    <${SharedNote} of=${data?.shared} />
    <div class=${"stack" + (isStale ? " stale" : "")}>
      <${Card}
        title=${t("nav.sessions")}
        note=${data && t("sessions.count", { n: as.exact(data.total) })}
        flush
      >
        ${
          !data
            ? !fault && html`<${Bones} />`
            : !data.items.length
              ? html`<${Empty} title=${t("sessions.empty")}>${t("sessions.empty.why")}<//>`
              : html`<${Rows} rows=${data.items} />`
        }
        ${data && html`<${Pages} offset=${offset} next=${data.next_offset} />`}
      <//>
    </div>
  `;
}

/** @param {{rows: Api.Session[]}} props */
const Rows = ({ rows }) => html`
  <${Table}
    label=${t("nav.sessions")}
    head=${[[t("col.session")], [t("col.who")], [t("sessions.last")], ...sums()]}
  >
    ${rows.map(
      (row) => html`
        <tr key=${`${row.key} ${row.id}`}>
          <th scope="row" class="mono">
            <${Link} to="sessions" query=${{ id: row.id, key: row.key }}>${brief(row.id)}<//>
          </th>
          <td>${who(row)}</td>
          <td>${as.when(row.last_at)}</td>
          <${Sums} of=${row} />
        </tr>
      `,
    )}
  <//>
`;

/**
 * Heads of the columns of sums.
 * @returns {[string, string][]}
 */
const sums = () =>
  ["duration", "sum.requests", "col.tokens", "sum.cache", "sessions.breaks", "col.cost"].map((key) => [
    t(key),
    "num",
  ]);

/** @param {{of: Api.SessionSums}} props */
const Sums = ({ of }) => html`
  <td class="num">${as.span(of.duration_ms)}</td>
  <td class="num">${as.count(of.requests)}${" "}<${Errors} count=${of.errors} /></td>
  <td class="num">${tokens(of)}</td>
  <td class="num">${as.percent(of.cache_hit_share)}</td>
  <td class="num"><${Breaks} count=${of.cache_breaks} /></td>
  <td class="num">${cost(of)}</td>
`;

/** @param {{id: string, owner: string | null}} props */
function One({ id, owner }) {
  const { data, fault, reload } = useAnswer(
    `/sessions/${encodeURIComponent(id)}`,
    owner === null ? null : { key: owner },
    15_000,
  );
  return html`
    <p><${Link} to="sessions">← ${t("sessions.all")}<//></p>
    <${FaultNote} fault=${fault?.status === 404 ? null : fault} onRetry=${reload} />
    ${
      fault?.status === 404
        ? html`<${Empty} title=${t("sessions.gone")}>${t("sessions.gone.why")}<//>`
        : data
          ? html`<${Detail} data=${data} />`
          : !fault && html`<${Bones} rows=${8} />`
    }
  `;
}

/** @param {{data: Api.SessionDetail}} props */
const Detail = ({ data }) => html`
  <div class="stack">
    <dl class="tiles four">
      <${Tile}
        label=${t("sum.cost")}
        value=${cost(data)}
        note=${t("usage.requests", { n: as.count(data.requests) })}
      />
      <${Tile}
        label=${t("col.tokens")}
        value=${tokens(data)}
        note=${t("usage.new", { tokens: as.count(data.tokens.input) })}
      />
      <${Tile}
        label=${t("sum.cache")}
        value=${as.percent(data.cache_hit_share)}
        note=${t("usage.cache.note")}
      />
      <${Tile}
        label=${t("duration")}
        value=${as.span(data.duration_ms)}
        note=${t("sessions.busy", { span: as.span(data.busy_ms) })}
      />
    </dl>
    <${Card} title=${t("sessions.one")}>
      <${Facts} facts=${facts(data)} />
    <//>
    <${Card} title=${t("sessions.agents")} flush>
      <${Agents} rows=${data.tree} />
    <//>
    <${Card} title=${t("sessions.health")} note=${t("sessions.health.note")} flush>
      <${Health} data=${data} />
    <//>
    <${Card} title=${t("sessions.requests")} flush>
      <${Requests} rows=${data.last_requests} />
    <//>
  </div>
`;

/**
 * What is known of a session.
 * @param {Api.SessionDetail} data
 * @returns {Page.Fact[]}
 */
const facts = (data) => [
  ["filter.session", data.id, true],
  ["col.key", data.key && (data.key_name ? `${data.key_name} · ${data.key}` : data.key)],
  ["col.user", data.user],
  ["col.team", data.team],
  ["filter.user_agent", data.user_agent],
  ["sessions.first", as.moment(data.first_at)],
  ["sessions.last", as.moment(data.last_at)],
];

/** @param {{rows: Api.Agent[]}} props */
const Agents = ({ rows }) => html`
  <${Table}
    label=${t("sessions.agents")}
    head=${[[t("col.agent")], [t("col.model")], [t("sessions.first")], ...sums()]}
  >
    ${rows.map(
      (row) => html`
        <tr key=${row.id ?? ""}>
          <th scope="row" class="mono">
            <span class="indent" style=${{ paddingLeft: `${Math.min(row.depth, 6) * 14}px` }}>
              ${row.depth > 0 && html`<span class="dim" aria-hidden="true">└ </span>`}${agent(row.id)}
            </span>
          </th>
          <td class="mono wide">${row.models.join(", ") || "–"}</td>
          <td>${as.when(row.first_at)}</td>
          <${Sums} of=${row} />
        </tr>
      `,
    )}
  <//>
`;

/** @param {{data: Api.SessionDetail}} props */
function Health({ data }) {
  if (!data.cache_breaks) return html`<${Empty} title=${t("sessions.healthy")} />`;
  return html`
    <p class="badges">
      ${data.causes.map(
        (one) => html`
          <${Badge} key=${one.cause} tone=${one.cause === "ttl_lapsed" ? "plain" : "warn"}>
            ${cause(one.cause, null)} · ${as.count(one.count)}
          <//>
        `,
      )}
    </p>
    <${Table}
      label=${t("sessions.health")}
      head=${[
        [t("col.time")],
        [t("sessions.cause")],
        [t("col.agent")],
        [t("col.model")],
        [t("sessions.expected"), "num"],
        [t("tokens.cache_read"), "num"],
        [t("sessions.written"), "num"],
      ]}
    >
      ${data.breaks.map(
        (one) => html`
          <tr key=${one.request}>
            <th scope="row">
              <${Link} to="requests" query=${{ id: one.request }}>${as.when(one.at)}<//>
            </th>
            <td class="wide">${cause(one.cause, one.message)}</td>
            <td class="mono">${agent(one.agent)}</td>
            <td class="mono">${one.model}</td>
            <td class="num">${as.count(one.expected)}</td>
            <td class="num">${as.count(one.read)}</td>
            <td class="num">${as.count(one.written)}</td>
          </tr>
        `,
      )}
    <//>
  `;
}

/** @param {{rows: Api.Row[]}} props */
const Requests = ({ rows }) =>
  !rows.length
    ? html`<${Empty} title=${t("sessions.unlisted")} />`
    : html`
      <${Table}
        label=${t("sessions.requests")}
        head=${[
          [t("col.time")],
          [t("col.status")],
          [t("col.agent")],
          [t("col.model")],
          [t("col.duration"), "num"],
          [t("col.tokens"), "num"],
          [t("col.cost"), "num"],
        ]}
      >
        ${rows.map(
          (row) => html`
            <tr key=${row.seq}>
              <th scope="row">
                <${Link} to="requests" query=${{ id: row.id }}>${as.when(row.at)}<//>
              </th>
              <td><${Status} row=${row} /></td>
              <td class="mono">${agent(row.agent)}</td>
              <td class="mono">${row.model ?? row.path}</td>
              <td class="num">${as.duration(row.duration_ms)}</td>
              <td class="num">
                ${row.tokens ? `${as.count(as.read(row.tokens))} → ${as.count(row.tokens.output)}` : "–"}
              </td>
              <td class="num">${costText(row)}</td>
            </tr>
          `,
        )}
      <//>
    `;

/**
 * A field that asks when its reader pauses.
 * @param {{value: string}} props
 */
function Search({ value }) {
  const [text, setText] = useState(value);
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  /** @param {Page.FieldEvent} event */
  const type = (event) => {
    const q = event.target.value;
    setText(q);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setQuery({ q, offset: null }), 250);
  };
  return html`
    <label class="field field-q">
      <span>${t("filter.q")}</span>
      <input
        type="search"
        value=${text}
        onInput=${type}
        maxlength=${LONGEST}
        placeholder=${t("sessions.q.hint")}
        spellcheck="false"
      />
    </label>
  `;
}

/** @param {{offset: number, next: number | null}} props */
function Pages({ offset, next }) {
  if (!offset && next === null) return null;
  /** @param {number} to */
  const go = (to) => () => setQuery({ offset: to || null }, { push: true });
  return html`
    <p class="rest">
      <button type="button" class="button" disabled=${!offset} onClick=${go(Math.max(0, offset - ROWS))}>
        ${t("page.before")}
      </button>
      ${" "}
      <button type="button" class="button" disabled=${next === null} onClick=${go(next ?? 0)}>
        ${t("page.next")}
      </button>
    </p>
  `;
}

/** @param {{count: number}} props */
const Errors = ({ count }) =>
  count > 0 && html`<${Badge} tone="bad">${t("sessions.errors", { n: as.count(count) })}<//>`;

/** @param {{count: number}} props */
const Breaks = ({ count }) =>
  count > 0
    ? html`
      <${Badge} tone="warn">
        <${Icon} name="errors" />
        ${as.count(count)}
      <//>
    `
    : html`<span class="dim">0</span>`;

/** @param {Api.SessionSums} sums */
const tokens = (sums) => `${as.count(as.read(sums.tokens))} → ${as.count(sums.tokens.output)}`;

/** @param {Api.SessionSums} sums */
const cost = (sums) => as.atLeast(as.money(sums.cost_usd), sums.cost_is_floor);

/** @param {Api.Session} row */
const who = (row) => [row.user ?? row.key_name ?? row.key, row.team].filter(Boolean).join(" · ") || "–";

/** @param {string | null} id */
const agent = (id) => id ?? t("agent.main");

/**
 * The beginning of a long name.
 * @param {string} id
 */
const brief = (id) => (id.length > 13 ? `${id.slice(0, 12)}…` : id);

/**
 * A cause in words, with the number of a message.
 * @param {string} name
 * @param {number | null} message
 */
const cause = (name, message) =>
  message === null ? word(`cause.${name}`, name) : t("cause.message_n", { n: message });
