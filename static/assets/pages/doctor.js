// Checks of everything between a client and the upstream, each with a remedy; run when asked.
// Their findings are in English, as the verb and its bundle have them.

import { html, useState } from "../view.js";
import { language, t, word } from "../i18n.js";
import * as as from "../format.js";
import { asFault, ask, useAnswer, useMay } from "../api.js";
import { Badge, Card, Empty, FaultNote, Icon } from "../parts.js";

/** @type {Record<Api.CheckStatus, Page.Tone>} */
const TONES = { ok: "good", warn: "warn", fail: "bad", skip: "plain" };
const COUNTS = /** @type {const} */ (["ok", "warn", "fail", "skip"]);

export default function Doctor() {
  const may = useMay("operator");
  return html`
    <p class="lead">
      ${t("doctor.lead")}${language.get() !== "en" && ` ${t("doctor.english")}`}
    </p>
    ${may ? html`<${Runs} />` : html`<${Empty} title=${t("doctor.operator")} />`}
  `;
}

function Runs() {
  const { data, fault: unread, reload } = useAnswer("/doctor", null);
  const [made, setMade] = useState(/** @type {Api.DoctorReport | null} */ (null));
  const [isBusy, setBusy] = useState(false);
  const [spends, setSpends] = useState(false);
  const [fault, setFault] = useState(/** @type {Page.Fault | null} */ (null));
  const run = async () => {
    setFault(null);
    setBusy(true);
    try {
      setMade(await ask("/doctor", { method: "POST", body: { spend: spends } }));
    } catch (error) {
      setFault(asFault(error));
    } finally {
      setBusy(false);
    }
  };
  const report = made ?? data?.report;
  return html`
    <p class="test">
      <button type="button" class="button" onClick=${run} disabled=${isBusy} aria-busy=${String(isBusy)}>
        ${t(isBusy ? "doctor.busy" : "doctor.run")}
      </button>
      <label class="check">
        <input
          type="checkbox"
          checked=${spends}
          onChange=${/** @param {Page.FieldEvent} event */ (event) => setSpends(event.target.checked)}
        />
        ${t("doctor.spend")}
      </label>
    </p>
    <${FaultNote} fault=${fault} />
    <${FaultNote} fault=${unread} onRetry=${reload} />
    <div role="status">${report && html`<${Sum} report=${report} />`}</div>
    ${
      report
        ? html`<${Groups} checks=${report.checks} />`
        : !unread && html`<${Empty} title=${t("doctor.empty")} />`
    }
  `;
}

/** @param {{report: Api.DoctorReport}} props */
const Sum = ({ report }) => html`
  <p class="badges">
    ${COUNTS.map(
      (name) =>
        report.counts[name] > 0 &&
        html`
          <${Badge} key=${name} tone=${TONES[name]}>${t(`doctor.n.${name}`, { n: report.counts[name] })}<//>
        `,
    )}
    <span class="dim">${as.when(report.at)} · ${as.duration(report.ms)} · ${report.version}</span>
  </p>
`;

/** @param {{checks: Api.Check[]}} props */
function Groups({ checks }) {
  /** @type {Map<string, Api.Check[]>} */
  const groups = new Map();
  for (const check of checks) {
    const isUpstream = check.group === "upstream";
    const title = t(`doctor.group.${check.group}`) + (isUpstream ? `: ${check.subject}` : "");
    groups.set(title, [...(groups.get(title) ?? []), check]);
  }
  return html`
    <div class="stack">
      ${[...groups].map(
        ([title, own]) => html`
          <${Card} key=${title} title=${title} flush>
            <ul class="checks">
              ${own.map((check, at) => html`<${Line} key=${at} check=${check} />`)}
            </ul>
          <//>
        `,
      )}
    </div>
  `;
}

/** @param {{check: Api.Check}} props */
function Line({ check }) {
  const isGrouped = check.group === "upstream";
  return html`
    <li class="check-line">
      <${Badge} tone=${TONES[check.status]}>${t(`doctor.${check.status}`)}<//>
      <b>${word(`doctor.check.${check.id}`, check.id)}</b>
      <span>
        ${check.subject && !isGrouped && html`<span class="mono">${check.subject}</span> · `}
        <span lang="en">${check.detail}</span>
      </span>
      <span class="dim num">${check.ms > 0 && as.duration(check.ms)}</span>
      ${check.fix && html`<p class="check-fix" lang="en"><${Icon} name="info" /> ${check.fix}</p>`}
      ${
        check.evidence.length > 0 &&
        html`
          <details>
            <summary>${t("doctor.evidence")}</summary>
            <ul class="mono" lang="en">
              ${check.evidence.map((fact, at) => html`<li key=${at}>${fact}</li>`)}
            </ul>
          </details>
        `
      }
    </li>
  `;
}
