// What was used and what it cost, by model, by day, or both.

import { html, useState } from "../view.js";
import { t, word } from "../i18n.js";
import * as as from "../format.js";
import { address, useAnswer } from "../api.js";
import { oneOf, setQuery } from "../router.js";
import { Badge, Bones, Card, Choice, Empty, FaultNote, Icon, RangeChoice, Table, Tile } from "../parts.js";

const RANGES = ["1h", "6h", "24h", "7d", "30d", "90d", "365d"];
const GROUPS = ["model", "day", "model_day"];
// a year by day and model has thousands of rows: these are drawn until more are asked for
const DRAWN = 400;
/** @type {("day" | "model")[]} */
const LEADS = ["day", "model"];
/** @type {(keyof Api.Tokens)[]} */
const KINDS = ["input", "cache_read", "cache_write_5m", "cache_write_1h", "output"];

/** @param {{query: URLSearchParams}} props */
export default function Usage({ query }) {
  const range = oneOf(RANGES, query.get("range"), "7d");
  const by = oneOf(GROUPS, query.get("by"), "model");
  const [isWhole, setWhole] = useState(false);
  const { data, fault, isStale, reload } = useAnswer("/usage", { range, by }, 15_000);
  const sum = data && total(data.rows);
  const all = data?.rows ?? [];
  const most = Math.max(...all.map((row) => row.cost_usd ?? 0), 1e-9);
  // the columns of what an answer was asked by, which may be the last one still
  const lead = LEADS.filter((name) => all.some((row) => row[name] !== null));
  const rows = isWhole ? all : all.slice(0, DRAWN);
  /** @param {string} kind */
  const save = (kind) => html`
    <a class="button" href=${address(`/usage.${kind}`, { range, by })} download>
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
        onChoose=${/** @param {string} value */ (value) => setQuery({ range: value === "7d" ? null : value })}
      />
    </div>
    <${FaultNote} fault=${fault} onRetry=${reload} />
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
                    ...lead.map((name) => [t(`col.${name}`)]),
                    [t("sum.requests"), "num"],
                    ...KINDS.map((kind) => [t(`tokens.${kind}`), "num"]),
                    [t("sum.cache"), "num"],
                    [t("col.cost"), "num"],
                  ]}
                >
                  ${rows.map(
                    (row) => html`
                      <tr key=${row.key}>
                        ${lead.map((name, i) =>
                          i === 0
                            ? html`
                              <th key=${name} scope="row" class="mono">
                                ${row[name] ?? "–"}
                              </th>
                            `
                            : html`
                              <td key=${name} class="mono">
                                ${row[name] ?? "–"}
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
        ${t("usage.note")} ${sum?.isFloor && t("cost.floor.why")}
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
