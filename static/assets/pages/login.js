// The door: it asks for the key, and says where to find it.

import { html, useCell, useEffect, useRef, useState } from "../view.js";
import { t } from "../i18n.js";
import { login, refused, session } from "../api.js";
import { Switches } from "../shell.js";
import { faultText } from "../parts.js";

export default function Login() {
  useEffect(() => {
    document.title = `${t("login.title")} · anthropic-proxy`;
  });
  return html`
    <main class="door" id="main">
      <div class="door-box">
        <div class="door-head">
          <img src="/admin/icon.svg" width="36" height="36" alt="" />
          <${Switches} />
        </div>
        <h1>${t("login.title")}</h1>
        <${Form} />
      </div>
    </main>
  `;
}

function Form() {
  const field = useRef(/** @type {HTMLInputElement | null} */ (null));
  const fault = useCell(refused);
  const user = useCell(session)?.user;
  const [isBusy, setBusy] = useState(false);
  useEffect(() => field.current?.focus(), []);
  /** @param {Page.FieldEvent} event */
  const submit = async (event) => {
    event.preventDefault();
    const key = field.current?.value;
    if (!key) return field.current?.focus();
    setBusy(true);
    try {
      await login(key);
    } catch {
      setBusy(false);
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
      ${user && html`<div class="notice notice-warn" role="alert">${t("login.no_role", { user })}</div>`}
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
      <details class="door-where">
        <summary>${t("login.where")}</summary>
        <p>${t("login.where.configured")}</p>
        <p>${t("login.where.generated")}</p>
      </details>
    </form>
  `;
}
