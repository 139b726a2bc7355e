// One request in full: where its time went, what it used, how it ended.

import { html, useEffect, useRef, useState } from "../view.js";
import { t } from "../i18n.js";
import * as as from "../format.js";
import { useAnswer } from "../api.js";
import { Bones, Code, Copy, FaultNote, IconButton, Status } from "../parts.js";
import { useProxyAddress } from "../proxy.js";
import { curl } from "../curl.js";
import { later } from "../rows.js";
import { pretty, silence } from "../content.js";

export function Drawer({ id, row: listed, onClose }) {
  const box = useRef(null);
  const [isOver, setOver] = useState(false);
  const { data, fault, reload } = useAnswer(`/requests/${encodeURIComponent(id)}`, null, isOver ? 0 : 1000);
  const base = useProxyAddress();
  // the stream may know more than the last answer, and knows it sooner
  const asked = data?.id === id ? data : null;
  const row = listed && later(asked, listed) === listed ? { ...asked, ...listed } : asked;
  const state = row?.state;

  useEffect(() => {
    const opener = document.activeElement;
    box.current.showModal();
    return () => opener?.focus?.();
  }, []);
  // what has ended, or is no longer held, will not change
  useEffect(() => setOver(asked?.state === "done" || fault?.status === 404), [asked?.state, fault]);
  // the error's content comes only when it has ended
  useEffect(() => {
    if (state === "done" && asked?.state === "pending") reload();
  }, [state]);

  return html`<dialog class="drawer" ref=${box} aria-labelledby="drawer-title" onClose=${onClose} onCancel=${(event) => (event.preventDefault(), onClose())} onClick=${(event) => event.target === box.current && onClose()}>
    <div class="drawer-in">
      <header>
        <h2 id="drawer-title">${row ? html`<b>${row.method}</b> ${row.path}` : t("drawer.title")}</h2>
        <${IconButton} icon="close" label=${t("close")} onClick=${onClose} />
      </header>
      ${!row ? (fault ? html`<${FaultNote} fault=${fault} onRetry=${reload} />` : html`<${Bones} rows=${8} />`) : html`<${Body} row=${row} asked=${asked} base=${base} />`}
    </div>
  </dialog>`;
}

function Body({ row, asked, base }) {
  const error = asked?.error;
  const isPending = row.state === "pending";
  const facts = [
    ["col.time", as.moment(row.at)],
    ["drawer.ended", isPending ? t("state.pending") : ended(row)],
    ["drawer.id", row.id, true],
    ["drawer.upstream_id", row.upstream_request_id, true],
    ["filter.session", row.session, true],
    ["drawer.client", row.client && `${row.client} · HTTP/${row.version}`],
    ["filter.upstream", row.upstream],
    ["drawer.route", row.route],
    ["drawer.edit", row.edit],
    ["drawer.error_type", row.error_type],
  ];
  const generation = [
    ["col.model", row.model],
    ["drawer.stream", row.stream === null ? null : t(row.stream ? "yes" : "no")],
    ["drawer.max_tokens", row.max_tokens === null ? null : as.exact(row.max_tokens)],
    ["drawer.stop", row.stop_reason],
    ["drawer.tools", row.server_tools ? as.exact(row.server_tools) : null],
    ["col.cost", row.cost_usd === null ? (row.tokens ? t("unpriced") : null) : as.money(row.cost_usd)],
  ];
  return html`<div class="drawer-body">
    <p class="drawer-sum"><${Status} row=${row} /><span>${as.duration(isPending ? Math.max(row.duration_ms, Date.now() - row.at) : row.duration_ms)}</span><span class="dim">↑ ${as.bytes(isPending ? row.bytes_in || null : row.bytes_in)}</span><span class="dim">↓ ${as.bytes(isPending ? row.bytes_out || null : row.bytes_out)}</span></p>
    <section><h3>${t("drawer.timing")}</h3><${Waterfall} row=${row} /></section>
    ${error && html`<section><h3>${t("drawer.error")}</h3><${Code} text=${pretty(error.content)} label=${t("drawer.error")} />${error.truncated && html`<p class="note">${t("drawer.truncated")}</p>`}</section>`}
    ${!error && asked?.state === "done" && row.status >= 400 && html`<section><h3>${t("drawer.error")}</h3><p class="note">${silence(row)}</p></section>`}
    ${row.tokens && html`<section><h3>${t("drawer.tokens")}</h3><${Tokens} tokens=${row.tokens} /></section>`}
    ${generation.some(([, value]) => value) && html`<section><h3>${t("drawer.generation")}</h3><${Facts} facts=${generation} /></section>`}
    <section><h3>${t("drawer.exchange")}</h3><${Facts} facts=${facts} /></section>
    <${Fields} title=${t("drawer.request_fields")} fields=${asked?.request_fields} />
    <${Fields} title=${t("drawer.response_fields")} fields=${asked?.response_fields} />
    ${base !== null && html`<p><${Copy} text=${curl(row, base)}>${t("drawer.curl")}<//></p>`}
    <p class="note">${t("drawer.redacted")}</p>
  </div>`;
}

const Facts = ({ facts }) =>
  html`<dl class="pairs">${facts.filter(([, value]) => value).map(([key, value, copies]) => html`<div key=${key}><dt>${t(key)}</dt><dd class=${copies ? "mono copies" : ""}><span>${value}</span>${copies && html`<${Copy} text=${value} label=${`${t("copy")}: ${t(key)}`} />`}</dd></div>`)}</dl>`;

/** Fields as they came, in their order; of some only the name is kept. */
function Fields({ title, fields }) {
  if (!fields?.length) return null;
  return html`<section><h3>${title}</h3><table class="plain fields" aria-label=${title}><tbody>${fields.map(({ name, value }, i) => html`<tr key=${i}><th scope="row" class="mono">${name}</th><td class="mono">${value === null ? html`<span class="badge badge-plain">${t("redacted")}</span>` : value}</td></tr>`)}</tbody></table></section>`;
}

const ended = (row) => (row.ended ? t(`ended.${row.ended.by}`) + (row.ended.by === "complete" ? "" : ` · ${t(`phase.${row.ended.phase}`)}`) + (row.ended.label ? ` · ${row.ended.label}` : "") : null);

/** The phases as `[key, from, to]`, of those moments that are known. */
export function phases(row) {
  const end = row.state === "pending" ? Math.max(row.duration_ms, Date.now() - row.at) : row.duration_ms;
  const list = [];
  let at = 0;
  const until = (key, moment) => {
    if (moment === null || moment === undefined) return;
    list.push([key, at, Math.max(at, moment)]);
    at = Math.max(at, moment);
  };
  if (row.connecting_ms !== null && row.connected_ms !== null) until("queue", row.connected_ms - row.connecting_ms), until("connect", row.connected_ms);
  else until("queue", row.connected_ms);
  until("head", row.head_ms);
  until("ttft", row.ttft_ms);
  until(row.head_ms === null ? "wait" : "rest", end);
  return list;
}

function Waterfall({ row }) {
  const list = phases(row);
  const end = Math.max(list.at(-1)?.[2] ?? 0, 0.001);
  return html`<table class="waterfall">
    <tbody>${list.map(([key, from, to]) => html`<tr key=${key}>
      <th scope="row">${t(`phase.${key}`)}</th>
      <td class="track" aria-hidden="true"><span class=${`span span-${key}`} style=${{ left: `${(from / end) * 100}%`, width: `${Math.max(((to - from) / end) * 100, 0.6)}%` }}></span></td>
      <td class="num">${as.duration(to - from)}</td>
    </tr>`)}</tbody>
  </table>
  <p class="note">${t("phase.overhead")}: ${as.duration(row.overhead_ms)}</p>`;
}

function Tokens({ tokens }) {
  const kinds = ["input", "cache_read", "cache_write_5m", "cache_write_1h", "output"];
  return html`<table class="plain"><tbody>${kinds.filter((kind) => tokens[kind] || kind === "input" || kind === "output").map((kind) => html`<tr key=${kind}><th scope="row">${t(`tokens.${kind}`)}</th><td class="num">${as.exact(tokens[kind])}</td></tr>`)}
    <tr><th scope="row">${t("sum.cache")}</th><td class="num">${as.percent(as.cacheShare(tokens))}</td></tr></tbody></table>`;
}
