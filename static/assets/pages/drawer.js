// One request in full: where its time went, what it used, how it ended.

import { html, useEffect, useLayoutEffect, useRef, useState } from "../view.js";
import { t, word } from "../i18n.js";
import * as as from "../format.js";
import { asFault, ask, refresh, useAnswer, useMay } from "../api.js";
import {
  Bones,
  Code,
  Copy,
  Facts,
  FaultNote,
  Icon,
  IconButton,
  Status,
  costText,
  faultText,
  labelText,
  tokensText,
} from "../parts.js";
import { useProxyAddress } from "../proxy.js";
import { Link } from "../router.js";
import { curl } from "../curl.js";
import { later, spent } from "../rows.js";
import { pretty, silence } from "../content.js";

/** @param {{id: string, row?: Api.Row, onClose: () => void}} props */
export function Drawer({ id, row: listed, onClose }) {
  const box = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const [isOver, setOver] = useState(false);
  const { data, fault, reload } = useAnswer(`/requests/${encodeURIComponent(id)}`, null, isOver ? 0 : 1000);
  const base = useProxyAddress();
  // the stream may know more than the last answer, and knows it sooner
  const asked = data?.id === id ? data : null;
  const row = listed && later(asked, listed) === listed ? { ...asked, ...listed } : asked;
  const state = row?.state;

  const isGone = useRef(false);
  useLayoutEffect(() => {
    const dialog = box.current;
    dialog?.showModal();
    // while it is modal nothing else can have the focus
    return () => ((isGone.current = true), dialog?.close());
  }, []);
  // what has ended, or is no longer held, will not change
  useEffect(() => setOver(asked?.state === "done" || fault?.status === 404), [asked?.state, fault]);
  // the error's content comes only when it has ended
  useEffect(() => {
    if (state === "done" && asked?.state === "pending") reload();
  }, [state]);

  return html`
    <dialog
      class="drawer"
      ref=${box}
      aria-labelledby="drawer-title"
      onClose=${() => isGone.current || onClose()}
      onCancel=${(event) => (event.preventDefault(), onClose())}
      onClick=${(event) => event.target === event.currentTarget && onClose()}
    >
      <div class="drawer-in">
        <header>
          <h2 id="drawer-title">
            ${row ? html`<b>${row.method}</b> ${row.path}` : t("drawer.title")}
          </h2>
          <${IconButton} icon="close" label=${t("close")} onClick=${onClose} />
        </header>
        ${
          !row
            ? fault
              ? html`<${FaultNote} fault=${fault} onRetry=${reload} />`
              : html`<${Bones} rows=${8} />`
            : html`<${Body} key=${id} row=${row} asked=${asked} base=${base} />`
        }
      </div>
    </dialog>
  `;
}

/** @param {{row: Api.Row, asked: Api.Detail | null, base: string | null}} props */
function Body({ row, asked, base }) {
  const error = asked?.error;
  const isPending = row.state === "pending";
  const mayEnd = useMay("operator");
  /** @type {Page.Fact[]} */
  const facts = [
    ["col.time", as.moment(row.at)],
    ["drawer.ended", isPending ? t("state.pending") : ended(row)],
    ["drawer.id", row.id, true],
    ["drawer.upstream_id", row.upstream_request_id, true],
    ["filter.session", row.session, true],
    ["col.agent", row.agent],
    ["col.key", row.key && (row.key_name ? `${row.key_name} · ${row.key}` : row.key)],
    ["col.user", row.user],
    ["col.team", row.team],
    ["drawer.client", row.client && `${row.client} · HTTP/${row.version}`],
    ["filter.user_agent", row.user_agent, true],
    ["filter.upstream", row.upstream],
    ["drawer.route", row.route && word(`route.${row.route}`, row.route)],
    ["drawer.edit", row.edit && word(`edit.${row.edit}`, row.edit)],
    ["drawer.verify", row.verify && t(`verify.${row.verify}`)],
    ["drawer.sha_request", asked?.verified?.request?.sent.sha256, true],
    ["drawer.sha_response", asked?.verified?.response?.sent.sha256, true],
    ["drawer.error_type", row.error_type],
  ];
  /** @type {Page.Fact[]} */
  const generation = [
    ["col.model", row.model],
    ["drawer.stream", row.stream === null ? null : t(row.stream ? "yes" : "no")],
    ["drawer.max_tokens", row.max_tokens === null ? null : as.exact(row.max_tokens)],
    ["drawer.stop", row.stop_reason],
    ["drawer.events", row.output_events === null ? null : as.exact(row.output_events)],
    ["drawer.geo", row.inference_geo],
    ["drawer.speed", row.speed],
    ["drawer.tier", row.service_tier],
    [
      "drawer.metering",
      row.metering_failure && word(`metering.${row.metering_failure}`, row.metering_failure),
    ],
    ["drawer.tools", row.server_tools ? as.exact(row.server_tools) : null],
    ["col.cost", row.cost_usd === null ? (row.tokens && !isPending ? t("unpriced") : null) : costText(row)],
    [
      "cost.estimated",
      row.estimate &&
        t("tokens.n", { n: as.exact(row.estimate.output) }) +
          (row.estimate.cost_usd === null ? "" : ` · ≈ ${as.money(row.estimate.cost_usd)}`),
    ],
  ];
  return html`
    <div class="drawer-body">
      <p class="drawer-sum">
        <${Status} row=${row} />
        <span>
          ${as.duration(spent(row))}
        </span>
        <span class="dim">↑ ${as.bytes(row.bytes_in)}</span>
        <span class="dim">↓ ${as.bytes(row.bytes_out)}</span>
        ${isPending && row.tokens && html`<span class="dim">${tokensText(row)}</span>`}
      </p>
      ${isPending && mayEnd && html`<${End} row=${row} />`}
      ${row.at_least && html`<p class="note">${t("cost.floor.row")}</p>`}
      <section>
        <h3>${t("drawer.timing")}</h3>
        <${Waterfall} row=${row} />
      </section>
      ${
        error &&
        html`
          <section>
            <h3>${t("drawer.error")}</h3>
            <${Code} text=${pretty(error.content)} label=${t("drawer.error")} />
            ${error.truncated && html`<p class="note">${t("drawer.truncated")}</p>`}
          </section>
        `
      }
      ${
        !error &&
        asked?.state === "done" &&
        ((row.status ?? 0) >= 400 || (row.result === "failed" && row.error_type)) &&
        html`
          <section>
            <h3>${t("drawer.error")}</h3>
            <p class="note">${silence(row)}</p>
          </section>
        `
      }
      ${
        row.tokens &&
        html`
          <section>
            <h3>${t("drawer.tokens")}</h3>
            <${Tokens}
              row=${row}
              tokens=${
                isPending
                  ? { ...row.tokens, output: Math.max(row.tokens.output, row.output_events ?? 0) }
                  : row.tokens
              }
            />
          </section>
        `
      }
      ${
        row.other_models.length > 0 &&
        html`
          <section>
            <h3>${t("drawer.other_models")}</h3>
            ${row.other_models.map(
              (other, i) => html`
                <div key=${i}>
                  <p class="note">
                    <code>${other.model}</code> ·${" "}
                    ${other.cost_usd === null ? t("unpriced") : as.money(other.cost_usd)}
                  </p>
                  <${Tokens} tokens=${other.tokens} />
                </div>
              `,
            )}
          </section>
        `
      }
      ${
        generation.some(([, value]) => value) &&
        html`
          <section>
            <h3>${t("drawer.generation")}</h3>
            <${Facts} facts=${generation} />
          </section>
        `
      }
      <section>
        <h3>${t("drawer.exchange")}</h3>
        <${Facts} facts=${facts} />
        ${
          row.session &&
          html`
            <p>
              <${Link} to="sessions" query=${{ id: row.session, key: row.key }}>
                ${t("drawer.session")}
              <//>
            </p>
          `
        }
      </section>
      <${Fields} title=${t("drawer.request_fields")} fields=${asked?.request_fields} />
      <${Fields} title=${t("drawer.response_fields")} fields=${asked?.response_fields} />
      ${
        base !== null &&
        html`
          <p>
            <${Copy} text=${curl(row, base)}>${t("drawer.curl")}<//>
          </p>
        `
      }
      <p class="note">${t("drawer.redacted")}</p>
    </div>
  `;
}

// the server takes no longer reason
const LONGEST_REASON = 200;

/**
 * Ends a request in flight: asked for, confirmed, and told to the log with its reason.
 * @param {{row: Api.Row}} props
 */
function End({ row }) {
  // "asked": the operator is to confirm; "sent": the proxy was told
  const [step, setStep] = useState(/** @type {"asked" | "sent" | null} */ (null));
  const [fault, setFault] = useState(/** @type {Page.Fault | null} */ (null));
  const button = useRef(/** @type {HTMLElement | null} */ (null));
  const reason = useRef(/** @type {HTMLInputElement | null} */ (null));
  useEffect(() => void (step === "asked" && reason.current?.focus()), [step]);
  const back = () => (setStep(null), setFault(null), setTimeout(() => button.current?.focus()));
  /** @param {Page.FieldEvent} event */
  const end = async (event) => {
    event.preventDefault();
    setFault(null);
    try {
      const why = reason.current?.value.trim();
      await ask(`/requests/${encodeURIComponent(row.id)}/end`, {
        method: "POST",
        body: why ? { reason: why } : {},
      });
      setStep("sent");
      refresh();
    } catch (error) {
      setFault(asFault(error));
    }
  };
  if (row.ending || step === "sent")
    return html`
      <p class="notice" role="status">
        <${Icon} name="info" />
        <span>${t("end.sent")}</span>
      </p>
    `;
  if (step === null)
    return html`
      <p>
        <button type="button" class="button danger" ref=${button} onClick=${() => setStep("asked")}>
          <${Icon} name="close" />
          ${t("end.open")}
        </button>
      </p>
    `;
  // Escape leaves the question, not the request
  /** @param {Page.FieldEvent} event */
  const leave = (event) =>
    event.key === "Escape" && (event.preventDefault(), event.stopPropagation(), back());
  return html`
    <form class="end" onSubmit=${end} onKeyDown=${leave} aria-label=${t("end.title")}>
      <p>${t("end.what")}</p>
      <label class="field">
        <span>${t("end.reason")}</span>
        <input id="end-reason" ref=${reason} maxlength=${LONGEST_REASON} autocomplete="off" />
      </label>
      ${
        fault &&
        html`
          <p class="field-fault" role="alert">
            ${fault.status === 404 ? t("fault.too_late") : faultText(fault)}
          </p>
        `
      }
      <p class="end-buttons">
        <button type="submit" class="button danger">
          ${t("end.do")}
        </button>
        <button type="button" class="button" onClick=${back}>
          ${t("cancel")}
        </button>
      </p>
    </form>
  `;
}

/**
 * Fields as they came, in their order; of some only the name is kept.
 * @param {{title: string, fields?: Api.Field[]}} props
 */
function Fields({ title, fields }) {
  if (!fields?.length) return null;
  return html`
    <section>
      <h3>${title}</h3>
      <table class="plain fields" aria-label=${title}>
        <tbody>
          ${fields.map(
            ({ name, value }, i) => html`
              <tr key=${i}>
                <th scope="row" class="mono">
                  ${name}
                </th>
                <td class="mono">
                  ${value === null ? html`<span class="badge badge-plain">${t("redacted")}</span>` : value}
                </td>
              </tr>
            `,
          )}
        </tbody>
      </table>
    </section>
  `;
}

/** @param {Api.Row} row */
const ended = (row) =>
  row.ended
    ? (row.ended.by === "proxy" && row.ended.phase === "response"
        ? t("ended.proxy.response")
        : t(`ended.${row.ended.by}`)) +
      (row.ended.by === "complete" ? "" : ` · ${t(`phase.${row.ended.phase}`)}`) +
      (row.ended.label ? ` · ${labelText(row.ended.label)}` : "")
    : null;

/**
 * The phases as `[key, from, to]`, of those moments that are known.
 * @param {Api.Row} row
 * @returns {[string, number, number][]}
 */
export function phases(row) {
  const end = spent(row);
  /** @type {[string, number, number][]} */
  const list = [];
  let at = 0;
  /** @type {(key: string, moment: number | null) => void} */
  const until = (key, moment) => {
    if (moment === null || moment === undefined) return;
    list.push([key, at, Math.max(at, moment)]);
    at = Math.max(at, moment);
  };
  if (row.connecting_ms !== null && row.connected_ms !== null)
    (until("queue", row.connected_ms - row.connecting_ms), until("connect", row.connected_ms));
  else until("queue", row.connected_ms);
  until("head", row.head_ms);
  until("ttft", row.ttft_ms);
  until(row.head_ms === null ? "wait" : "rest", end);
  return list;
}

/** @param {{row: Api.Row}} props */
function Waterfall({ row }) {
  const list = phases(row);
  const end = Math.max(list.at(-1)?.[2] ?? 0, 0.001);
  return html`
    <table class="waterfall">
      <tbody>
        ${list.map(
          ([key, from, to]) => html`
            <tr key=${key}>
              <th scope="row">${t(`phase.${key}`)}</th>
              <td class="track" aria-hidden="true">
                <span
                  class=${`span span-${key}`}
                  style=${{
                    left: `${(from / end) * 100}%`,
                    width: `${Math.max(((to - from) / end) * 100, 0.6)}%`,
                  }}
                ></span>
              </td>
              <td class="num">${as.duration(to - from)}</td>
            </tr>
          `,
        )}
      </tbody>
    </table>
    <p class="note">
      ${t("phase.overhead")}: ${as.duration(row.overhead_ms)}
    </p>
  `;
}

/** @param {{row?: Api.Row, tokens: Api.Tokens}} props */
function Tokens({ row, tokens }) {
  /** @type {(keyof Api.Tokens)[]} */
  const kinds = ["input", "cache_read", "cache_write_5m", "cache_write_1h", "output"];
  return html`
    <table class="plain">
      <tbody>
        ${kinds
          .filter((kind) => tokens[kind] || kind === "input" || kind === "output")
          .map(
            (kind) => html`
              <tr key=${kind}>
                <th scope="row">${t(`tokens.${kind}`)}</th>
                <td class="num">
                  ${as.atLeast(
                    as.exact(tokens[kind]),
                    kind === "output" && row && (row.at_least || row.state === "pending"),
                  )}
                </td>
              </tr>
            `,
          )}
        <tr>
          <th scope="row">${t("sum.cache")}</th>
          <td class="num">${as.percent(as.cacheShare(tokens))}</td>
        </tr>
      </tbody>
    </table>
  `;
}
