// What failed, grouped, in the words of who failed.

import { html } from "../view.js";
import { t } from "../i18n.js";
import * as as from "../format.js";
import { useAnswer } from "../api.js";
import { Link, oneOf, setQuery } from "../router.js";
import {
  Badge,
  Bones,
  Card,
  Code,
  Empty,
  FaultNote,
  RANGES,
  RangeChoice,
  Status,
  Table,
  labelText,
} from "../parts.js";
import { message, pretty, silence } from "../content.js";

/** @param {{query: URLSearchParams}} props */
export default function Errors({ query }) {
  const range = oneOf(RANGES, query.get("range"), "1h");
  const { data, fault, isStale, reload } = useAnswer("/errors", { range }, 5000);
  return html`
    <div class="bar">
      <p class="lead">
        ${t("errors.lead")}
        ${
          data &&
          html`
            ${" "}
            <span class="kept">
              ${t("errors.kept", { kept: as.exact(data.kept), since: as.when(data.since) })}
            </span>
          `
        }
      </p>
      <${RangeChoice}
        value=${range}
        onChoose=${/** @param {string} value */ (value) => setQuery({ range: value === "1h" ? null : value })}
      />
    </div>
    <${FaultNote} fault=${fault} onRetry=${reload} />
    <div class=${"stack" + (isStale ? " stale" : "")}>
      ${
        !data
          ? !fault && html`<${Bones} rows=${8} />`
          : !data.groups.length
            ? html`<${Empty} title=${t("errors.empty")}>${t("errors.empty.why")}<//>`
            : html`
              <div class="stack">
                ${data.groups.map(
                  (group) => html`
                    <${Group}
                      key=${[group.status, group.type, group.upstream, group.label, group.by].join()}
                      group=${group}
                      row=${data.items.find((row) => row.id === group.sample.id)}
                    />
                  `,
                )}
              </div>
              <${Card} title=${t("errors.last")} flush>
                <${Table}
                  label=${t("errors.last")}
                  head=${[
                    [t("col.ended")],
                    [t("col.status")],
                    [t("col.request")],
                    [t("col.type")],
                    [t("col.duration"), "num"],
                  ]}
                >
                  ${data.items.map(
                    (row) => html`
                      <tr key=${row.id}>
                        <td class="dim">${as.when(row.ended_at)}</td>
                        <td>
                          <${Status} row=${row} />
                        </td>
                        <td class="wide">
                          <${Link} to="requests" query=${{ id: row.id }} class="quiet">
                            ${row.method} ${row.path}
                          <//>
                        </td>
                        <td class="dim type">
                          ${row.error_type ?? (row.ended?.label ? labelText(row.ended.label) : "–")}
                        </td>
                        <td class="num">${as.duration(row.duration_ms)}</td>
                      </tr>
                    `,
                  )}
                <//>
              <//>
            `
      }
    </div>
  `;
}

// of attempts that were followed by another one
const ATTEMPTS = new Set(["failed_over", "unreachable", "unanswered"]);
// the proxy's own stand out; the client's are no failures of the proxy or the upstream
/** @type {Record<Api.By, Page.Tone>} */
const TONES = { proxy: "accent", upstream: "bad", complete: "plain", client: "plain" };

/**
 * Failures of one kind; `row` is the example, if it is listed.
 * @param {{group: Api.ErrorGroup, row?: Api.Row}} props
 */
function Group({ group, row }) {
  const { content } = group.sample;
  const label = group.label && labelText(group.label);
  const status = group.status ?? 0;
  const title = group.type ?? label ?? t("errors.untyped");
  const words = message(content) ?? label ?? "";
  // what failed was one attempt: the client was answered by another upstream
  const isAttempt = ATTEMPTS.has(group.label ?? "");
  return html`
    <details class="card group">
      <summary>
        <span class=${`group-status tone-${status >= 500 || status < 400 ? "bad" : "warn"}`}>
          ${group.status ?? "–"}
        </span>
        <span class="group-type">
          <b>${title}</b>
          <span class="note">${words === title ? "" : words}</span>
        </span>
        <span class="group-from">
          <${Badge} tone=${isAttempt ? "warn" : TONES[group.by]}>
            ${isAttempt ? t("errors.attempt") : t(`errors.by.${group.by}`)}
          <//>
          <span class="note">${group.upstream ?? ""}</span>
        </span>
        <span class="group-count">
          <b>${as.exact(group.count)}×</b>
          <span class="note">${as.ago(group.last_at)}</span>
        </span>
      </summary>
      <div class="group-body">
        <dl class="pairs">
          <div>
            <dt>${t("errors.first")}</dt>
            <dd>${as.moment(group.first_at)}</dd>
          </div>
          <div>
            <dt>${t("errors.latest")}</dt>
            <dd>${as.moment(group.last_at)}</dd>
          </div>
          ${
            group.label &&
            html`
              <div>
                <dt>${t("errors.label")}</dt>
                <dd>
                  ${label} <code class="dim">${group.label}</code>
                </dd>
              </div>
            `
          }
          <div>
            <dt>${t("errors.sample")}</dt>
            <dd class="mono">
              <${Link} to="requests" query=${{ id: group.sample.id }}>
                ${group.sample.id}
              <//>
            </dd>
          </div>
        </dl>
        ${
          content
            ? html`<${Code} text=${pretty(content)} label=${t("drawer.error")} />`
            : html`<p class="note">${isAttempt ? t("errors.attempt.why") : silence(row)}</p>`
        }
      </div>
    </details>
  `;
}
