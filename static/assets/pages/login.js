// The door: the key, or how to set one.

import { html, useEffect, useRef, useState } from "../view.js";
import { t } from "../i18n.js";
import { asFault, login, session } from "../api.js";
import { Switches } from "../shell.js";
import { Code, faultText } from "../parts.js";

export default function Login() {
  const needsKey = session.get()?.key_required;
  useEffect(() => {
    document.title = `${t(needsKey ? "login.title" : "login.closed")} · anthropic-proxy`;
  });
  return html`
    <main class="door" id="main">
      <div class="door-box">
        <div class="door-head">
          <img src="/admin/icon.svg" width="36" height="36" alt="" />
          <${Switches} />
        </div>
        <h1>${needsKey ? t("login.title") : t("login.closed")}</h1>
        ${
          needsKey
            ? html`<${Form} />`
            : html`
              <p>${t("login.closed.why")}</p>
              <${Code} text="openssl rand -hex 32" label="DASHBOARD_API_KEY" />
            `
        }
      </div>
    </main>
  `;
}

function Form() {
  const field = useRef(/** @type {HTMLInputElement | null} */ (null));
  const [fault, setFault] = useState(/** @type {Page.Fault | null} */ (null));
  const [isBusy, setBusy] = useState(false);
  useEffect(() => field.current?.focus(), []);
  /** @param {Page.FieldEvent} event */
  const submit = async (event) => {
    event.preventDefault();
    const key = field.current?.value;
    if (!key) return field.current?.focus();
    setBusy(true);
    setFault(null);
    try {
      await login(key);
    } catch (error) {
      setBusy(false);
      setFault(asFault(error));
      field.current?.select();
    }
  };
  const says =
    fault &&
    (fault.status === 401
      ? t("login.wrong")
      : fault.status === 429
        ? t("login.slow", { seconds: fault.retryAfter ?? 60 })
        : faultText(fault));
  return html`
    <form onSubmit=${submit}>
      <p>${t("login.text")}</p>
      <label for="key">${t("login.key")}</label>
      <input
        id="key"
        ref=${field}
        type="password"
        autocomplete="current-password"
        spellcheck="false"
        required
        aria-invalid=${fault ? "true" : undefined}
        aria-describedby="key-fault"
      />
      <p id="key-fault" class="field-fault" role="alert">
        ${says}
      </p>
      <button type="submit" class="button primary" disabled=${isBusy}>
        ${t("login.enter")}
      </button>
    </form>
  `;
}
