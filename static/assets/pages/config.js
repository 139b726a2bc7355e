// The settings in force and where each comes from. An admin changes those of the file.

import { html, useCell, useState } from "../view.js";
import { language, t, word } from "../i18n.js";
import * as as from "../format.js";
import { refresh, useAnswer, useMay } from "../api.js";
import { setQuery } from "../router.js";
import { Badge, Bones, Card, Empty, FaultNote, Icon } from "../parts.js";
import { Edit, History, Made } from "./config-edit.js";

/** @param {{query: URLSearchParams}} props */
export default function Config({ query }) {
  const { data, fault, reload } = useAnswer("/config", null, 10_000);
  const [text, setText] = useState(query.get("q") ?? "");
  const isSetOnly = query.get("set") === "1";
  const mayChange = useMay("admin");
  const [edited, setEdited] = useState(/** @type {string | null} */ (null));
  const [made, setMade] = useState(/** @type {Api.RevisionResult | null} */ (null));
  /** @param {Api.RevisionResult} result */
  const done = (result) => (setEdited(null), setMade(result), refresh());
  const isChinese = useCell(language) === "zh";
  /** @param {Api.Setting} one */
  const title = (one) => (isChinese ? one.section_zh : one.section);
  /** @param {Api.Setting} one */
  const doc = (one) => (isChinese ? one.doc_zh : one.doc);
  const settings = (data?.settings ?? []).filter(
    (one) =>
      (!isSetOnly || one.origin !== "default") &&
      `${one.name} ${doc(one)} ${one.section} ${title(one)}`
        .toLowerCase()
        .includes(text.trim().toLowerCase()),
  );
  const sections = [...new Set(settings.map(title))];
  /** @param {Page.FieldEvent} event */
  const search = (event) => (setText(event.target.value), setQuery({ q: event.target.value }));
  return html`
    <p class="lead">${t("config.lead")}</p>
    <${FaultNote} fault=${fault} onRetry=${reload} />
    ${data && html`<${Reload} data=${data} />`}
    ${made && html`<${Made} result=${made} />`}
    ${
      mayChange &&
      data?.file.read_only &&
      html`
        <div class="notice notice-warn">
          <${Icon} name="info" />
          <p>${t("config.readonly")} <code>${data.file.read_only}</code></p>
        </div>
      `
    }
    <div class="bar">
      <label class="field field-q">
        <span>${t("config.search")}</span>
        <input type="search" value=${text} onInput=${search} maxlength="256" spellcheck="false" />
      </label>
      <label class="check">
        <input
          type="checkbox"
          checked=${isSetOnly}
          onChange=${(event) => setQuery({ set: event.target.checked ? "1" : null })}
        />${" "}
        ${t("config.set")}
      </label>
    </div>
    ${
      !data
        ? !fault && html`<${Bones} rows=${12} />`
        : !settings.length
          ? html`<${Empty} title=${t("config.none")} />`
          : html`
            <div class="stack">
              ${sections.map(
                (section) => html`
                  <${Card} key=${section} title=${section} flush>
                    <div class="settings">
                      ${settings
                        .filter((one) => title(one) === section)
                        .map(
                          (one) => html`
                            <${Setting}
                              key=${one.name}
                              one=${one}
                              doc=${doc(one)}
                              isPending=${one.next !== null || data.pending_restart.includes(one.name)}
                              onEdit=${mayChange ? () => (setMade(null), setEdited(one.name)) : null}
                            >
                              ${
                                edited === one.name &&
                                html`
                                  <${Edit}
                                    one=${one}
                                    file=${data.file}
                                    onDone=${done}
                                    onLeave=${() => setEdited(null)}
                                  />
                                `
                              }
                            <//>
                          `,
                        )}
                    </div>
                  <//>
                `,
              )}
              ${!text && html`<${History} file=${data.file} onDone=${done} />`}
            </div>
          `
    }
  `;
}

/**
 * Where a value is from, in the reader's language: `env/.env line 3`, `environment`, `flag --port`.
 * @param {string} origin
 */
function originText(origin) {
  const [, file, line] = /^(.+) line (\d+)$/.exec(origin) ?? [];
  if (file) return t("config.origin.line", { file, line });
  const [, flag] = /^flag (.+)$/.exec(origin) ?? [];
  return flag ? t("config.origin.flag", { flag }) : word(`config.origin.${origin}`, origin);
}

/**
 * A fault as the proxy reports it (`PORT (env/.env line 3): …`), introduced in the reader's language.
 * @param {{text: string}} props
 */
function ConfigFault({ text }) {
  const [, variable, origin, rest] = /^(\S+) \((.+?)\): (.+)$/s.exec(text) ?? [];
  return variable
    ? html`${t("config.fault", { variable, origin: originText(origin) })} <code>${rest}</code>`
    : html`<code>${text}</code>`;
}

/** @param {{text: string | null, isSecret: boolean}} props */
const Value = ({ text, isSecret }) =>
  text === null || text === ""
    ? html`<span class="dim">${t("config.unset")}</span>`
    : html`<code class=${isSecret ? "dim" : ""}>${text}</code>`;

/**
 * @param {{
 *   one: Api.Setting, doc: string, isPending: boolean, onEdit: (() => void) | null, children?: Page.Child
 * }} props
 */
function Setting({ one, doc, isPending, onEdit, children }) {
  return html`
    <div class="setting">
      <div>
        <code class="setting-name">${one.name}</code>
        <p class="note">${doc}</p>
      </div>
      <div class="setting-value">
        <${Value} text=${one.value} isSecret=${one.secret} />
        ${
          one.next !== null &&
          html`
            <span class="next">
              ${t("config.next")} <${Value} text=${one.next} isSecret=${one.secret} />
            </span>
          `
        }
        <p class="note">
          ${originText(one.origin)}
          ${one.origin !== "default" && one.default ? ` · ${t("config.default")}: ${one.default}` : ""}
        </p>
      </div>
      <div class="setting-badges">
        ${
          isPending
            ? html`<${Badge} tone="warn">${t("config.pending")}<//>`
            : one.applies === "restart" && html`<${Badge}>${t("config.restart")}<//>`
        }
        ${one.secret && html`<${Badge}>${t("config.secret")}<//>`}
        ${
          onEdit &&
          html`
            <button
              type="button"
              class="text-button"
              aria-label=${t("config.edit.of", { name: one.name })}
              onClick=${onEdit}
            >
              ${t("config.edit")}
            </button>
          `
        }
      </div>
      ${children}
    </div>
  `;
}

/** @param {{data: Api.Configuration}} props */
function Reload({ data }) {
  const last = data.last_reload;
  const isBad = last && !last.ok;
  return html`
    ${
      last &&
      html`
        <div
          class=${"notice" + (isBad ? " notice-bad" : " notice-good")}
          role=${isBad ? "alert" : undefined}
        >
          <${Icon} name=${isBad ? "errors" : "check"} />
          <div>
            <p>${t(isBad ? "config.reload.failed" : "config.reload.ok", { ago: as.ago(last.at) })}</p>
            ${
              last.faults.length > 0 &&
              html`
                <ul>
                  ${last.faults.map(
                    (fault) => html`
                      <li key=${fault}>
                        <${ConfigFault} text=${fault} />
                      </li>
                    `,
                  )}
                </ul>
              `
            }
          </div>
        </div>
      `
    }
    ${
      data.pending_restart.length > 0 &&
      html`
        <div class="notice notice-warn">
          <${Icon} name="refresh" />
          <p>${t("config.pending.which", { names: data.pending_restart.join(", ") })}</p>
        </div>
      `
    }
  `;
}
