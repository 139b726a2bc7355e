// Changes that operators made, or tried to make, and whether the chain of these lines is whole.

import { html, useState } from "../view.js";
import { t, word } from "../i18n.js";
import * as as from "../format.js";
import { asFault, ask, useAnswer } from "../api.js";
import { oneOf, setQuery } from "../router.js";
import { Badge, Bones, Card, Code, Empty, FaultNote, Icon, RangeChoice } from "../parts.js";

/** @type {Record<string, number>} */
const SPANS = { "24h": 1, "7d": 7, "30d": 30, "365d": 365 };
const DAY = 86_400_000;
const LINES = 500;

/** @param {{query: URLSearchParams}} props */
export default function Audit({ query }) {
  const range = oneOf(Object.keys(SPANS), query.get("range"), "7d");
  const [actor, action] = [query.get("actor") ?? "", query.get("action") ?? ""];
  const target = query.get("target") ?? "";
  const since = new Date(Math.floor(Date.now() / 60_000) * 60_000 - SPANS[range] * DAY).toISOString();
  const asked = { actor, action, target, since, limit: LINES };
  const { data, fault, isStale, reload } = useAnswer("/audit", asked, 15_000);
  const lines = [...(data?.items ?? [])].reverse();
  /** @type {(name: string) => (event: Page.FieldEvent) => void} */
  const type = (name) => (event) => setQuery({ [name]: event.target.value });
  return html`
    <div class="bar">
      <div class="bar">
        ${Object.entries({ actor, action, target }).map(
          ([name, value]) => html`
            <label key=${name} class="field">
              <span>${t(`audit.${name}`)}</span>
              <input
                type="search"
                value=${value}
                onChange=${type(name)}
                maxlength="128"
                spellcheck="false"
                placeholder=${name === "action" ? "key.create" : name === "target" ? "team:core" : ""}
              />
            </label>
          `,
        )}
      </div>
      <${RangeChoice}
        ranges=${Object.keys(SPANS)}
        value=${range}
        onChoose=${/** @param {string} value */ (value) => setQuery({ range: value === "7d" ? null : value })}
      />
    </div>
    <${FaultNote} fault=${fault} onRetry=${reload} />
    <${Verify} />
    <div class=${"stack" + (isStale ? " stale" : "")}>
      <${Card} title=${t("nav.audit")} note=${t("audit.note")} flush>
        ${
          !data
            ? !fault && html`<${Bones} />`
            : !lines.length
              ? html`<${Empty} title=${t("audit.empty")} />`
              : html`
                <ul class="audit">
                  ${lines.map((line) => html`<${Line} key=${`${line.replica} ${line.seq}`} line=${line} />`)}
                </ul>
              `
        }
      <//>
    </div>
  `;
}

/** @param {{line: Api.AuditLine}} props */
function Line({ line }) {
  const [result] = line.result.split(":");
  const why = line.result.slice(result.length + 1).trim();
  const tone = { done: "good", intent: "plain", refused: "warn", failed: "bad" }[result] ?? "plain";
  const { actor } = line;
  const has = line.before !== null || line.after !== null;
  return html`
    <li class="audit-line">
      <time class="dim" dateTime=${line.at}>${as.when(Date.parse(line.at))}</time>
      <span>
        <b class="mono">${line.action}</b> <span class="mono">${line.target.id}</span>
        ${line.reason && html` <span class="dim">“${line.reason}”</span>`}
      </span>
      <span class="dim">
        ${word(`actor.${actor.type}`, actor.type)} ${actor.id}${actor.ip ? ` · ${actor.ip}` : ""}
      </span>
      <${Badge} tone=${tone}>${word(`audit.result.${result}`, line.result)}<//>
      <span class="dim mono">#${line.seq}</span>
      ${why && html`<span class="audit-why dim">${why}</span>`}
      ${
        has &&
        html`
          <details>
            <summary>${t("audit.what")}</summary>
            <${Code} text=${changes(line)} label=${t("audit.what")} />
          </details>
        `
      }
    </li>
  `;
}

/**
 * Both states, laid out to be read.
 * @param {Api.AuditLine} line
 */
const changes = ({ before, after }) => JSON.stringify({ before, after }, null, 2);

/** Recomputes the chain, when asked. */
function Verify() {
  const [state, setState] = useState(/** @type {Api.AuditVerified | "busy" | null} */ (null));
  const [fault, setFault] = useState(/** @type {Page.Fault | null} */ (null));
  const run = async () => {
    setFault(null);
    setState("busy");
    try {
      setState(await ask("/audit/verify"));
    } catch (error) {
      setState(null);
      setFault(asFault(error));
    }
  };
  const done = state === "busy" ? null : state;
  const broken = done?.chains.find((chain) => chain.broken);
  const tone = !done?.ok ? "bad" : done.unanchored ? "warn" : "good";
  const lines = done?.chains.reduce((sum, chain) => sum + chain.last - chain.first + 1, 0) ?? 0;
  return html`
    <${FaultNote} fault=${fault} />
    <p class="test">
      <button type="button" class="button" onClick=${run} disabled=${state === "busy"}>
        ${t("audit.verify")}
      </button>
      <span role="status" class=${done ? `tone-${tone}` : ""}>
        ${done && html`<${Icon} name=${tone === "good" ? "check" : "errors"} />`}
        ${
          done &&
          (done.ok
            ? t("audit.whole", { n: as.exact(Math.max(0, lines)) })
            : t("audit.broken", { chain: broken?.chain ?? "–", seq: broken?.broken?.seq ?? 0 }))
        }
        ${done?.unanchored && ` ${t("audit.unanchored")}`}
      </span>
    </p>
  `;
}
