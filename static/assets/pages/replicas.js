// The replicas that share a store: what each said last, and their sums.

import { html } from "../view.js";
import { t } from "../i18n.js";
import * as as from "../format.js";
import { useAnswer } from "../api.js";
import { Badge, Card, FaultNote, Table } from "../parts.js";

/** @type {Record<string, Page.Tone>} */
const TONES = { running: "good", draining: "warn", silent: "bad" };
const SUMS = /** @type {const} */ (["in_flight", "requests", "errors"]);

export function Replicas() {
  const { data, fault, reload } = useAnswer("/replicas", null, 3000);
  /** @param {Record<(typeof SUMS)[number], number>} of */
  const counts = (of) => SUMS.map((sum) => html`<td key=${sum} class="num">${as.count(of[sum])}</td>`);
  /** @type {(is: boolean, tone: Page.Tone, key: string, help?: string) => Page.Child} */
  const mark = (is, tone, key, help) =>
    is && html` <span title=${help}><${Badge} tone=${tone}>${t(key)}<//></span>`;
  return html`
    <${Card} title=${t("replicas")} note=${t("replicas.own")} flush>
      <${FaultNote} fault=${fault} onRetry=${reload} />
      ${
        data?.fault &&
        html`
          <p class="note rest text-bad">${t("replicas.fault")} <span class="mono">${data.fault}</span></p>
        `
      }
      ${
        data?.copy?.in_use &&
        html`<p class="note rest text-bad">${t("replicas.copied", { time: as.when(data.copy.at) })}</p>`
      }
      <${Table}
        label=${t("replicas")}
        head=${[
          [t("replicas.name")],
          [t("col.status")],
          [t("replicas.version")],
          [t("replicas.config")],
          [t("now.uptime"), "num"],
          [t("now.in_flight"), "num"],
          [t("sum.requests"), "num"],
          [t("sum.failed"), "num"],
        ]}
      >
        ${data?.items.map(
          (one) => html`
            <tr key=${one.boot_id}>
              <th scope="row" class="mono" title=${one.boot_id}>
                ${one.name}${mark(one.own, "plain", "replicas.this")}
              </th>
              <td>
                <${Badge} tone=${TONES[one.state]}>${t(`replicas.${one.state}`)}<//>
                ${mark(one.open_circuits.length > 0, "bad", "circuit.open", one.open_circuits.join(", "))}
              </td>
              <td class="mono">${one.version}${mark(one.version_differs, "warn", "replicas.differs")}</td>
              <td class="mono">
                ${one.config}${mark(one.config_differs, "warn", "replicas.differs")}
                ${one.config_differing.map((name) => html`<div key=${name} class="dim">${name}</div>`)}
              </td>
              <td class="num">${as.span(data.read_at - one.started_at)}</td>
              ${counts(one)}
            </tr>
          `,
        )}
        ${
          data &&
          html`
            <tr>
              <th scope="row">${t("replicas.all", { n: data.sums.replicas })}</th>
              ${[1, 2, 3, 4].map((at) => html`<td key=${at}></td>`)}
              ${counts(data.sums)}
            </tr>
          `
        }
      <//>
    <//>
  `;
}
