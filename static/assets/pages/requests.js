// Every request as it comes: a list of any length of which only what is seen is drawn.

import { html, useCallback, useCell, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../view.js";
import { t } from "../i18n.js";
import * as as from "../format.js";
import { ask, refreshes, updated } from "../api.js";
import { tick } from "../live.js";
import { setQuery } from "../router.js";
import { Bones, Empty, FaultNote, Icon, Status } from "../parts.js";
import { Drawer } from "./drawer.js";

const PAGE = 200;
// the server's ring: more is never held
const MOST = 5000;
const FILTERS = ["status", "method", "path", "model", "session", "upstream", "q"];
const STATES = ["2xx", "4xx", "5xx", "pending", "aborted"];
// the server refuses a longer one
const LONGEST = 256;
const narrow = matchMedia("(max-width: 760px)");

/** Pending ones first, newest first: the server's order. */
const order = (a, b) => (b.state === "pending") - (a.state === "pending") || b.seq - a.seq;

/** Whether a row of the stream belongs to what is asked for; the server's rules. */
function matches(row, filters) {
  const has = (name, value) => !filters[name] || (value ?? "").toLowerCase().includes(filters[name].toLowerCase());
  const { status } = filters;
  const isState =
    !status ||
    (status === "pending" ? row.state === "pending"
    : status === "aborted" ? row.state === "done" && row.ended && (row.ended.by === "client" || row.ended.by === "upstream")
    : row.state === "done" && row.status !== null && `${Math.floor(row.status / 100)}xx` === status);
  // of a pending one neither model nor upstream is known to the server
  const names = row.state === "pending" && (filters.model || filters.upstream) ? [] : ["path", "model", "session", "upstream"];
  return isState && names.length > 0 && names.every((name) => has(name, row[name])) &&
    (!filters.method || filters.method.toUpperCase() === row.method.toUpperCase()) &&
    has("q", [row.id, row.path, row.session, row.client, row.upstream_request_id, row.upstream, row.ended?.label, row.model, row.error_type].filter(Boolean).join("\n"));
}

export default function Requests({ query }) {
  const filters = {};
  for (const name of FILTERS) filters[name] = query.get(name) ?? "";
  const asked = JSON.stringify(filters);
  const [isPaused, setPaused] = useState(false);
  const list = useList(filters, asked, isPaused);
  const id = query.get("id");
  const items = list.items;
  const open = useCallback((row) => setQuery({ id: row?.id ?? null }), []);
  const isFiltered = FILTERS.some((name) => filters[name]);

  useEffect(() => {
    const press = (event) => {
      if (event.metaKey || event.ctrlKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
      const at = items.findIndex((row) => row.id === id);
      const go = (to) => items[to] && (event.preventDefault(), open(items[to]));
      if (event.key === "j") go(at + 1);
      else if (event.key === "k") go(at < 0 ? 0 : at - 1);
      else if (event.key === "p") setPaused((was) => !was);
      else if (event.key === "/" && !id) event.preventDefault(), document.getElementById("filter-q")?.focus();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [items, id, open]);

  return html`<div class="requests">
    <${Filters} filters=${filters} />
    <div class="list-bar">
      <span class="note">${t("requests.count", { shown: as.exact(items.length), total: as.exact(Math.max(list.total ?? items.length, items.length)) })}</span>
      <button type="button" class="button" aria-pressed=${String(isPaused)} onClick=${() => setPaused(!isPaused)}>
        <${Icon} name=${isPaused ? "play" : "pause"} />${isPaused ? (list.waiting ? t("requests.resume.n", { n: list.waiting }) : t("requests.resume")) : t("requests.pause")}
      </button>
      ${isFiltered && html`<button type="button" class="text-button" onClick=${() => setQuery(Object.fromEntries(FILTERS.map((name) => [name, null])))}>${t("requests.clear")}</button>`}
      <span class="keys note"><kbd>j</kbd> <kbd>k</kbd> ${t("keys.walk")} <kbd>p</kbd> ${t("keys.pause")} <kbd>/</kbd> ${t("keys.search")}</span>
    </div>
    <${FaultNote} fault=${list.fault} onRetry=${list.reload} />
    ${list.isFirst ? html`<${Bones} rows=${12} />` : !items.length ? !list.fault && html`<${Empty} title=${t(isFiltered ? "requests.none" : "requests.empty")}>${t(isFiltered ? "requests.none.why" : "requests.empty.why")}<//>` : html`<${Grid} items=${items} selected=${id} onOpen=${open} onEnd=${list.more} />`}
    ${id && html`<${Drawer} id=${id} row=${items.find((row) => row.id === id)} onClose=${() => open(null)} />`}
  </div>`;
}

/** The rows: what the server lists, and what the stream tells since. */
function useList(filters, asked, isPaused) {
  const rows = useRef(new Map());
  const [view, setView] = useState({ items: [], next: null, total: null, fault: null, isFirst: true });
  const waiting = useRef(new Map());
  const running = useRef(null);
  const last = useCell(tick);
  const refreshed = useCell(refreshes);

  const show = useCallback((changes) => {
    const items = [...rows.current.values()].sort(order);
    for (const row of items.splice(MOST)) rows.current.delete(row.seq);
    setView((was) => ({ ...was, ...changes, items }));
  }, []);

  const load = useCallback(async (before) => {
    running.current?.abort();
    const controller = (running.current = new AbortController());
    try {
      const page = await ask("/requests", { query: { ...JSON.parse(asked), limit: PAGE, before }, signal: controller.signal });
      if (!before) rows.current = new Map();
      for (const row of page.items) rows.current.set(row.seq, row);
      running.current = null;
      updated.set(Date.now());
      show({ next: page.next_before, total: page.total, fault: null, isFirst: false });
    } catch (fault) {
      if (fault.name === "AbortError") return;
      running.current = null;
      show({ fault, isFirst: false });
    }
  }, [asked, show]);

  useEffect(() => {
    waiting.current.clear();
    load();
    return () => running.current?.abort();
  }, [load, refreshed]);

  const take = (news) => {
    let isNew = 0;
    for (const row of news) {
      if (matches(row, filters)) isNew += !rows.current.has(row.seq), rows.current.set(row.seq, row);
      else rows.current.delete(row.seq);
    }
    setView((was) => ({ ...was, total: was.total === null ? null : was.total + isNew }));
    show({});
  };

  useEffect(() => {
    if (!last) return;
    if (isPaused) {
      for (const row of last.rows) waiting.current.set(row.seq, row);
      show({});
    } else if (last.dropped) {
      // more changed than the stream tells: ask for the list itself
      if (!running.current) load();
    } else if (last.rows.length) take(last.rows);
  }, [last]);

  useEffect(() => {
    if (isPaused) return;
    const news = [...waiting.current.values()];
    waiting.current.clear();
    if (news.length) take(news);
  }, [isPaused]);

  const fresh = isPaused ? [...waiting.current.values()].filter((row) => !rows.current.has(row.seq) && matches(row, filters)).length : 0;
  return { ...view, waiting: fresh, reload: () => load(), more: () => view.next && !running.current && rows.current.size < MOST && load(view.next) };
}

function Filters({ filters }) {
  const timer = useRef(0);
  const later = (name) => (event) => {
    const { value } = event.target;
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setQuery({ [name]: value.trim() }), 250);
  };
  const field = (name, placeholder) => html`<label class=${`field field-${name}`}><span>${t(`filter.${name}`)}</span><input id=${`filter-${name}`} type="search" maxlength=${LONGEST} value=${filters[name]} placeholder=${placeholder} onInput=${later(name)} spellcheck="false" autocapitalize="off" /></label>`;
  const options = (values, name) => values.map((value) => html`<option key=${value} value=${value} selected=${value === filters[name]}>${STATES.includes(value) ? t(`filter.status.${value}`) : value}</option>`);
  const select = (name, values) => html`<label class="field"><span>${t(`filter.${name}`)}</span><select id=${`filter-${name}`} value=${filters[name]} onChange=${(event) => setQuery({ [name]: event.target.value })}><option value="">${t("filter.any")}</option>${options(values, name)}</select></label>`;
  const more = ["method", "path", "model", "session", "upstream"].filter((name) => filters[name]).length;
  const [isOpen, setOpen] = useState(!narrow.matches || more > 0);
  return html`<search class="filters" aria-label=${t("filter.label")}>
    ${field("q", t("filter.q.hint"))}
    ${select("status", STATES)}
    <button type="button" class="button filter-more" aria-expanded=${String(isOpen)} onClick=${() => setOpen(!isOpen)}>${t("filter.more")}${more ? ` · ${more}` : ""}</button>
    ${isOpen && html`${select("method", ["GET", "POST", "DELETE", "PUT", "PATCH", "HEAD"])}${field("path")}${field("model")}${field("session")}${field("upstream")}`}
  </search>`;
}

const COLUMNS = ["time", "status", "request", "model", "ttft", "duration", "bytes", "tokens", "cost"];
const NUMBERS = new Set(["ttft", "duration", "bytes", "tokens", "cost"]);

function Grid({ items, selected, onOpen, onEnd }) {
  const scroller = useRef(null);
  const [isNarrow, setNarrow] = useState(narrow.matches);
  const [window_, setWindow] = useState({ top: 0, height: 600, bar: 0 });
  const height = isNarrow ? 64 : 38;

  useEffect(() => {
    const turn = () => setNarrow(narrow.matches);
    narrow.addEventListener("change", turn);
    const measure = () => scroller.current && setWindow({ top: scroller.current.scrollTop, height: scroller.current.clientHeight, bar: scroller.current.offsetWidth - scroller.current.clientWidth });
    const watch = new ResizeObserver(measure);
    watch.observe(scroller.current);
    return () => (narrow.removeEventListener("change", turn), watch.disconnect());
  }, []);

  const first = Math.max(0, Math.floor(window_.top / height) - 8);
  const until = Math.min(items.length, Math.ceil((window_.top + window_.height) / height) + 8);
  const scroll = () => {
    const { scrollTop, clientHeight, scrollHeight } = scroller.current;
    setWindow((was) => ({ ...was, top: scrollTop, height: clientHeight }));
    if (scrollTop + clientHeight > scrollHeight - 20 * height) onEnd();
  };

  // the chosen row stays in sight when it is walked to
  const at = useMemo(() => items.findIndex((row) => row.id === selected), [selected]);
  useLayoutEffect(() => {
    if (at < 0) return;
    const box = scroller.current;
    const top = at * height;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + height * 2 > box.scrollTop + box.clientHeight) box.scrollTop = top + height * 2 - box.clientHeight;
  }, [at, selected]);

  return html`<div class="vlist" role="grid" aria-label=${t("nav.requests")} aria-rowcount=${items.length + 1} aria-colcount=${COLUMNS.length}>
    <div class="vhead" role="row" aria-rowindex="1" style=${{ paddingRight: `${16 + window_.bar}px` }}>${COLUMNS.map((name) => html`<span key=${name} role="columnheader" class=${`c-${name}` + (NUMBERS.has(name) ? " num" : "")}>${t(`col.${name}`)}</span>`)}</div>
    <div class="vscroll" ref=${scroller} onScroll=${scroll} role="rowgroup" tabindex="-1">
      <div class="vspace" role="presentation" style=${{ height: `${items.length * height}px` }}>
        ${items.slice(first, until).map((row, i) => html`<${Row} key=${row.seq} row=${row} index=${first + i} top=${(first + i) * height} isSelected=${row.id === selected} onOpen=${onOpen} />`)}
      </div>
    </div>
  </div>`;
}

function Row({ row, index, top, isSelected, onOpen }) {
  const press = (event) => (event.key === "Enter" || event.key === " ") && (event.preventDefault(), onOpen(row));
  const spent = row.state === "pending" ? Math.max(row.duration_ms, Date.now() - row.at) : row.duration_ms;
  return html`<div class="vrow" role="row" aria-rowindex=${index + 2} aria-selected=${String(isSelected)} tabindex="0" data-id=${row.id} style=${{ transform: `translateY(${top}px)` }} onClick=${() => onOpen(row)} onKeyDown=${press}>
    <span role="gridcell" class="c-time dim">${as.clock(row.at)}</span>
    <span role="gridcell" class="c-status"><${Status} row=${row} /></span>
    <span role="gridcell" class="c-request" title=${`${row.method} ${row.path}`}><b>${row.method}</b> ${row.path}</span>
    <span role="gridcell" class="c-model dim" title=${row.model}>${row.model ?? "–"}</span>
    <span role="gridcell" class="c-ttft num">${as.duration(row.ttft_ms)}</span>
    <span role="gridcell" class="c-duration num">${as.duration(spent)}</span>
    <span role="gridcell" class="c-bytes num">${as.bytes(row.state === "pending" ? row.bytes_out || null : row.bytes_out)}</span>
    <span role="gridcell" class="c-tokens num">${row.tokens ? `${as.count(as.read(row.tokens))} → ${as.count(row.tokens.output)}` : "–"}</span>
    <span role="gridcell" class="c-cost num">${as.money(row.cost_usd)}</span>
  </div>`;
}
