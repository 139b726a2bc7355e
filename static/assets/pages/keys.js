// Keys: list, create (shown once), rotate, revoke.

import { html, useEffect, useRef, useState } from "../view.js";
import { t, word } from "../i18n.js";
import * as as from "../format.js";
import { ask, refresh, useAnswer, useMay } from "../api.js";
import { setQuery } from "../router.js";
import { useProxyAddress } from "../proxy.js";
import { zone } from "../zone.js";
import { Badge, Bones, Card, Code, Empty, FaultNote, Icon, Select, Table } from "../parts.js";
import { Ask, Input, LONGEST_REASON } from "../form.js";

const ROWS = 200;
const LONGEST = 128;
/** @type {Record<string, Page.Tone>} */
const TONES = { active: "good", expired: "warn", revoked: "bad" };
const PERIODS = ["day", "week", "month", "total"];
const LIVES = ["", "30d", "90d", "365d"];
const OVERLAPS = ["0s", "1h", "24h", "168h"];

const ROTATE = /** @type {const} */ ("rotate");
const REVOKE = /** @type {const} */ ("revoke");

/** @typedef {{key: Api.Key, what: "rotate" | "revoke"}} Question */

/** @param {{query: URLSearchParams}} props */
export default function Keys({ query }) {
  const q = query.get("q") ?? "";
  const after = query.get("after");
  const { data, fault, reload } = useAnswer("/keys", { q, after, limit: ROWS }, 15_000);
  const mayCreate = useMay("admin");
  const [isNew, setNew] = useState(false);
  const [question, setQuestion] = useState(/** @type {Question | null} */ (null));
  const [made, setMade] = useState(/** @type {Api.CreatedKey | null} */ (null));
  /** @param {Api.CreatedKey | null} key */
  const done = (key) => (setNew(false), setQuestion(null), setMade(key), refresh());
  return html`
    <div class="bar">
      <label class="field field-q">
        <span>${t("filter.q")}</span>
        <input
          type="search"
          value=${q}
          onChange=${
            /** @param {Page.FieldEvent} event */ (event) => setQuery({ q: event.target.value, after: null })
          }
          maxlength=${LONGEST}
          placeholder=${t("access.q.hint")}
          spellcheck="false"
        />
      </label>
      ${
        mayCreate &&
        html`
          <button
            type="button"
            class="button primary"
            aria-expanded=${String(isNew)}
            onClick=${() => setNew(!isNew)}
          >
            ${t("access.new")}
          </button>
        `
      }
    </div>
    <${FaultNote} fault=${fault} onRetry=${reload} />
    <div class="stack">
      ${made?.key && html`<${Once} made=${made} onClose=${() => setMade(null)} />`}
      ${mayCreate && isNew && html`<${Create} onDone=${done} onLeave=${() => setNew(false)} />`}
      ${
        question &&
        html`
          <${question.what === "rotate" ? Rotate : Revoke}
            key=${question.key.id + question.what}
            one=${question.key}
            onDone=${done}
            onLeave=${() => setQuestion(null)}
          />
        `
      }
      <${Card} title=${t("nav.keys")} note=${data && t("access.count", { n: as.exact(data.total) })} flush>
        ${
          !data
            ? !fault && html`<${Bones} />`
            : !data.items.length
              ? html`<${Empty} title=${t("access.empty")}>${t("access.empty.why")}<//>`
              : html`<${Rows} rows=${data.items} onAsk=${setQuestion} />`
        }
        ${
          (after || data?.next_after) &&
          html`
            <p class="rest">
              ${
                after &&
                html`
                  <button type="button" class="button" onClick=${() => setQuery({ after: null })}>
                    ${t("page.first")}
                  </button>
                `
              }
              ${" "}
              ${
                data?.next_after &&
                html`
                  <button
                    type="button"
                    class="button"
                    onClick=${() => setQuery({ after: data.next_after }, { push: true })}
                  >
                    ${t("page.next")}
                  </button>
                `
              }
            </p>
          `
        }
      <//>
    </div>
  `;
}

/** @param {{rows: Api.Key[], onAsk: (question: Question) => void}} props */
function Rows({ rows, onAsk }) {
  const [mayRotate, mayRevoke] = [useMay("admin"), useMay("operator")];
  /** @type {Question["what"][]} */
  const actions = [...(mayRotate ? [ROTATE] : []), ...(mayRevoke ? [REVOKE] : [])];
  return html`
    <${Table}
      label=${t("nav.keys")}
      head=${[
        [t("access.name")],
        [t("col.status")],
        [t("col.who")],
        [t("access.limits")],
        [t("access.models")],
        [t("access.used")],
        [t("access.expires")],
        ...(actions.length ? [[t("access.do"), "num"]] : []),
      ]}
    >
      ${rows.map(
        (one) => html`
          <tr key=${one.id}>
            <th scope="row">
              <span>${one.name}</span>
              <span class="note mono key-id">
                ${one.id} ${one.last4.map((last) => `…${last}`).join(" ")}
              </span>
            </th>
            <td>
              <${Badge} tone=${TONES[one.state] ?? "plain"}>
                ${word(`access.state.${one.state}`, one.state)}
              <//>
              ${one.revoked_reason && html` <span class="note">${one.revoked_reason}</span>`}
            </td>
            <td>${[one.user, one.team].filter(Boolean).join(" · ") || "–"}</td>
            <td class="wide named">${one.limits.map(limit).join(t("list.comma")) || "–"}</td>
            <td class="mono wide named">${one.models.join(", ") || t("filter.any")}</td>
            <td>${one.last_used_at ? as.when(Date.parse(one.last_used_at)) : "–"}</td>
            <td>${one.expires_at ? as.date(Date.parse(one.expires_at)) : "–"}</td>
            ${
              actions.length > 0 &&
              html`
                <td class="num named">
                  ${
                    one.state !== "revoked" &&
                    actions.map(
                      (what) => html`
                        <button
                          key=${what}
                          type="button"
                          class="text-button"
                          aria-label=${`${t(`access.${what}`)}: ${one.name}`}
                          onClick=${() => onAsk({ key: one, what })}
                        >
                          ${t(`access.${what}`)}
                        </button>
                      `,
                    )
                  }
                </td>
              `
            }
          </tr>
        `,
      )}
    <//>
  `;
}

/**
 * A limit in words.
 * @param {Api.Limit} one
 */
function limit(one) {
  const models = one.models ? ` · ${one.models}` : "";
  return one.kind === "spend"
    ? `${as.money(one.amount_usd)} ${t(`period.${one.period ?? "total"}`)}${models}`
    : t(`limit.${one.kind}`, { n: as.count(one.amount) }) + models;
}

/**
 * A key that is shown this once, with what Claude Code needs of it.
 * @param {{made: Api.CreatedKey, onClose: () => void}} props
 */
function Once({ made, onClose }) {
  const base = useProxyAddress();
  const head = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => void head.current?.focus(), [made]);
  const key = made.key ?? "";
  const url = base ?? "http://127.0.0.1:8088";
  const shell = `export ANTHROPIC_BASE_URL=${url}\nexport ANTHROPIC_AUTH_TOKEN=${key}\nclaude`;
  const settings = JSON.stringify({ env: { ANTHROPIC_BASE_URL: url, ANTHROPIC_AUTH_TOKEN: key } }, null, 2);
  return html`
    <section class="card once" aria-labelledby="once-title">
      <header>
        <h2 id="once-title" tabindex="-1" ref=${head}>${t("access.once", { name: made.name })}</h2>
      </header>
      <div class="notice notice-warn">
        <${Icon} name="info" />
        <p>${t("access.once.why")}</p>
      </div>
      <${Code} text=${key} label=${t("col.key")} />
      <h3>${t("connect.shell")}</h3>
      <${Code} text=${shell} label=${t("connect.shell")} />
      <h3>${t("connect.settings")}</h3>
      <${Code} text=${settings} label=${t("connect.settings")} />
      ${made.warnings.map((text) => html`<p key=${text} class="note text-bad">${text}</p>`)}
      <p>
        <button type="button" class="button" onClick=${onClose}>${t("access.once.close")}</button>
      </p>
    </section>
  `;
}

/** @param {{onDone: (key: Api.CreatedKey | null) => void, onLeave: () => void}} props */
function Create({ onDone, onLeave }) {
  /**
   * @param {FormData} fields
   * @returns {Promise<Api.CreatedKey>}
   */
  const create = (fields) => ask(/** @type {`/keys/`} */ ("/keys"), { method: "POST", body: newKey(fields) });
  return html`
    <${Ask}
      title=${t("access.new")}
      label=${t("access.create")}
      send=${create}
      onDone=${onDone}
      onLeave=${onLeave}
    >
      <${Input} name="name" label=${t("access.name")} maxlength=${LONGEST} required />
      <${Input} name="user" label=${t("col.user")} maxlength=${LONGEST} />
      <${Input} name="team" label=${t("col.team")} maxlength=${LONGEST} />
      <${Select}
        name="expires"
        label=${t("access.expires")}
        value=""
        options=${LIVES.map((life) => [life, life ? t(`range.${life}`) : t("access.never")])}
      />
      <${Input} name="budget" label=${t("access.budget")} type="number" min="0" step="any" />
      <${Select}
        name="period"
        label=${t("access.period")}
        value="month"
        options=${PERIODS.map((period) => [period, t(`period.${period}`)])}
      />
      <${Input} name="zone" label=${t("access.zone")} value=${zone()} />
      <${Input} name="rpm" label=${t("access.rpm")} type="number" min="0" step="1" />
      <${Input} name="streams" label=${t("access.streams")} type="number" min="1" step="1" />
      <${Input} name="models" label=${t("access.models")} hint="claude-sonnet-*, claude-haiku-*" />
      <${Input} name="sources" label=${t("access.sources")} hint="10.0.0.0/8" />
    <//>
  `;
}

/**
 * The key that a form describes. What is not said is left out.
 * @param {FormData} fields
 */
function newKey(fields) {
  /** @param {string} name */
  const text = (name) => String(fields.get(name) ?? "").trim();
  /** @param {string} name */
  const list = (name) =>
    text(name)
      .split(",")
      .map((part) => part.trim())
      .filter(Boolean);
  /** @type {object[]} */
  const limits = [];
  if (text("budget")) {
    const period = text("period");
    const budget = { kind: "spend", amount_usd: Number(text("budget")), period };
    limits.push(period === "total" || !text("zone") ? budget : { ...budget, zone: text("zone") });
  }
  if (text("rpm")) limits.push({ kind: "requests_per_minute", amount: Number(text("rpm")) });
  if (text("streams")) limits.push({ kind: "at_once", amount: Number(text("streams")) });
  const said = ["user", "team", "expires"].flatMap((name) => (text(name) ? [[name, text(name)]] : []));
  return {
    name: text("name"),
    ...Object.fromEntries(said),
    models: list("models"),
    sources: list("sources"),
    limits,
  };
}

/** @param {{one: Api.Key, onDone: (key: Api.CreatedKey | null) => void, onLeave: () => void}} props */
function Rotate({ one, onDone, onLeave }) {
  /** @param {FormData} fields */
  const send = (fields) =>
    ask(`/keys/${one.id}/rotate`, { method: "POST", body: { overlap: String(fields.get("overlap")) } });
  return html`
    <${Ask}
      title=${`${t("access.rotate")}: ${one.name}`}
      what=${t("access.rotate.what")}
      label=${t("access.rotate")}
      send=${send}
      onDone=${onDone}
      onLeave=${onLeave}
    >
      <${Select}
        name="overlap"
        label=${t("access.overlap")}
        value="24h"
        options=${OVERLAPS.map((span) => [span, t(`access.overlap.${span}`)])}
      />
    <//>
  `;
}

/** @param {{one: Api.Key, onDone: (key: Api.CreatedKey | null) => void, onLeave: () => void}} props */
function Revoke({ one, onDone, onLeave }) {
  /** @param {FormData} fields */
  const send = async (fields) => {
    const body = { reason: String(fields.get("reason")).trim(), cut: fields.get("cut") === "on" };
    await ask(`/keys/${one.id}/revoke`, { method: "POST", body });
    return null;
  };
  return html`
    <${Ask}
      title=${`${t("access.revoke")}: ${one.name}`}
      what=${t("access.revoke.what")}
      label=${t("access.revoke")}
      isDanger
      send=${send}
      onDone=${onDone}
      onLeave=${onLeave}
    >
      <${Input} name="reason" label=${t("access.reason")} maxlength=${LONGEST_REASON} required />
      <label class="check">
        <input type="checkbox" name="cut" /> ${t("access.cut")}
      </label>
    <//>
  `;
}
