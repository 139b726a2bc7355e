// A question of several fields, asked of the API.

import { html, useEffect, useRef, useState } from "./view.js";
import { t } from "./i18n.js";
import { asFault } from "./api.js";
import { faultText } from "./parts.js";

export const LONGEST_REASON = 200;
// the API says what is wrong with which field
const ITS_OWN = new Set(["bad_request", "bad_filter"]);

/**
 * A question with its fields: asked when it is sent, and left by Escape.
 * @param {{
 *   title: string, what?: string, label: string, isDanger?: boolean, children?: Page.Child,
 *   send: (fields: FormData) => Promise<any>, onDone: (made: any) => void, onLeave: () => void
 * }} props
 */
export function Ask({ title, what, label, isDanger, children, send, onDone, onLeave }) {
  const [fault, setFault] = useState(/** @type {Page.Fault | null} */ (null));
  const [isBusy, setBusy] = useState(false);
  const form = useRef(/** @type {HTMLFormElement | null} */ (null));
  useEffect(() => {
    const first = form.current?.querySelector("input, select");
    if (first instanceof HTMLElement) first.focus();
  }, []);
  /** @param {Page.FieldEvent} event */
  const submit = async (event) => {
    event.preventDefault();
    if (!form.current || isBusy) return;
    setFault(null);
    setBusy(true);
    try {
      onDone(await send(new FormData(form.current)));
    } catch (error) {
      setFault(asFault(error));
      setBusy(false);
    }
  };
  return html`
    <section class="card">
      <header><h2>${title}</h2></header>
      <form
        class="ask"
        ref=${form}
        aria-label=${title}
        onSubmit=${submit}
        onKeyDown=${/** @param {Page.FieldEvent} event */ (event) => event.key === "Escape" && onLeave()}
      >
        ${what && html`<p>${what}</p>`}
        <div class="ask-fields">${children}</div>
        ${
          fault &&
          html`
            <p class="field-fault" role="alert">
              ${ITS_OWN.has(fault.code) ? fault.message : faultText(fault)}
            </p>
          `
        }
        <p class="end-buttons">
          <button type="submit" class=${`button ${isDanger ? "danger" : "primary"}`} disabled=${isBusy}>
            ${label}
          </button>
          <button type="button" class="button" onClick=${onLeave}>${t("cancel")}</button>
        </p>
      </form>
    </section>
  `;
}

/** @param {{name: string, label: string, hint?: string, type?: string} & Record<string, unknown>} props */
export const Input = ({ name, label, hint, type = "text", ...rest }) => html`
  <label class="field">
    <span>${label}</span>
    <input name=${name} type=${type} placeholder=${hint} autocomplete="off" spellcheck="false" ...${rest} />
  </label>
`;
