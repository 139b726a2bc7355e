// How it goes: now, and over the chosen range.

import { html, useCell, useEffect, useState } from "../view.js";
import { t } from "../i18n.js";
import * as as from "../format.js";
import { useAnswer } from "../api.js";
import { past, tick } from "../live.js";
import { Link, oneOf, setQuery } from "../router.js";
import {
  Badge,
  Bones,
  Card,
  Empty,
  FaultNote,
  Icon,
  RANGES,
  RangeChoice,
  Status,
  Table,
  Tile,
  costText,
} from "../parts.js";
import { Chart } from "../chart.js";
import { spent } from "../rows.js";
import { Replicas } from "./replicas.js";
import { circuitText, circuitTone } from "./upstreams.js";

// a short range is asked for often, a long one changes slowly
/** @type {Record<string, number>} */
const EVERY = { "5m": 3000, "15m": 5000, "1h": 10_000, "6h": 30_000, "24h": 60_000, "7d": 60_000 };

/** @param {{query: URLSearchParams}} props */
export default function Overview({ query }) {
  const range = oneOf(RANGES, query.get("range"), "15m");
  const { data, fault, isStale, reload } = useAnswer("/overview", { range }, EVERY[range]);
  return html`
    <${FaultNote} fault=${fault} onRetry=${reload} />
    ${
      data &&
      data.lost > 0 &&
      html`
        <div class="notice notice-warn">
          <${Icon} name="errors" />
          <p>${t("overview.lost", { n: as.exact(data.lost) })}</p>
        </div>
      `
    }
    <${Now} data=${data} />
    ${data?.shared && html`<${Replicas} />`}
    <div class="bar">
      <h2>${t("overview.range")}</h2>
      <${RangeChoice}
        value=${range}
        onChoose=${/** @param {string} next */ (next) => setQuery({ range: next === "15m" ? null : next })}
      />
    </div>
    <div class=${"stack" + (isStale ? " stale" : "")}>
      <${Sums} data=${data} />
      <${Plots} data=${data} />
      <${Recent} />
      <div class="columns">
        <${Paths} data=${data} />
        <${State} data=${data} />
      </div>
    </div>
  `;
}

/** @param {{data: Api.Overview | null}} props */
function Now({ data }) {
  const last = useCell(tick);
  /** @param {"in_flight" | "requests_per_second" | "error_rate" | "tokens_per_second"} name */
  const line = (name) => past.map((one) => one[name]);
  // rates are those of the last seconds, which the stream alone tells
  const now = last ?? (data && { in_flight: data.in_flight });
  const today = data?.today;
  const [heard, setHeard] = useState("");
  // a screen reader hears the numbers now and then, not every second
  useEffect(() => {
    const say = () => {
      const now = tick.get();
      if (!now) return;
      const parts = [
        `${t("now.in_flight")} ${as.exact(now.in_flight)}`,
        `${t("now.rate")} ${as.rate(now.requests_per_second)}`,
        `${t("now.errors")} ${as.percent(now.error_rate)}`,
      ];
      setHeard(parts.join(", "));
    };
    const timer = setInterval(say, 30_000);
    return () => clearInterval(timer);
  }, []);
  return html`
    <p class="unseen" role="status">
      ${heard}
    </p>
    <dl class="tiles">
      <${Tile}
        label=${t("now.in_flight")}
        value=${now && as.exact(now.in_flight)}
        spark=${line("in_flight")}
      />
      <${Tile}
        label=${t("now.rate")}
        help=${t("now.window")}
        value=${last && as.rate(last.requests_per_second)}
        spark=${line("requests_per_second")}
      />
      <${Tile}
        label=${t("now.errors")}
        help=${t("now.window")}
        value=${last && as.percent(last.error_rate)}
        spark=${line("error_rate")}
        tone=${last && last.error_rate > 0.05 ? "bad" : null}
      />
      <${Tile}
        label=${t("now.tokens")}
        help=${t("now.window")}
        value=${last && as.count(last.tokens_per_second)}
        spark=${line("tokens_per_second")}
      />
      <${Tile}
        label=${t("today.cost", { zone: data?.zone ?? "UTC" })}
        value=${today && as.atLeast(as.money(today.cost_usd), today.at_least_requests > 0)}
        note=${
          data &&
          today &&
          html`
            <span>${t("usage.requests", { n: as.count(today.requests) })}</span>${" "}
            <span>${t("prices.of", { date: data.prices_date })}</span>
          `
        }
      />
      <${Tile}
        label=${t("sum.cache")}
        value=${data && as.percent(data.totals.cache_hit_share)}
        note=${data && t("sum.cache.note", { tokens: as.count(data.totals.tokens.cache_read) })}
      />
      <${Tile}
        label=${t("now.uptime")}
        value=${data && as.span((last?.now ?? data.now) - data.started_at)}
        note=${data && t("now.version", { version: data.version })}
      />
      <${Tile}
        label=${t("now.connections")}
        value=${data && as.exact(data.connections)}
        note=${data && upstreamsText(data.upstreams)}
        tone=${
          data?.upstreams.some((one) => one.circuit === "open" || one.circuit === "half_open") ? "bad" : null
        }
      />
    </dl>
  `;
}

/**
 * How the upstreams are, the worst first.
 * @param {Api.Health[]} upstreams
 */
function upstreamsText(upstreams) {
  /** @param {Api.Circuit[]} circuits */
  const count = (...circuits) => upstreams.filter((one) => circuits.includes(one.circuit)).length;
  const all = upstreams.length;
  const [open, failing, unknown] = [count("open", "half_open"), count("failing"), count("unknown")];
  if (open) return t("now.upstreams.open", { n: open, all });
  if (failing) return t("now.upstreams.failing", { n: failing, all });
  return unknown === all ? t("now.upstreams.unknown") : t("now.upstreams.up", { n: count("closed"), all });
}

/** @type {[string, "ttft_ms" | "duration_ms"][]} */
const SPREADS = [
  ["ttft", "ttft_ms"],
  ["duration", "duration_ms"],
];
/** @type {(keyof Api.Quantiles)[]} */
const QUANTILES = ["avg", "p50", "p95", "p99"];

/** @param {{data: Api.Overview | null}} props */
function Sums({ data }) {
  const sums = data?.totals;
  const [succeeded, failed, canceled] = sums ? as.shares([sums.succeeded, sums.failed, sums.canceled]) : [];
  /** @type {[string, string | undefined, (string | null)?, string?][]} */
  const items = [
    ["sum.requests", sums && as.count(sums.requests)],
    ["sum.succeeded", sums && as.count(sums.succeeded), succeeded],
    ["sum.failed", sums && as.count(sums.failed), failed],
    ["sum.canceled", sums && as.count(sums.canceled), canceled, "sum.canceled.note"],
    ["sum.in", sums && as.bytes(sums.bytes_in)],
    ["sum.out", sums && as.bytes(sums.bytes_out)],
    ["sum.tokens_in", sums && as.count(as.read(sums.tokens))],
    ["sum.tokens_out", sums && as.atLeast(as.count(sums.tokens.output), sums.at_least_requests > 0)],
    [
      "sum.cost",
      sums && as.atLeast(as.money(sums.cost_usd), isFloor(sums)),
      sums && sums.cost_estimate_usd > sums.cost_usd
        ? t("cost.estimate", { cost: as.money(sums.cost_estimate_usd) })
        : null,
      "cost.floor.why",
    ],
    ["sum.unpriced", sums && as.count(sums.unpriced_requests), null, "unpriced.why"],
  ];
  // only what an earlier run stored has averages without quantiles
  const lacks = sums && SPREADS.some(([, name]) => sums[name].avg !== null && sums[name].p50 === null);
  return html`
    <div class="columns sums">
      <section class="card">
        <dl class="facts">
          ${items.map(
            ([key, value, note, help]) => html`
              <div key=${key}>
                <dt title=${help && t(help)}>${t(key)}</dt>
                <dd>
                  ${value ?? html`<span class="bone"></span>`}
                  ${note && html`<span class="note">${note}</span>`}
                </dd>
              </div>
            `,
          )}
        </dl>
      </section>
      <section class="card flush">
        <${Table}
          label=${t("quantiles")}
          head=${[[t("quantiles")], [t("avg"), "num"], ["p50", "num"], ["p95", "num"], ["p99", "num"]]}
        >
          ${SPREADS.map(
            ([key, name]) => html`
              <tr key=${key}>
                <th scope="row">${t(key)}</th>
                ${QUANTILES.map(
                  (q) => html`
                    <td key=${q} class="num">
                      ${sums ? as.duration(sums[name][q]) : html`<span class="bone"></span>`}
                    </td>
                  `,
                )}
              </tr>
            `,
          )}
        <//>
        ${lacks && html`<p class="note rest">${t("quantiles.absent")}</p>`}
      </section>
    </div>
  `;
}

/**
 * Whether what is told of the cost is less than it was.
 * @param {Api.Totals} sums
 */
const isFloor = (sums) => sums.at_least_requests > 0 || sums.unpriced_requests > 0;

/** @param {{data: Api.Overview | null}} props */
function Plots({ data }) {
  const series = data?.series;
  if (series && !series.t.length) return html`<${Empty} title=${t("overview.empty")} />`;
  const marks = data?.reloads ?? [];
  /** @type {(key: string, name: Api.SeriesName, colour: Page.Colour, kind?: Kind) => Page.Line} */
  const line = (key, name, colour, kind = "line") => ({
    label: t(key),
    values: series?.[name] ?? [],
    colour,
    kind,
  });
  const per = data ? t("per", { span: as.span(data.step_ms) }) : "";
  /** @type {(title: string, lines: Page.Line[], format: Format, note?: string, incrs?: number[]) => Child} */
  const plot = (title, lines, format, note, incrs) => html`
    <${Card} key=${title} title=${t(title)} note=${note}>
      <${Chart}
        label=${t(title)}
        t=${series?.t}
        series=${lines}
        marks=${marks}
        format=${format}
        incrs=${incrs}
      />
    <//>
  `;
  /** @param {"ttft" | "duration"} name */
  const quantiles = (name) => [
    line("p50", `${name}_p50`, "accent"),
    line("p95", `${name}_p95`, "busy"),
    line("p99", `${name}_p99`, "edge"),
  ];
  return html`
    <div class="grid">
      ${plot(
        "plot.requests",
        [
          line("sum.requests", "requests", "accent", "area"),
          line("sum.failed", "errors", "bad", "bars"),
          line("sum.canceled", "canceled", "warn", "bars"),
        ],
        as.count,
        per,
        WHOLE,
      )}
      ${plot("plot.ttft", quantiles("ttft"), as.duration)}
      ${plot("plot.duration", quantiles("duration"), as.duration)}
      ${plot(
        "plot.tokens",
        [
          { ...line("sum.tokens_in", "tokens_in", "accent", "area") },
          { ...line("sum.tokens_out", "tokens_out", "busy"), own: true },
        ],
        as.count,
        per,
        WHOLE,
      )}
      ${plot(
        "plot.bytes",
        [line("sum.in", "bytes_in", "accent", "area"), line("sum.out", "bytes_out", "busy")],
        as.bytes,
        per,
        BINARY,
      )}
      ${plot("plot.cost", [line("sum.cost", "cost_usd", "accent", "area")], as.money, per)}
    </div>
  `;
}

/** @typedef {(value: number | null | undefined) => string} Format */
/** @typedef {Page.Line["kind"]} Kind */
/** @typedef {Page.Child} Child */

// steps of the ticks: whole numbers, and powers of two
const WHOLE = Array.from({ length: 13 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();
const BINARY = Array.from({ length: 50 }, (_, power) => 2 ** power);
function Recent() {
  useCell(tick);
  const { data, fault } = useAnswer("/requests", { limit: 10 }, 3000);
  return html`
    <${Card}
      title=${t("recent.title")}
      flush
      tools=${html`<${Link} to="requests" class="more">
          ${t("recent.all")}
        <//>`}
    >
      <${FaultNote} fault=${fault} />
      ${
        !data
          ? html`<${Bones} rows=${8} />`
          : !data.items.length
            ? html`<${Empty} title=${t("requests.empty")}>${t("requests.empty.why")}<//>`
            : html`
              <${Table}
                label=${t("recent.title")}
                head=${[
                  [t("col.time")],
                  [t("col.status")],
                  [t("col.request")],
                  [t("col.ttft"), "num"],
                  [t("col.duration"), "num"],
                  [t("col.bytes"), "num"],
                  [t("col.cost"), "num"],
                ]}
              >
                ${data.items.slice(0, 10).map(
                  (row) => html`
                    <tr key=${row.id}>
                      <td class="dim">${as.when(row.at)}</td>
                      <td>
                        <${Status} row=${row} />
                      </td>
                      <td class="wide">
                        <${Link} to="requests" query=${{ id: row.id }} class="quiet">
                          ${row.method} ${row.path}
                        <//>
                        ${row.model && html` <span class="dim">${row.model}</span>`}
                      </td>
                      <td class="num">${as.duration(row.ttft_ms)}</td>
                      <td class="num">
                        ${as.duration(spent(row))}
                      </td>
                      <td class="num">${as.bytes(row.bytes_out)}</td>
                      <td class="num">${costText(row)}</td>
                    </tr>
                  `,
                )}
              <//>
            `
      }
    <//>
  `;
}

/** @param {{data: Api.Overview | null}} props */
function Paths({ data }) {
  return html`
    <${Card} title=${t("paths.title")} note=${t("paths.since")} flush>
      ${
        !data
          ? html`<${Bones} />`
          : !data.paths.length
            ? html`<${Empty} title=${t("overview.empty")} />`
            : html`
              <${Table}
                label=${t("paths.title")}
                head=${[
                  [t("col.path")],
                  [t("sum.requests"), "num"],
                  [t("sum.failed"), "num"],
                  [t("sum.average"), "num"],
                  [t("sum.out"), "num"],
                ]}
              >
                ${data.paths.map(
                  (row) => html`
                    <tr key=${row.path}>
                      <td class="wide" title=${row.path}>
                        <${Link} to="requests" query=${{ path: row.path }} class="quiet">
                          ${row.path}
                        <//>
                      </td>
                      <td class="num">${as.count(row.requests)}</td>
                      <td class=${"num" + (row.errors ? " text-bad" : " dim")}>${as.count(row.errors)}</td>
                      <td class="num">${as.duration(row.avg_ms)}</td>
                      <td class="num">${as.bytes(row.bytes_out)}</td>
                    </tr>
                  `,
                )}
              <//>
            `
      }
    <//>
  `;
}

/** @param {{data: Api.Overview | null}} props */
function State({ data }) {
  return html`
    <${Card} title=${t("state.title")}>
      ${
        !data
          ? html`<${Bones} rows=${3} />`
          : html`
            <ul class="lines">
              ${data.upstreams.map(
                (one) => html`
                  <li key=${one.name}>
                    <span class="wide mono">${one.name}</span>
                    <${Badge} tone=${circuitTone(one.circuit)}>${circuitText(one)}<//>
                  </li>
                `,
              )}
              ${data.reloads
                .slice(-5)
                .reverse()
                .map(
                  (one) => html`
                    <li key=${one.at}>
                      <span class="wide">
                        ${t("reload")} <span class="dim">${one.what}</span>
                      </span>
                      <span class="dim">${as.ago(one.at, data.now)}</span>
                      <${Badge} tone=${one.ok ? "good" : "bad"}>
                        ${t(one.ok ? "reload.ok" : "reload.failed")}
                      <//>
                    </li>
                  `,
                )}
            </ul>
          `
      }
    <//>
  `;
}
