// The upstreams: whether they answer, how fast, and what they still allow.

import { html } from "../view.js";
import { t } from "../i18n.js";
import * as as from "../format.js";
import { useAnswer } from "../api.js";
import { Badge, Bones, Empty, FaultNote } from "../parts.js";

/** @type {Record<Api.Circuit, Page.Tone>} */
const CIRCUITS = { closed: "good", unknown: "plain", failing: "warn", half_open: "warn", open: "bad" };

/**
 * @param {Api.Circuit} circuit
 * @returns {Page.Tone}
 */
export const circuitTone = (circuit) => CIRCUITS[circuit] ?? "plain";

/**
 * The state of an upstream's circuit in words, with the failures that are counted towards opening it.
 * @param {Api.Health} health
 */
export const circuitText = ({ circuit, failures, failures_to_open: most }) =>
  t(`circuit.${circuit}`, { failures, most });

export default function Upstreams() {
  const { data, fault, reload } = useAnswer("/upstreams", null, 3000);
  return html`
    <p class="lead">${t("upstreams.lead")}</p>
    <${FaultNote} fault=${fault} onRetry=${reload} />
    ${
      !data
        ? !fault && html`<${Bones} rows=${8} />`
        : !data.items.length
          ? html`<${Empty} title=${t("upstreams.empty")} />`
          : html`
            <div class="grid">
              ${data.items.map((one) => html`<${Upstream} key=${one.name} one=${one} />`)}
            </div>
          `
    }
  `;
}

/** @param {{one: Api.Upstream}} props */
function Upstream({ one }) {
  /** @type {[string, string, number?][]} */
  const facts = [
    ["sum.requests", as.count(one.requests)],
    ["sum.failed", as.count(one.errors), one.errors],
    ["upstreams.429", as.count(one.status_429), one.status_429],
    ["upstreams.529", as.count(one.status_529), one.status_529],
    ["upstreams.idle", as.exact(one.idle_connections)],
    ["upstreams.connects", as.count(one.connects)],
    ["upstreams.failures", as.count(one.connect_failures), one.connect_failures],
    ["upstreams.http", one.http],
  ];
  /** @type {[string, Api.Pair][]} */
  const latencies = [
    ["upstreams.connect", one.connect_ms],
    ["upstreams.head", one.head_ms],
  ];
  return html`
    <section class="card">
      <header>
        <h2 class="mono">${one.name}</h2>
        <div class="tools">
          ${one.own_key && html`<${Badge}>${t("upstreams.own_key")}<//>`}
          <${Badge} tone=${circuitTone(one.circuit)}>${circuitText(one)}<//>
        </div>
      </header>
      <dl class="facts">
        ${facts.map(
          ([key, value, isBad]) => html`
            <div key=${key}>
              <dt>${t(key)}</dt>
              <dd class=${isBad ? "text-bad" : ""}>${value}</dd>
            </div>
          `,
        )}
      </dl>
      <table class="plain">
        <thead>
          <tr>
            <td></td>
            <th scope="col" class="num">
              p50
            </th>
            <th scope="col" class="num">
              p95
            </th>
          </tr>
        </thead>
        <tbody>
          ${latencies.map(
            ([key, spread]) => html`
              <tr key=${key}>
                <th scope="row">${t(key)}</th>
                <td class="num">${as.duration(spread?.p50)}</td>
                <td class="num">${as.duration(spread?.p95)}</td>
              </tr>
            `,
          )}
        </tbody>
      </table>
      <h3>${t("upstreams.limits")}</h3>
      ${
        !one.rate_limit.length
          ? html`<p class="note">${t("upstreams.limits.none")}</p>`
          : html`
            <table class="plain">
              <tbody>
                ${one.rate_limit.map(
                  (limit) => html`
                    <tr key=${limit.name}>
                      <th scope="row" class="mono">
                        ${limit.name}
                      </th>
                      <td class="num">
                        ${/^\d+$/.test(limit.value) ? as.exact(Number(limit.value)) : limit.value}
                      </td>
                      <td class="num dim">${as.ago(limit.at)}</td>
                    </tr>
                  `,
                )}
              </tbody>
            </table>
          `
      }
    </section>
  `;
}
