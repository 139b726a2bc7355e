// What was used and what it cost, by model, by time, and by whose it is.

import { html, useCell, useState } from "../view.js";
import { language, locale, t, word } from "../i18n.js";
import * as as from "../format.js";
import { address, useAnswer } from "../api.js";
import { Chart } from "../chart.js";
import { begin, byDay, day, month, months, seriesByDay } from "../period.js";
import { zone } from "../zone.js";
import { Link, oneOf, setQuery } from "../router.js";
import {
  Badge,
  Bones,
  Card,
  Choice,
  Empty,
  FaultNote,
  Icon,
  RangeChoice,
  SharedNote,
  Table,
  Tile,
} from "../parts.js";

const RANGES = ["1h", "6h", "24h", "7d", "30d", "90d", "365d"];
const GROUPS = ["model", "day", "model_day", "key", "user", "team", "session"];
// the proxy keeps hours for as long, and days of its own zone beyond: by model, and by whose usage it is
const HOURS = 31 * 86_400_000;
const HOURS_BY = 7 * 86_400_000;
const WHOSE = new Set(["key", "user", "team", "session"]);
/** @type {Page.Colour[]} */
const COLOURS = ["accent", "busy", "warn", "bad"];
/** @type {Record<string, number>} */
const SPANS = { "1h": 1, "6h": 6, "24h": 24, "7d": 168, "30d": 720, "90d": 2160, "365d": 8760 };
// a year by day and model has thousands of rows: these are drawn until more are asked for
const DRAWN = 400;
/** @type {(keyof Api.Tokens)[]} */
const KINDS = ["input", "cache_read", "cache_write_5m", "cache_write_1h", "output"];

/** @param {{query: URLSearchParams}} props */
export default function Usage({ query }) {
  const by = oneOf(GROUPS, query.get("by"), "model");
  const { range, asked, isShort } = span(query, WHOSE.has(by) ? HOURS_BY : HOURS);
  const [isWhole, setWhole] = useState(false);
  // the proxy counts days of UTC: those of the reader are put together from hours
  const isLocal = by === "day" && isShort;
  const answer = useAnswer("/usage", { ...asked, by: isLocal ? "hour" : by }, 15_000);
  const { data, fault, isStale, reload } = answer;
  const sum = data && total(data.rows);
  const all = isLocal && data?.rows.every((row) => row.at !== null) ? byDay(data.rows) : (data?.rows ?? []);
  const most = Math.max(...all.map((row) => row.cost_usd ?? 0), 1e-9);
  // the columns of what an answer was asked by, which may be the last one still
  const lead = leads(all, by);
  const rows = isWhole ? all : all.slice(0, DRAWN);
  /** @param {string} kind */
  const save = (kind) => html`
    <a class="button" href=${address(`/usage.${kind}`, { ...asked, by })} download>
      <${Icon} name="download" />
      ${kind.toUpperCase()}
    </a>
  `;
  return html`
    <div class="bar">
      <${Choice}
        label=${t("usage.by")}
        value=${by}
        onChoose=${/** @param {string} value */ (value) => setQuery({ by: value === "model" ? null : value })}
        options=${GROUPS.map((group) => [group, t(`usage.by.${group}`)])}
      />
      <${RangeChoice}
        ranges=${RANGES}
        value=${range}
        onChoose=${
          /** @param {string} value */ (value) =>
            setQuery({ range: value === "7d" ? null : value, month: null, since: null, until: null })
        }
      />
    </div>
    <${Days} query=${query} />
    <${FaultNote} fault=${fault} onRetry=${reload} />
    <${SharedNote} of=${data?.shared} />
    <div class=${"stack" + (isStale ? " stale" : "")}>
      <dl class="tiles four">
        <${Tile}
          label=${t("sum.cost")}
          value=${sum && as.atLeast(as.money(sum.cost_usd), sum.isFloor)}
          note=${
            data &&
            sum &&
            html`
              ${
                sum.estimate > sum.cost_usd &&
                html`<span>${t("cost.estimate", { cost: as.money(sum.estimate) })}</span> `
              }
              <span>${t("prices.of", { date: data.prices_date })}</span>
            `
          }
        />
        <${Tile}
          label=${t("sum.tokens_in")}
          value=${sum && as.count(as.read(sum.tokens))}
          note=${sum && t("usage.new", { tokens: as.count(sum.tokens.input) })}
        />
        <${Tile}
          label=${t("sum.tokens_out")}
          value=${sum && as.atLeast(as.count(sum.tokens.output), sum.isCut)}
          note=${sum && t("usage.requests", { n: as.count(sum.requests) })}
        />
        <${Tile}
          label=${t("sum.cache")}
          value=${sum && as.percent(as.cacheShare(sum.tokens) ?? 0)}
          note=${t("usage.cache.note")}
        />
      </dl>
      <${Series} asked=${asked} by=${by} isShort=${isShort} />
      <${Card}
        title=${t(`usage.by.${by}`)}
        flush
        tools=${html`
          ${save("csv")}
          ${save("json")}
        `}
      >
        ${
          !data
            ? html`<${Bones} />`
            : !all.length
              ? html`<${Empty} title=${t("usage.empty")}>${t("usage.empty.why")}<//>`
              : html`
                <${Table}
                  label=${t("nav.usage")}
                  head=${[
                    ...lead.map(([name]) => [t(`col.${name}`)]),
                    [t("sum.requests"), "num"],
                    ...KINDS.map((kind) => [t(`tokens.${kind}`), "num"]),
                    [t("sum.cache"), "num"],
                    [t("col.cost"), "num"],
                  ]}
                >
                  ${rows.map(
                    (row) => html`
                      <tr key=${row.key}>
                        ${lead.map(([name, of], i) =>
                          i === 0
                            ? html`
                              <th key=${name} scope="row" class="mono">
                                ${of(row)}
                              </th>
                            `
                            : html`
                              <td key=${name} class="mono">
                                ${of(row)}
                              </td>
                            `,
                        )}
                        <td class="num">${as.count(row.requests)}</td>
                        ${KINDS.map(
                          (kind) => html`
                            <td key=${kind} class=${"num" + (row.tokens[kind] ? "" : " dim")}>
                              ${as.atLeast(as.count(row.tokens[kind]), kind === "output" && row.at_least)}
                            </td>
                          `,
                        )}
                        <td class="num">${as.percent(row.cache_hit_share)}</td>
                        <td class="num cost-cell">
                          <${Cost} row=${row} />
                          <span class="share" aria-hidden="true">
                            <i style=${{ width: `${((row.cost_usd ?? 0) / most) * 100}%` }}></i>
                          </span>
                        </td>
                      </tr>
                    `,
                  )}
                <//>
                ${
                  rows.length < all.length &&
                  html`
                    <p class="rest">
                      <button type="button" class="button" onClick=${() => setWhole(true)}>
                        ${t("usage.rest", { n: as.exact(all.length - rows.length) })}
                      </button>
                    </p>
                  `
                }
              `
        }
      <//>
      <p class="note">
        ${
          isShort && by !== "model_day"
            ? t("usage.zone", { zone: zone() })
            : data && t("usage.utc", { zone: data.zone })
        }
        ${" "}${t("usage.note")}
        ${" "}${sum?.isFloor && t("cost.floor.why")}
      </p>
      ${
        data &&
        data.not_priced.length > 0 &&
        html`
          <p class="note">
            ${t("usage.not_priced")} ${data.not_priced.map(notPriced).join(t("list.comma"))}
            ${t("list.end")}
          </p>
        `
      }
    </div>
  `;
}

/**
 * The span that the address names: a range up to now, a month, or days of the reader's own. `isShort` tells
 * whether its hours are known.
 * @param {URLSearchParams} query
 * @param {number} kept
 * @returns {{range: string, asked: Page.Query, isShort: boolean}}
 */
function span(query, kept) {
  const [named, from, to] = ["month", "since", "until"].map((name) => query.get(name) ?? "");
  const isDay = /** @param {string} text */ (text) => /^\d{4}-\d\d-\d\d$/.test(text);
  const own = /^\d{4}-\d\d$/.test(named)
    ? month(named)
    : isDay(from)
      ? { since: begin(from), until: begin(isDay(to) && to >= from ? to : day(Date.now()), 1) }
      : null;
  if (own && own.since < own.until) return { range: "", asked: own, isShort: own.since > Date.now() - kept };
  const range = oneOf(RANGES, query.get("range"), "7d");
  return { range, asked: { range }, isShort: SPANS[range] * 3_600_000 <= kept };
}

/**
 * A month, or days from and to.
 * @param {{query: URLSearchParams}} props
 */
function Days({ query }) {
  useCell(language);
  const names = new Intl.DateTimeFormat(locale(), { month: "long", year: "numeric" });
  const today = day(Date.now());
  /** @type {(changes: Page.Query) => void} */
  const set = (changes) => setQuery({ range: null, month: null, ...changes });
  return html`
    <div class="bar days">
      <label class="field">
        <span>${t("usage.month")}</span>
        <select
          value=${query.get("month") ?? ""}
          onChange=${
            /** @param {Page.FieldEvent} event */ (event) =>
              set({ month: event.target.value, since: null, until: null })
          }
        >
          <option value="">${t("usage.month.none")}</option>
          ${months().map(
            (name) => html`
              <option key=${name} value=${name} selected=${name === query.get("month")}>
                ${names.format(month(name).since)}
              </option>
            `,
          )}
        </select>
      </label>
      ${["since", "until"].map(
        (name) => html`
          <label key=${name} class="field">
            <span>${t(`filter.${name}`)}</span>
            <input
              type="date"
              max=${today}
              value=${query.get(name) ?? ""}
              onChange=${/** @param {Page.FieldEvent} event */ (event) => set({ [name]: event.target.value })}
            />
          </label>
        `,
      )}
    </div>
  `;
}

/**
 * Cost over time: a line for each of the names that cost most, and one for the rest.
 * @param {{asked: Page.Query, by: string, isShort: boolean}} props
 */
function Series({ asked, by, isShort }) {
  const { data } = useAnswer("/usage/series", { ...asked, by }, 60_000);
  if (!data?.lines.length) return null;
  const isLong = data.step_ms < 86_400_000 && data.t.length > 48;
  const { t: moments, lines } = isLong && isShort ? seriesByDay(data) : data;
  const shown = lines.filter((line) => line.key !== "other").slice(0, COLOURS.length);
  const rest = lines.filter((line) => !shown.includes(line));
  /** @type {Page.Line[]} */
  const series = shown.map((line, i) => ({
    label: line.name ?? (line.key || t("usage.none")),
    values: line.cost_usd,
    colour: COLOURS[i],
    kind: lines.length === 1 ? "bars" : "line",
  }));
  if (rest.length)
    series.push({
      label: t("usage.rest_of"),
      values: moments.map((_, i) => rest.reduce((sum, line) => sum + line.cost_usd[i], 0)),
      colour: "edge",
      kind: "line",
    });
  return html`
    <${Card} title=${t("usage.chart")}>
      <${Chart} label=${t("plot.cost")} t=${moments} series=${series} format=${as.money} />
    <//>
  `;
}

/**
 * The columns that name a row, with what stands in each.
 * @param {Api.UsageRow[]} rows
 * @param {string} by
 * @returns {[string, (row: Api.UsageRow) => Page.Child][]}
 */
function leads(rows, by) {
  /** @type {[string, (row: Api.UsageRow) => Page.Child][]} */
  const columns = [];
  if (rows.some((row) => row.day !== null)) columns.push(["day", (row) => row.day ?? "–"]);
  if (rows.some((row) => row.model !== null)) columns.push(["model", (row) => row.model ?? "–"]);
  return columns.length || !rows.length ? columns : [[by, (row) => named(row, by)]];
}

/**
 * Whose a row is.
 * @param {Api.UsageRow} row
 * @param {string} by
 */
function named(row, by) {
  if (row.key === "") return t("usage.none");
  if (row.key === "other") return t("usage.rest_of");
  if (by === "session") return html`<${Link} to="sessions" query=${{ id: row.key }}>${row.key}<//>`;
  return row.name ? `${row.name} · ${row.key}` : row.key;
}

/**
 * What a group cost, as far as it is known: what has no price is told beside it, and never hides it.
 * @param {{row: Api.UsageRow}} props
 */
function Cost({ row }) {
  const isKnown = row.cost_usd > 0 || row.unpriced_requests < row.requests;
  const known = isKnown && as.atLeast(as.money(row.cost_usd), row.cost_is_floor);
  const estimate =
    row.cost_estimate_usd > row.cost_usd &&
    html` <span class="note">${t("cost.estimate", { cost: as.money(row.cost_estimate_usd) })}</span>`;
  return html`
    <span title=${row.cost_is_floor ? t("cost.floor.why") : undefined}>
      ${known}
      ${estimate}
      ${
        row.unpriced &&
        html`
          ${" "}
          <${Badge} title=${t("unpriced.why")}>
            ${isKnown ? t("unpriced.n", { n: as.count(row.unpriced_requests) }) : t("unpriced")}
          <//>
        `
      }
    </span>
  `;
}

/**
 * A thing that is not priced, in words; one that is not known stands for itself.
 * @param {string} name
 */
const notPriced = (name) => word(`not_priced.${name}`, name.replaceAll("_", " "));

/** @param {Api.UsageRow[]} rows */
function total(rows) {
  const sum = {
    requests: 0,
    cost_usd: 0,
    estimate: 0,
    isFloor: false,
    isCut: false,
    tokens: { input: 0, output: 0, cache_read: 0, cache_write_5m: 0, cache_write_1h: 0 },
  };
  for (const row of rows) {
    sum.requests += row.requests;
    sum.cost_usd += row.cost_usd;
    sum.estimate += row.cost_estimate_usd;
    sum.isFloor ||= row.cost_is_floor;
    sum.isCut ||= row.at_least;
    for (const kind of KINDS) sum.tokens[kind] += row.tokens[kind];
  }
  return sum;
}
