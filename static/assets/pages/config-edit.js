// Changes of a setting in the file: what would change is shown before it is applied. Its history, with a way
// back.

import { html, useEffect, useRef, useState } from "../view.js";
import { t } from "../i18n.js";
import * as as from "../format.js";
import { asFault, ask, refresh, useAnswer, useMay } from "../api.js";
import { Bones, Card, Code, Empty, FaultNote, Icon, Table, faultText } from "../parts.js";

const LONGEST_REASON = 200;
/** Settings whose values span lines. */
const LONG = new Set(["SYSTEM_PROMPT_REPLACEMENT"]);
const MARKS = { same: " ", removed: "-", added: "+" };
// the API names the setting, its fault and the remedy
const ITS_OWN = new Set([
  "bad_request",
  "invalid_configuration",
  "reload_refused",
  "not_written",
  "not_audited",
  "file_missing",
  "edited_by_hand",
]);

/** @typedef {{path: "/config" | "/config/rollback", method: string, body: object}} Change */

/** @param {{lines: Api.DiffLine[]}} props */
const Diff = ({ lines }) => html`
  <pre class="diff" tabindex="0" role="region" aria-label=${t("config.edit.diff")}>${lines.map(
    ({ kind, text }, at) =>
      html`<span key=${at} class=${`diff-${kind}`}>${MARKS[kind]} ${text}${"\n"}</span>`,
  )}</pre>
`;

/**
 * A change that was judged and not made: what differs, and a button that applies it.
 * @param {{
 *   change: Change, version: string, result: Api.RevisionResult, label: string,
 *   onDone: (result: Api.RevisionResult) => void, onLeave: () => void
 * }} props
 */
function Preview({ change, version, result, label, onDone, onLeave }) {
  const [fault, setFault] = useState(/** @type {Page.Fault | null} */ (null));
  const [isBusy, setBusy] = useState(false);
  const head = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => void head.current?.focus(), []);
  const apply = async () => {
    setBusy(true);
    setFault(null);
    try {
      onDone(await send(change, version, false));
    } catch (error) {
      setFault(asFault(error));
      setBusy(false);
    }
  };
  const isSame = result.applied === "unchanged";
  return html`
    <div class="preview">
      <h3 tabindex="-1" ref=${head}>${t(isSame ? "config.edit.same" : "config.edit.diff")}</h3>
      ${!isSame && html`<${Diff} lines=${result.diff} />`}
      ${result.warnings.map((text) => html`<p key=${text} class="note text-bad">${text}</p>`)}
      ${
        result.pending_restart.length > 0 &&
        html`<p class="note">${t("config.edit.waits", { names: result.pending_restart.join(", ") })}</p>`
      }
      ${fault && html`<${Refusal} fault=${fault} />`}
      <p class="end-buttons">
        ${
          !isSame &&
          html`
            <button type="button" class="button primary" disabled=${isBusy} onClick=${apply}>${label}</button>
          `
        }
        <button type="button" class="button" onClick=${onLeave}>${t("cancel")}</button>
      </p>
    </div>
  `;
}

/**
 * Why a change was not made: with what was changed meanwhile, or the lines to write elsewhere.
 * @param {{fault: Page.Fault}} props
 */
const Refusal = ({ fault }) => html`
  <div role="alert">
    <p class="field-fault">
      ${
        fault.code === "stale_version" || fault.code === "read_only"
          ? t(`config.edit.${fault.code}`)
          : ITS_OWN.has(fault.code)
            ? fault.message
            : faultText(fault)
      }
    </p>
    ${fault.code === "read_only" && html`<p class="note">${fault.message}</p>`}
    ${fault.diff && fault.diff.length > 0 && html`<${Diff} lines=${fault.diff} />`}
    ${
      fault.lines &&
      fault.lines.length > 0 &&
      html`<${Code} text=${fault.lines.join("\n")} label=${t("config.edit.lines")} />`
    }
    ${
      fault.code === "stale_version" &&
      html`
        <button type="button" class="button" onClick=${() => refresh()}>${t("config.edit.reload")}</button>
      `
    }
  </div>
`;

/**
 * @param {Change} change
 * @param {string} version
 * @param {boolean} isDry
 * @returns {Promise<Api.RevisionResult>}
 */
const send = ({ path, method, body }, version, isDry) =>
  ask(/** @type {`/config/${string}`} */ (path), { method, version, body: { ...body, dry_run: isDry } });

/**
 * The form of one setting: its value, shown as a difference before it is applied. Escape leaves it.
 * @param {{
 *   one: Api.Setting, file: Api.SettingsFile,
 *   onDone: (result: Api.RevisionResult) => void, onLeave: () => void
 * }} props
 */
export function Edit({ one, file, onDone, onLeave }) {
  const isShown = !one.secret && !LONG.has(one.name);
  const [value, setValue] = useState(isShown ? (one.next ?? one.value ?? "") : "");
  const [reason, setReason] = useState("");
  const [fault, setFault] = useState(/** @type {Page.Fault | null} */ (null));
  const [isBusy, setBusy] = useState(false);
  const [shown, setShown] = useState(
    /** @type {{change: Change, version: string, result: Api.RevisionResult} | null} */ (null),
  );
  const form = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => {
    const first = form.current?.querySelector("input, textarea");
    if (!shown && first instanceof HTMLElement) first.focus();
  }, [shown]);
  /** @param {string | null} to */
  const show = async (to) => {
    setFault(null);
    setBusy(true);
    const body = { set: { [one.name]: to }, reason: reason.trim() || null };
    /** @type {Change} */
    const change = { path: "/config", method: "PATCH", body };
    const version = file.version ?? "";
    try {
      setShown({ change, version, result: await send(change, version, true) });
    } catch (error) {
      setFault(asFault(error));
    }
    setBusy(false);
  };
  /** @param {Page.FieldEvent} event */
  const type = (event) => setValue(event.target.value);
  const field = { name: "value", value, onInput: type, autocomplete: "off", spellcheck: "false" };
  return html`
    <div
      class="setting-edit"
      ref=${form}
      onKeyDown=${/** @param {Page.FieldEvent} event */ (event) => event.key === "Escape" && onLeave()}
    >
      ${
        shown
          ? html`
              <${Preview}
                ...${shown}
                label=${t("config.edit.apply")}
                onDone=${onDone}
                onLeave=${() => setShown(null)}
              />
            `
          : html`
              <form
                class="ask"
                aria-label=${t("config.edit.of", { name: one.name })}
                onSubmit=${
                  /** @param {Page.FieldEvent} event */ (event) => (event.preventDefault(), show(value))
                }
              >
                <div class="ask-fields">
                  <label class="field">
                    <span>${t("config.edit.value")}</span>
                    ${
                      LONG.has(one.name)
                        ? html`<textarea rows="4" ...${field}></textarea>`
                        : html`<input type=${one.secret ? "password" : "text"} ...${field} />`
                    }
                  </label>
                  <label class="field">
                    <span>${t("access.reason")}</span>
                    <input
                      name="reason"
                      type="text"
                      value=${reason}
                      maxlength=${LONGEST_REASON}
                      autocomplete="off"
                      onInput=${
                        /** @param {Page.FieldEvent} event */ (event) => setReason(event.target.value)
                      }
                    />
                  </label>
                </div>
                ${one.secret && html`<p class="note">${t("config.edit.secret")}</p>`}
                ${fault && html`<${Refusal} fault=${fault} />`}
                <p class="end-buttons">
                  <button type="submit" class="button primary" disabled=${isBusy || !value}>
                    ${t("config.edit.show")}
                  </button>
                  ${
                    file.names.includes(one.name) &&
                    html`
                      <button type="button" class="button" disabled=${isBusy} onClick=${() => show(null)}>
                        ${t("config.edit.unset")}
                      </button>
                    `
                  }
                  <button type="button" class="button" onClick=${onLeave}>${t("cancel")}</button>
                </p>
              </form>
            `
      }
    </div>
  `;
}

/**
 * A change that was made.
 * @param {{result: Api.RevisionResult}} props
 */
export const Made = ({ result }) => html`
  <div class="notice notice-good" role="status">
    <${Icon} name="check" />
    <div>
      <p>
        ${t(
          result.changed.length > 0 && result.pending_restart.length === result.changed.length
            ? "config.edit.waiting"
            : result.applied === "in_effect"
              ? "config.edit.done"
              : "config.edit.written",
          { id: result.id ?? "" },
        )}
      </p>
      ${
        result.pending_restart.length > 0 &&
        html`<p>${t("config.edit.waits", { names: result.pending_restart.join(", ") })}</p>`
      }
    </div>
  </div>
`;

/**
 * The changes that are kept, and the return to the file before one of them.
 * @param {{file: Api.SettingsFile, onDone: (result: Api.RevisionResult) => void}} props
 */
export function History({ file, onDone }) {
  const { data, fault, reload } = useAnswer("/config/history", null);
  const mayChange = useMay("admin");
  const [refusal, setRefusal] = useState(/** @type {Page.Fault | null} */ (null));
  const [shown, setShown] = useState(
    /** @type {{change: Change, version: string, result: Api.RevisionResult} | null} */ (null),
  );
  /** @param {number} to */
  const show = async (to) => {
    setRefusal(null);
    /** @type {Change} */
    // edits by hand that it takes back, too, are in the difference and in its warning
    const change = { path: "/config/rollback", method: "POST", body: { to, force: true } };
    const version = file.version ?? "";
    try {
      setShown({ change, version, result: await send(change, version, true) });
    } catch (error) {
      setShown(null);
      setRefusal(asFault(error));
    }
  };
  /** @param {Api.RevisionResult} result */
  const done = (result) => (setShown(null), onDone(result));
  return html`
    <${Card} title=${t("config.history")} note=${t("config.history.note")} flush>
      <${FaultNote} fault=${fault} onRetry=${reload} />
      ${refusal && html`<${Refusal} fault=${refusal} />`}
      ${
        shown &&
        html`
          <div class="setting-edit">
            <${Preview}
              ...${shown}
              label=${t("config.history.return")}
              onDone=${done}
              onLeave=${() => setShown(null)}
            />
          </div>
        `
      }
      ${
        !data
          ? !fault && html`<${Bones} rows=${3} />`
          : !data.items.length
            ? html`<${Empty} title=${t("config.history.empty")} />`
            : html`
                <${Table}
                  label=${t("config.history")}
                  head=${[
                    [t("col.time")],
                    [t("audit.actor")],
                    [t("config.history.changed")],
                    [t("config.history.reason")],
                    ...(mayChange ? [[t("access.do"), "num"]] : []),
                  ]}
                >
                  ${data.items.map(
                    (one) => html`
                      <tr key=${one.id}>
                        <th scope="row">${as.when(Date.parse(one.at))}</th>
                        <td>${one.actor}</td>
                        <td class="mono wide named">${one.changed.join(", ")}</td>
                        <td class="wide">${one.reason ?? "–"}</td>
                        ${
                          mayChange &&
                          html`
                            <td class="num named">
                              <button
                                type="button"
                                class="text-button"
                                aria-label=${t("config.history.return.of", { id: one.id })}
                                onClick=${() => show(one.id)}
                              >
                                ${t("config.history.before")}
                              </button>
                            </td>
                          `
                        }
                      </tr>
                    `,
                  )}
                <//>
              `
      }
    <//>
  `;
}
