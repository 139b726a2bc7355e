// Every request as it comes: a list of any length of which only what is seen is drawn.

import {
  html,
  useCallback,
  useCell,
  useEffect,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} from "../view.js";
import { t } from "../i18n.js";
import * as as from "../format.js";
import { asFault, ask, isAborted, refreshes, updated } from "../api.js";
import { tick } from "../live.js";
import { setQuery } from "../router.js";
import { MOST, RESULTS, Roster, spent } from "../rows.js";
import { Bones, Empty, FaultNote, Icon, Status, costText, tokensText } from "../parts.js";
import { Drawer } from "./drawer.js";

const PAGE = 200;
/** @type {Page.FilterName[]} */
const TEXTS = ["path", "model", "session", "upstream", "user_agent", "q"];
/** @type {(Page.FilterName | "range" | "since" | "until")[]} */
const FILTERS = ["status", "method", "range", "since", "until", ...TEXTS];
const STATES = [...RESULTS, "aborted", "pending", "1xx", "2xx", "3xx", "4xx", "5xx"];
// how far back a list may reach: as seen from now, in milliseconds
/** @type {Record<string, number>} */
const SPANS = { "5m": 300_000, "15m": 900_000, "1h": 3_600_000, "6h": 21_600_000, "24h": 86_400_000 };
const METHODS = ["GET", "POST", "DELETE", "PUT", "PATCH", "HEAD"];
// the server refuses a longer one
const LONGEST = 256;
const WORDS = new Set([...RESULTS, "aborted", "pending"]);
const narrow = matchMedia("(max-width: 760px)");
const middle = matchMedia("(max-width: 1360px)");
const measured = () => (narrow.matches ? "narrow" : middle.matches ? "middle" : "wide");
// of a row, in one, two or three lines: app.css has the same
/** @type {Record<string, number>} */
const HEIGHTS = { wide: 38, middle: 54, narrow: 80 };

/** @typedef {{id: string | null}} Left */
/** @typedef {Record<Page.FilterName | "range" | "since" | "until", string>} Asked */

/**
 * What the server is asked for: a range that is seen from now is so from this moment on.
 * @param {Asked} asked
 * @returns {Page.Filters}
 */
function resolved({ range, since, until, ...filters }) {
  const from = SPANS[range] ? Date.now() - SPANS[range] : Number(since) || "";
  return { ...filters, since: from, until: Number(until) || "" };
}

/** @param {{query: URLSearchParams}} props */
export default function Requests({ query }) {
  const filters = /** @type {Asked} */ (
    Object.fromEntries(FILTERS.map((name) => [name, query.get(name) ?? ""]))
  );
  const asked = JSON.stringify(filters);
  const [isPaused, setPaused] = useState(false);
  const [clears, setClears] = useState(0);
  // what stands still shows no time passing either
  const stood = useRef(/** @type {number | null} */ (null));
  stood.current = isPaused ? (stood.current ?? Date.now()) : null;
  const list = useList(filters, asked, isPaused);
  const id = query.get("id");
  const items = list.items;
  const open = useCallback(/** @param {Api.Row | null} row */ (row) => setQuery({ id: row?.id ?? null }), []);
  // whose details were closed last: its row has the focus then
  const [left, setLeft] = useState(/** @type {Left | null} */ (null));
  const leave = () => (setLeft({ id }), open(null));
  // the drafts of the fields go, too
  const clear = () => (
    setClears(clears + 1),
    setQuery(Object.fromEntries(FILTERS.map((name) => [name, null])))
  );
  const isFiltered = FILTERS.some((name) => filters[name]);

  useEffect(() => {
    /** @param {KeyboardEvent} event */
    const press = (event) => {
      if (
        event.metaKey ||
        event.ctrlKey ||
        event.altKey ||
        /^(INPUT|SELECT|TEXTAREA)$/.test(event.target instanceof Element ? event.target.tagName : "")
      )
        return;
      const at = items.findIndex((row) => row.id === id);
      /** @param {number} to */
      const go = (to) => items[to] && (event.preventDefault(), open(items[to]));
      if (event.key === "j") go(at + 1);
      else if (event.key === "k") go(at < 0 ? 0 : at - 1);
      else if (event.key === "p") setPaused((was) => !was);
      else if (event.key === "/" && !id)
        (event.preventDefault(), document.getElementById("filter-q")?.focus());
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [items, id, open]);

  return html`
    <div class="requests">
      <${Filters} key=${clears} filters=${filters} />
      <div class="list-bar">
        <span class="note">
          ${t("requests.count", {
            shown: as.exact(items.length),
            total: as.exact(list.total ?? items.length),
          })}
        </span>
        <button
          type="button"
          class="button"
          aria-pressed=${String(isPaused)}
          onClick=${() => setPaused(!isPaused)}
        >
          <${Icon} name=${isPaused ? "play" : "pause"} />
          ${
            isPaused
              ? list.waiting || list.isBehind
                ? t("requests.resume.n", { n: `${as.exact(list.waiting)}${list.isBehind ? "+" : ""}` })
                : t("requests.resume")
              : t("requests.pause")
          }
        </button>
        ${
          isFiltered &&
          html`
            <button type="button" class="text-button" onClick=${clear}>
              ${t("requests.clear")}
            </button>
          `
        }
        <span class="keys note">
          <kbd>j</kbd> <kbd>k</kbd> ${t("keys.walk")} <kbd>p</kbd> ${t("keys.pause")} <kbd>/</kbd>${" "}
          ${t("keys.search")}
        </span>
      </div>
      <${FaultNote} fault=${list.fault} onRetry=${list.reload} />
      ${
        list.isFirst
          ? html`<${Bones} rows=${12} />`
          : !items.length
            ? !list.fault &&
              html`
                <${Empty} title=${t(isFiltered ? "requests.none" : "requests.empty")}>
                  ${t(isFiltered ? "requests.none.why" : "requests.empty.why")}
                <//>
              `
            : html`
              <${Grid}
                items=${items}
                now=${stood.current ?? Date.now()}
                selected=${id}
                left=${left}
                onOpen=${open}
                onEnd=${list.more}
              />
            `
      }
      ${id && html`<${Drawer} id=${id} row=${items.find((row) => row.id === id)} onClose=${leave} />`}
    </div>
  `;
}

/**
 * The rows: what the server lists, and what the stream tells since.
 * @param {Asked} filters
 * @param {string} asked
 * @param {boolean} isPaused
 */
function useList(filters, asked, isPaused) {
  const roster = useRef(/** @type {Roster | null} */ (null));
  const list = (roster.current ??= new Roster(tick.get()));
  /** @type {{items: Api.Row[], fault: Page.Fault | null, isFirst: boolean}} */
  const none = { items: [], fault: null, isFirst: true };
  const [view, setView] = useState(none);
  const running = useRef(/** @type {AbortController | null} */ (null));
  const listed = useRef(/** @type {string | null} */ (null));
  const last = useCell(tick);
  const told = useRef(last);
  const refreshed = useCell(refreshes);

  const show = useCallback(
    /** @param {Partial<typeof none>} changes */ (changes) =>
      setView((was) => ({ ...was, ...changes, items: list.items() })),
    [],
  );

  const load = useCallback(
    /** @param {number} [before] */
    async (before) => {
      running.current?.abort();
      const controller = (running.current = new AbortController());
      const isMore = before !== undefined;
      list.begin(isMore);
      const filters = resolved(JSON.parse(asked));
      try {
        const page = await ask("/requests", {
          query: { ...filters, limit: PAGE, before },
          signal: controller.signal,
        });
        running.current = null;
        listed.current = asked;
        list.answer(page, filters, isMore);
        updated.set(Date.now());
        show({ fault: null, isFirst: false });
      } catch (error) {
        // another question has taken its place, if it was not the last one
        if (running.current !== controller) return;
        running.current = null;
        list.fail(filters);
        if (isAborted(error)) return;
        show({ fault: asFault(error), isFirst: false });
      }
    },
    [asked, show],
  );

  useEffect(() => {
    // a reader of a paused list keeps it until they ask for more
    if (list.isPaused && refreshed.why === "back" && listed.current === asked)
      return void (list.isBehind = true);
    load();
    return () => running.current?.abort();
  }, [load, refreshed]);

  useEffect(() => {
    // what was told before the list was asked for is in it
    if (!last || last === told.current) return;
    told.current = last;
    list.tell(last, resolved(filters));
    if (list.isPaused) show({});
    else if (list.isBehind && !running.current) load();
    else if ((last.rows.length || last.running.length || filters.range) && !running.current) show({});
  }, [last]);

  useEffect(() => {
    if (isPaused) return list.pause();
    list.resume(resolved(filters));
    if (list.isBehind) load();
    else show({});
  }, [isPaused]);

  return {
    ...view,
    total: list.total,
    isBehind: list.isBehind,
    waiting: isPaused ? list.waiting(resolved(filters)) : 0,
    reload: () => load(),
    more: () => list.next && !running.current && list.rows.size < MOST && load(list.next),
  };
}

/** @param {{filters: Asked}} props */
function Filters({ filters }) {
  /** @type {(name: Page.FilterName, placeholder?: string) => Page.Child} */
  const field = (name, placeholder) => html`
    <${Field} key=${name} name=${name} value=${filters[name]} placeholder=${placeholder} />
  `;
  // one that the address names and the list lacks is shown as it is
  /** @type {(values: string[], name: Page.FilterName) => Page.Child} */
  const options = (values, name) =>
    (filters[name] && !values.includes(filters[name]) ? [...values, filters[name]] : values).map(
      (value) => html`
        <option key=${value} value=${value} selected=${value === filters[name]}>
          ${WORDS.has(value) ? t(`filter.status.${value}`) : value}
        </option>
      `,
    );
  /** @type {(name: Page.FilterName, values: string[]) => Page.Child} */
  const select = (name, values) => html`
    <label class="field">
      <span>${t(`filter.${name}`)}</span>
      <select
        id=${`filter-${name}`}
        value=${filters[name]}
        onChange=${(event) => setQuery({ [name]: event.target.value })}
      >
        <option value="">${t("filter.any")}</option>
        ${options(values, name)}
      </select>
    </label>
  `;
  const more =
    TEXTS.filter((name) => name !== "q" && filters[name]).length +
    (filters.method ? 1 : 0) +
    (filters.range || filters.since || filters.until ? 1 : 0);
  const [isOpen, setOpen] = useState(!narrow.matches || more > 0);
  return html`
    <search class="filters" aria-label=${t("filter.label")}>
      ${field("q", t("filter.q.hint"))}
      <${StatusFilter} value=${filters.status} />
      <button
        type="button"
        class="button filter-more"
        aria-expanded=${String(isOpen)}
        onClick=${() => setOpen(!isOpen)}
      >
        ${t("filter.more")}
        ${more ? ` · ${more}` : ""}
      </button>
      ${
        isOpen &&
        html`
          <${TimeFilter} range=${filters.range} since=${filters.since} until=${filters.until} />
          ${select("method", METHODS)}
          ${field("path")}
          ${field("model")}
          ${field("session")}
          ${field("upstream")}
          ${field("user_agent")}
        `
      }
    </search>
  `;
}

const CODE = /^[1-9]\d\d$/;

/**
 * A result, a state, a hundred, or one exact status.
 * @param {{value: string}} props
 */
function StatusFilter({ value }) {
  const [isExact, setExact] = useState(CODE.test(value));
  useEffect(() => void (value && setExact(CODE.test(value))), [value]);
  const field = useRef(/** @type {HTMLInputElement | null} */ (null));
  /** @param {Page.FieldEvent} event */
  const choose = (event) => {
    const chosen = event.target.value;
    setExact(chosen === "code");
    setQuery({ status: chosen === "code" ? null : chosen });
    if (chosen === "code") setTimeout(() => field.current?.focus());
  };
  /** @param {Page.FieldEvent} event */
  const type = (event) => {
    const text = event.target.value.trim();
    if (CODE.test(text)) setQuery({ status: text });
    else if (!text) setQuery({ status: null });
  };
  /** @type {(one: string, text: string) => Page.Child} */
  const option = (one, text) => html`
    <option key=${one} value=${one} selected=${one === (isExact ? "code" : value)}>
      ${text}
    </option>
  `;
  const states = value && !isExact && !STATES.includes(value) ? [...STATES, value] : STATES;
  return html`
    <label class="field">
      <span>${t("filter.status")}</span>
      <span class="pair">
        <select id="filter-status" value=${isExact ? "code" : value} onChange=${choose}>
          ${option("", t("filter.any"))}
          ${states.map((one) => option(one, WORDS.has(one) ? t(`filter.status.${one}`) : one))}
          ${option("code", t("filter.status.code"))}
        </select>
        ${
          isExact &&
          html`
            <input
              id="filter-code"
              ref=${field}
              aria-label=${t("filter.status.code")}
              inputmode="numeric"
              maxlength="3"
              placeholder="404"
              value=${CODE.test(value) ? value : ""}
              onInput=${type}
            />
          `
        }
      </span>
    </label>
  `;
}

/**
 * When they began: a range up to now, or from one moment to another.
 * @param {{range: string, since: string, until: string}} props
 */
function TimeFilter({ range, since, until }) {
  const isSet = !!(since || until);
  const [isOwn, setOwn] = useState(isSet);
  const chosen = SPANS[range] ? range : isOwn || isSet ? "own" : "";
  /** @param {Page.FieldEvent} event */
  const choose = (event) => {
    setOwn(event.target.value === "own");
    setQuery({
      range: event.target.value === "own" ? null : event.target.value,
      since: null,
      until: null,
    });
  };
  /** @type {(one: string, text: string) => Page.Child} */
  const option = (one, text) => html`
    <option key=${one} value=${one} selected=${one === chosen}>
      ${text}
    </option>
  `;
  /** @type {(name: "since" | "until", at: string) => Page.Child} */
  const edge = (name, at) => html`
    <label class="field">
      <span>${t(`filter.${name}`)}</span>
      <input
        id=${`filter-${name}`}
        type="datetime-local"
        step="1"
        value=${as.localInput(Number(at) || null)}
        onChange=${(event) =>
          setQuery({
            range: null,
            [name]: event.target.value ? String(as.ofInput(event.target.value)) : null,
          })}
      />
    </label>
  `;
  return html`
    <label class="field">
      <span>${t("range.label")}</span>
      <select id="filter-range" value=${chosen} onChange=${choose}>
        ${option("", t("filter.any"))}
        ${Object.keys(SPANS).map((one) => option(one, t("filter.range.last", { span: t(`range.${one}`) })))}
        ${option("own", t("filter.range.own"))}
      </select>
    </label>
    ${
      chosen === "own" &&
      html`
        ${edge("since", since)}
        ${edge("until", until)}
      `
    }
  `;
}

/**
 * A text to filter by: a draft while it is typed, then a part of the address.
 * @param {{name: Page.FilterName, value: string, placeholder?: string}} props
 */
function Field({ name, value, placeholder }) {
  const [draft, setDraft] = useState(value);
  const said = useRef(value);
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  // a change from outside: a link, or the way back
  useEffect(() => {
    if (value === said.current) return;
    clearTimeout(timer.current);
    said.current = value;
    setDraft(value);
  }, [value]);
  /** @param {Page.FieldEvent} event */
  const type = (event) => {
    const text = event.target.value;
    setDraft(text);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setQuery({ [name]: (said.current = text.trim()) }), 250);
  };
  return html`
    <label class=${`field field-${name}`}>
      <span>${t(`filter.${name}`)}</span>
      <input
        id=${`filter-${name}`}
        type="search"
        maxlength=${LONGEST}
        value=${draft}
        placeholder=${placeholder}
        onInput=${type}
        spellcheck="false"
        autocapitalize="off"
      />
    </label>
  `;
}

const COLUMNS = ["time", "status", "request", "model", "ttft", "duration", "bytes", "tokens", "cost"];
const NUMBERS = new Set(["ttft", "duration", "bytes", "tokens", "cost"]);

/**
 * @param {{
 *   items: Api.Row[], now: number, selected: string | null, left: Left | null,
 *   onOpen: (row: Api.Row) => void, onEnd: () => void
 * }} props
 */
function Grid({ items, now, selected, left, onOpen, onEnd }) {
  const scroller = useRef(/** @type {HTMLElement | null} */ (null));
  const [size, setSize] = useState(measured());
  const [window_, setWindow] = useState({ top: 0, height: 600, bar: 0 });
  const height = HEIGHTS[size];

  useEffect(() => {
    const turn = () => setSize(measured());
    for (const one of [narrow, middle]) one.addEventListener("change", turn);
    const measure = () =>
      scroller.current &&
      setWindow({
        top: scroller.current.scrollTop,
        height: scroller.current.clientHeight,
        bar: scroller.current.offsetWidth - scroller.current.clientWidth,
      });
    const watch = new ResizeObserver(measure);
    if (scroller.current) watch.observe(scroller.current);
    return () => {
      for (const one of [narrow, middle]) one.removeEventListener("change", turn);
      watch.disconnect();
    };
  }, []);

  const first = Math.max(0, Math.floor(window_.top / height) - 8);
  const until = Math.min(items.length, Math.ceil((window_.top + window_.height) / height) + 8);
  const scroll = () => {
    if (!scroller.current) return;
    const { scrollTop, clientHeight, scrollHeight } = scroller.current;
    setWindow((was) => ({ ...was, top: scrollTop, height: clientHeight }));
    if (scrollTop + clientHeight > scrollHeight - 20 * height) onEnd();
  };

  // the chosen row stays in sight when it is walked to
  const at = useMemo(() => items.findIndex((row) => row.id === selected), [selected]);
  useLayoutEffect(() => {
    const box = scroller.current;
    if (at < 0 || !box) return;
    const top = at * height;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + height * 2 > box.scrollTop + box.clientHeight)
      box.scrollTop = top + height * 2 - box.clientHeight;
  }, [at, selected]);

  // the details were closed: their row has the focus again, wherever it is by now
  useLayoutEffect(() => {
    const box = scroller.current;
    if (!left || !box) return;
    const at = items.findIndex((row) => row.id === left.id);
    const top = at * height;
    if (at >= 0 && (top < box.scrollTop || top + height > box.scrollTop + box.clientHeight)) {
      box.scrollTop = top - box.clientHeight / 2;
      setWindow((was) => ({ ...was, top: box.scrollTop }));
    }
    const focus = () => {
      const row = box.querySelector(`[data-id="${CSS.escape(left.id ?? "")}"]`);
      (row instanceof HTMLElement ? row : box).focus();
    };
    // it is drawn by then, and the dialog is no longer modal
    requestAnimationFrame(() => requestAnimationFrame(focus));
  }, [left]);

  const isDated = useMemo(() => items.some((row) => !as.isToday(row.at)), [items]);

  return html`
    <div
      class=${"vlist" + (isDated ? " dated" : "")}
      role="grid"
      aria-label=${t("nav.requests")}
      aria-rowcount=${items.length + 1}
      aria-colcount=${COLUMNS.length}
    >
      <div class="vhead" role="row" aria-rowindex="1" style=${{ paddingRight: `${16 + window_.bar}px` }}>
        ${COLUMNS.map(
          (name) => html`
            <span key=${name} role="columnheader" class=${`c-${name}` + (NUMBERS.has(name) ? " num" : "")}>
              ${t(`col.${name}`)}
            </span>
          `,
        )}
      </div>
      <div class="vscroll" ref=${scroller} onScroll=${scroll} role="rowgroup" tabindex="-1">
        <div class="vspace" role="presentation" style=${{ height: `${items.length * height}px` }}>
          ${items.slice(first, until).map(
            (row, i) => html`
              <${Row}
                key=${row.seq}
                row=${row}
                now=${now}
                index=${first + i}
                top=${(first + i) * height}
                isSelected=${row.id === selected}
                onOpen=${onOpen}
              />
            `,
          )}
        </div>
      </div>
    </div>
  `;
}

/**
 * @param {{
 *   row: Api.Row, now: number, index: number, top: number, isSelected: boolean,
 *   onOpen: (row: Api.Row) => void
 * }} props
 */
function Row({ row, now, index, top, isSelected, onOpen }) {
  /** @param {Page.FieldEvent} event */
  const press = (event) =>
    (event.key === "Enter" || event.key === " ") && (event.preventDefault(), onOpen(row));
  return html`
    <div
      class="vrow"
      role="row"
      aria-rowindex=${index + 2}
      aria-selected=${String(isSelected)}
      tabindex="0"
      data-id=${row.id}
      style=${{ transform: `translateY(${top}px)` }}
      onClick=${() => onOpen(row)}
      onKeyDown=${press}
    >
      <span role="gridcell" class="c-time dim">
        ${as.when(row.at, now)}
      </span>
      <span role="gridcell" class="c-status">
        <${Status} row=${row} />
      </span>
      <span role="gridcell" class="c-request" title=${`${row.method} ${row.path}`}>
        <b>${row.method}</b> ${row.path}
      </span>
      <span role="gridcell" class="c-model dim" title=${row.model}>
        ${row.model ?? "–"}
      </span>
      <span role="gridcell" class="c-ttft num" data-label=${t("col.ttft.short")}>
        ${as.duration(row.ttft_ms)}
      </span>
      <span role="gridcell" class="c-duration num">
        ${as.duration(spent(row, now))}
      </span>
      <span role="gridcell" class="c-bytes num">
        ${as.bytes(row.bytes_out)}
      </span>
      <span role="gridcell" class="c-tokens num">
        ${tokensText(row)}
      </span>
      <span role="gridcell" class="c-cost num">
        ${costText(row)}
      </span>
    </div>
  `;
}
