// The frame around every page: navigation, the state of the line, theme, language.

import { cell, html, kept, useCell, useEffect, useRef, useState } from "./view.js";
import { language, speak, t } from "./i18n.js";
import { clock } from "./format.js";
import { busy, logout, refresh, session, updated } from "./api.js";
import { link, retry } from "./live.js";
import { Link, PAGES } from "./router.js";
import { Icon, IconButton } from "./parts.js";
import { choose, chosen, zones } from "./zone.js";

const system = matchMedia("(prefers-color-scheme: dark)");
const current = () => document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light");

/** The theme that is shown. */
export const themed = cell(current());
system.addEventListener("change", () => themed.set(current()));

function turn() {
  const next = current() === "dark" ? "light" : "dark";
  // a choice that is the system's own follows the system again
  const isSystem = next === (system.matches ? "dark" : "light");
  kept.set("theme", isSystem ? null : next);
  if (isSystem) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  themed.set(current());
}

/** Dark or light, English or Chinese. */
export function Switches() {
  const theme = useCell(themed);
  const lang = useCell(language);
  const other = lang === "zh" ? "en" : "zh";
  return html`
    <div class="switches">
      <button
        type="button"
        class="lang"
        lang=${other === "zh" ? "zh-CN" : "en"}
        aria-label=${other === "zh" ? "切换到中文" : "Switch to English"}
        onClick=${() => speak(other)}
      >
        ${other === "zh" ? "中文" : "EN"}
      </button>
      <${IconButton}
        icon=${theme === "dark" ? "sun" : "moon"}
        label=${t(theme === "dark" ? "theme.light" : "theme.dark")}
        onClick=${turn}
      />
    </div>
  `;
}

/** The zone of all times, where there is a choice. */
function Zone() {
  const whose = useCell(chosen);
  const { own, proxy } = zones();
  if (!proxy || proxy === own) return null;
  return html`
    <label class="field zone">
      <span>${t("zone.label")}</span>
      <select
        value=${whose}
        onChange=${
          /** @param {Page.FieldEvent} event */ (event) =>
            choose(event.target.value === "proxy" ? "proxy" : "own")
        }
      >
        <option value="own" selected=${whose === "own"}>${own}</option>
        <option value="proxy" selected=${whose === "proxy"}>${t("zone.proxy", { zone: proxy })}</option>
      </select>
    </label>
  `;
}

const Mark = () => html`
  <span class="mark">
    <img src="/admin/icon.svg" width="24" height="24" alt="" /> anthropic-proxy
  </span>
`;

/** @param {{page: string | null, onFollow?: () => void}} props */
function Nav({ page, onFollow }) {
  return html`
    <nav aria-label=${t("nav.label")}>
      <ul>
        ${PAGES.map(
          (name) => html`
            <li key=${name}>
              <${Link} to=${name} aria-current=${name === page ? "page" : undefined} onFollow=${onFollow}>
                <${Icon} name=${name} />
                ${t(`nav.${name}`)}
              <//>
            </li>
          `,
        )}
      </ul>
    </nav>
  `;
}

/** Whether what is shown is live, and if not, why. */
function LinkState() {
  const { state, retryAt } = useCell(link);
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    setNow(Date.now());
    if (state !== "lost") return;
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, [state, retryAt]);
  const tone = { live: "good", lost: "bad", connecting: "busy", hidden: "plain" }[state];
  const wait = Math.max(0, Math.ceil(((retryAt ?? now) - now) / 1000));
  return html`
    <span class=${`link-state tone-${tone}`}>
      <span class="dot" aria-hidden="true"></span>
      <span role="status">${t(`link.${state}`)}</span>
      ${
        state === "lost" &&
        html`
          <span aria-hidden="true">${wait ? t("link.wait", { seconds: wait }) : ""}</span>
          <button type="button" class="text-button" onClick=${retry}>
            ${t("link.now")}
          </button>
        `
      }
    </span>
  `;
}

/** @param {{page: string | null, title: string, children?: Page.Child}} props */
export function Shell({ page, title, children }) {
  useCell(language);
  useCell(chosen);
  const at = useCell(updated);
  const isBusy = useCell(busy) > 0;
  const known = useCell(session);
  const menu = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const heading = useRef(/** @type {HTMLElement | null} */ (null));
  const first = useRef(true);

  useEffect(() => {
    document.title = `${title} · anthropic-proxy`;
  }, [title]);
  // a reader that follows a link is told where it arrived
  useEffect(() => {
    if (first.current) first.current = false;
    else heading.current?.focus();
  }, [page]);

  const out =
    known?.authenticated &&
    html`
      <p class="note who">
        ${[known.user, known.role && t(`role.${known.role}`)].filter(Boolean).join(" · ")}
      </p>
      ${
        // a proxy's word has no session to leave
        known.method !== "proxy" &&
        html`
          <button type="button" class="nav-button" onClick=${logout}>
            <${Icon} name="logout" />
            ${t("logout")}
          </button>
        `
      }
    `;
  return html`
    <a class="skip" href="#main">
      ${t("skip")}
    </a>
    <aside class="side">
      <${Mark} />
      <${Nav} page=${page} />
      <div class="side-foot">
        ${out}
        <${Zone} />
        <${Switches} />
      </div>
    </aside>
    <dialog
      class="menu"
      ref=${menu}
      aria-label=${t("nav.label")}
      onClick=${(event) => event.target === event.currentTarget && menu.current?.close()}
    >
      <div class="menu-head">
        <${Mark} />
        <${IconButton} icon="close" label=${t("close")} onClick=${() => menu.current?.close()} />
      </div>
      <${Nav} page=${page} onFollow=${() => menu.current?.close()} />
      <div class="side-foot">
        ${out}
        <${Zone} />
        <${Switches} />
      </div>
    </dialog>
    <div class="body">
      <header class="top">
        <span class="menu-button">
          <${IconButton} icon="menu" label=${t("nav.open")} onClick=${() => menu.current?.showModal()} />
        </span>
        <h1 tabindex="-1" ref=${heading}>
          ${title}
        </h1>
        <div class="top-state">
          <div class="now">
            <${LinkState} />
            <span class="updated">${at ? t("updated", { time: clock(at) }) : ""}</span>
          </div>
          <span class=${isBusy ? "turning" : ""}>
            <${IconButton} icon="refresh" label=${t("refresh")} onClick=${() => refresh()} />
          </span>
        </div>
      </header>
      <main id="main" tabindex="-1">
        ${children}
      </main>
    </div>
  `;
}
