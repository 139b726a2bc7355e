// Budgets: what is spent of each, what that comes to at its end, and who is near it; the fullest limits.

import { html, useState } from "../view.js";
import { t } from "../i18n.js";
import * as as from "../format.js";
import { ask, refresh, useAnswer, useMay } from "../api.js";
import { oneOf, setQuery } from "../router.js";
import { Badge, Bones, Card, Choice, Empty, FaultNote, Icon } from "../parts.js";
import { Ask, Input, LONGEST_REASON } from "../form.js";

const SUBJECTS = ["org", "team", "user", "key"];
// percent from which a budget is nearly spent
const NEAR = 80;

/** @param {{query: URLSearchParams}} props */
export default function Spend({ query }) {
  const by = oneOf(SUBJECTS, query.get("by"), "team");
  const { data, fault, isStale, reload } = useAnswer("/spend", { by }, 10_000);
  const { data: limits } = useAnswer("/limits", { limit: 10 }, 10_000);
  const mayGrant = useMay("operator");
  const [granted, setGranted] = useState(/** @type {Api.SpendBar | null} */ (null));
  const near = data?.items.filter((bar) => !isUnknown(bar) && bar.percent >= NEAR) ?? [];
  return html`
    <div class="bar">
      <${Choice}
        label=${t("usage.by")}
        value=${by}
        onChoose=${/** @param {string} value */ (value) => setQuery({ by: value === "team" ? null : value })}
        options=${SUBJECTS.map((name) => [name, t(`spend.by.${name}`)])}
      />
    </div>
    <${FaultNote} fault=${fault} onRetry=${reload} />
    <div class=${"stack" + (isStale ? " stale" : "")}>
      ${
        near.length > 0 &&
        html`
          <div class="notice notice-warn" role="status">
            <${Icon} name="errors" />
            <p>${t("spend.near", { names: near.map(title).join(t("list.comma")) })}</p>
          </div>
        `
      }
      ${
        granted &&
        html`
          <${Grant}
            key=${granted.subject}
            bar=${granted}
            onDone=${() => (setGranted(null), refresh())}
            onLeave=${() => setGranted(null)}
          />
        `
      }
      <${Card} title=${t(`spend.by.${by}`)} flush>
        ${
          !data
            ? !fault && html`<${Bones} />`
            : !data.items.length
              ? html`<${Empty} title=${t("spend.empty")}>${t("spend.empty.why")}<//>`
              : html`
                <ul class="budgets">
                  ${data.items.map(
                    (bar) =>
                      html`
                        <${Budget}
                          key=${`${bar.subject} ${bar.period} ${bar.models}`}
                          bar=${bar}
                          onGrant=${mayGrant && (() => setGranted(bar))}
                        />
                      `,
                  )}
                </ul>
              `
        }
      <//>
      <p class="note">${t("spend.note")}</p>
      ${
        limits &&
        limits.items.length > 0 &&
        html`
          <${Card} title=${t("spend.limits")} flush>
            <ul class="budgets">
              ${limits.items.map((one, at) => html`<${Limit} key=${at} one=${one} />`)}
            </ul>
          <//>
        `
      }
    </div>
  `;
}

/** @param {{one: Api.UsedLimit}} props */
function Limit({ one }) {
  return html`
    <li class="budget">
      <p class="budget-head">
        <b>${title(one)}</b>
        <span class="dim">${[one.default_of, one.models].filter(Boolean).join(" · ")}</span>
        <span class="budget-sum">
          ${t("spend.used", {
            spent: as.count(one.spent),
            limit: t(`limit.${one.kind}`, { n: as.count(one.bound) }),
          })}
        </span>
      </p>
      <${Meter} one=${one} spent=${Math.min(100, one.percent)} held=${0} />
    </li>
  `;
}

/**
 * @param {{
 *   one: {subject: string, name: string | null, percent: number}, spent: number, held: number
 * }} props
 */
function Meter({ one, spent, held }) {
  return html`
    <div
      class=${`meter meter-${toneOf(one.percent)}`}
      role="meter"
      aria-label=${title(one)}
      aria-valuemin="0"
      aria-valuemax="100"
      aria-valuenow=${Math.round(Math.min(100, one.percent))}
      aria-valuetext=${as.percent(one.percent / 100)}
    >
      <i style=${{ width: `${spent}%` }}></i>
      <i class="meter-held" style=${{ width: `${Math.min(100 - spent, held)}%` }}></i>
    </div>
  `;
}

/** @param {number} percent */
const toneOf = (percent) => (percent >= 100 ? "bad" : percent >= NEAR ? "warn" : "good");

/** @param {{bar: Api.SpendBar, onDone: () => void, onLeave: () => void}} props */
function Grant({ bar, onDone, onLeave }) {
  /** @param {FormData} fields */
  const send = (fields) =>
    ask(`/limits/${encodeURIComponent(bar.subject)}/grant`, {
      method: "POST",
      body: Object.fromEntries([...fields].map(([name, value]) => [name, String(value).trim()])),
    });
  return html`
    <${Ask}
      title=${`${t("spend.grant")}: ${title(bar)}`}
      what=${t("spend.grant.what")}
      label=${t("spend.grant")}
      send=${send}
      onDone=${onDone}
      onLeave=${onLeave}
    >
      <${Input} name="amount" label=${t("spend.grant.amount")} hint="50" inputmode="decimal" required />
      <${Input} name="until" label=${t("spend.grant.until")} value="24h" hint="2027-03-01" required />
      <${Input} name="reason" label=${t("access.reason")} maxlength=${LONGEST_REASON} required />
    <//>
  `;
}

/** @param {{bar: Api.SpendBar, onGrant: false | (() => void)}} props */
function Budget({ bar, onGrant }) {
  if (isUnknown(bar)) return html`<${UnknownBudget} bar=${bar} />`;
  const share = /** @param {number} usd */ (usd) =>
    Math.min(100, (usd / Math.max(bar.limit_usd, 1e-9)) * 100);
  const tone = toneOf(bar.percent);
  const isOver = bar.forecast_usd !== null && bar.forecast_usd > bar.limit_usd;
  return html`
    <li class="budget">
      <p class="budget-head">
        <b>${title(bar)}</b>
        <span class="dim">${period(bar)}</span>
        ${
          tone !== "good" &&
          html`<${Badge} tone=${tone}>${t(tone === "bad" ? "spend.reached" : "spend.close")}<//>`
        }
        <span class="budget-sum">
          ${t("spend.of", { spent: as.money(bar.spent_usd), limit: as.money(bar.limit_usd) })}
        </span>
      </p>
      <${Meter} one=${bar} spent=${share(bar.spent_usd)} held=${share(bar.held_usd)} />
      <p class="note budget-foot">
        <span>${as.percent(bar.percent / 100)}</span>
        <span>${t("spend.left", { left: as.money(bar.left_usd) })}</span>
        ${bar.held_usd > 0 && html`<span>${t("spend.held", { held: as.money(bar.held_usd) })}</span>`}
        ${
          bar.resets_at &&
          html`<span>${t("spend.resets", { at: as.moment(Date.parse(bar.resets_at)) })}</span>`
        }
        ${
          bar.forecast_usd !== null &&
          html`
            <span class=${isOver ? "tone-warn" : ""}>
              ${t("spend.forecast", { cost: as.money(bar.forecast_usd) })}
            </span>
          `
        }
        ${
          onGrant &&
          html`
            <button
              type="button"
              class="text-button"
              aria-label=${`${t("spend.grant")}: ${title(bar)}`}
              onClick=${onGrant}
            >
              ${t("spend.grant")}
            </button>
          `
        }
      </p>
    </li>
  `;
}

/**
 * A budget of which the shared state has told nothing since the start: what this replica knows is no sum.
 * @param {{bar: Api.SpendBar}} props
 */
function UnknownBudget({ bar }) {
  return html`
    <li class="budget">
      <p class="budget-head">
        <b>${title(bar)}</b>
        <span class="dim">${period(bar)}</span>
        <${Badge} tone="warn">${t("spend.unknown")}<//>
        <span class="budget-sum">
          ${t("spend.of", { spent: t("spend.unknown"), limit: as.money(bar.limit_usd) })}
        </span>
      </p>
      <p class="note">${t("spend.unknown.why")}</p>
    </li>
  `;
}

/** @param {Api.SpendBar} bar */
const isUnknown = (bar) => bar.shared?.counts === "unknown";

/** @param {Api.SpendBar} bar */
const period = (bar) =>
  [t(`period.${bar.period}`), bar.models, bar.resets_at && bar.zone].filter(Boolean).join(" · ");

/**
 * The subject in words: team core.
 * @param {{subject: string, name: string | null}} bar
 */
function title(bar) {
  const [kind, ...name] = bar.subject.split(":");
  return kind === "org" ? t("spend.by.org") : `${t(`subject.${kind}`)} ${bar.name ?? name.join(":")}`;
}
