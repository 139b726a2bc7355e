// The API's own description, laid out to be read, with the questions that change nothing ready to ask.

import { html, useMemo, useState } from "../view.js";
import { language, t, useApiTexts } from "../i18n.js";
import * as as from "../format.js";
import { useAnswer } from "../api.js";
import { Badge, Bones, Code, FaultNote } from "../parts.js";

/** @typedef {Api.Operation & {path: string, method: Api.Method, parameters: Api.Parameter[]}} Endpoint */

/** @type {Api.Method[]} */
const METHODS = ["get", "post", "put", "patch", "delete"];

export default function Docs() {
  const { data, fault, reload } = useAnswer("/openapi.json", null);
  const says = useApiTexts();
  const api = useMemo(() => data && says && translated(data, says), [data, !says, language.get()]);
  if (!api)
    return fault ? html`<${FaultNote} fault=${fault} onRetry=${reload} />` : html`<${Bones} rows=${10} />`;
  const operations = Object.entries(api.paths ?? {}).flatMap(([path, item]) =>
    METHODS.flatMap((method) => {
      const one = item[method];
      const parameters = [...(item.parameters ?? []), ...(one?.parameters ?? [])];
      return one ? [{ ...one, path, method, parameters }] : [];
    }),
  );
  const tags = [...new Set(operations.map((one) => one.tags?.[0] ?? ""))];
  return html`
    <div class="stack docs">
      <p class="lead">
        ${api.info?.description ?? api.info?.title} <a href="/admin/api/v1/openapi.json">openapi.json</a>
      </p>
      <p class="note">
        ${t("docs.auth")} <code>Authorization: Bearer DASHBOARD_API_KEY</code>
      </p>
      ${tags.map(
        (tag) => html`
          <section key=${tag} class="stack tight">
            <h2>${tag || t("docs.other")}</h2>
            ${operations
              .filter((one) => (one.tags?.[0] ?? "") === tag)
              .map((one) => html`<${Operation} key=${one.method + one.path} one=${one} api=${api} />`)}
          </section>
        `,
      )}
      <section class="stack tight">
        <h2>${t("docs.schemas")}</h2>
        ${Object.entries(api.components?.schemas ?? {}).map(
          ([name, schema]) => html`
            <details key=${name} id=${`schema-${name}`} class="card operation">
              <summary>
                <b class="mono">${name}</b>
                <span class="note">${schema.description ?? ""}</span>
              </summary>
              <div class="operation-body">
                <${Fields} schema=${schema} api=${api} />
              </div>
            </details>
          `,
        )}
      </section>
    </div>
  `;
}

const REQUIRED = () => html` <span class="text-bad" title=${t("docs.required")}>*</span>`;

/**
 * The description in the reader's language: every text that says what a thing is.
 * @param {Api.Document} document
 * @param {(key: string, english: string) => string} says
 */
function translated(document, says) {
  /** @type {(value: unknown) => unknown} */
  const walk = (value) => {
    if (Array.isArray(value)) return value.map(walk);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(
      Object.entries(value).map(([name, one]) => [name, text(name, one) ?? walk(one)]),
    );
  };
  /** @type {(name: string, value: unknown) => string | null} */
  const text = (name, value) =>
    (name === "description" || name === "summary") && typeof value === "string"
      ? says(value.replaceAll("\n", " "), value)
      : null;
  return /** @type {Api.Document} */ (walk(document));
}

/** @param {{one: Endpoint, api: Api.Document}} props */
function Operation({ one, api }) {
  const body = one.requestBody?.content?.["application/json"]?.schema;
  return html`
    <details class="card operation">
      <summary>
        <${Badge} tone=${one.method === "get" ? "good" : one.method === "delete" ? "bad" : "accent"}>
          ${one.method.toUpperCase()}
        <//>
        <code>${one.path}</code>
        <span class="note">${one.summary ?? one.description ?? ""}</span>
      </summary>
      <div class="operation-body">
        ${one.description && one.description !== one.summary && html`<p>${one.description}</p>`}
        ${
          one.parameters.length > 0 &&
          html`
            <h3>${t("docs.parameters")}</h3>
            <table class="plain">
              <tbody>
                ${one.parameters.map((raw) => {
                  const parameter = resolve(raw, api);
                  return html`
                    <tr key=${parameter.name}>
                      <th scope="row" class="mono">
                        ${parameter.name}
                        ${parameter.required && REQUIRED()}
                      </th>
                      <td>${typeOf(parameter.schema ?? {})}</td>
                      <td class="note">${parameter.description ?? parameter.schema?.description ?? ""}</td>
                    </tr>
                  `;
                })}
              </tbody>
            </table>
          `
        }
        ${
          body &&
          html`
            <h3>${t("docs.body")}</h3>
            <${Fields} schema=${body} api=${api} />
          `
        }
        <h3>${t("docs.answers")}</h3>
        <table class="plain">
          <tbody>
            ${Object.entries(one.responses ?? {}).map(([status, raw]) => {
              const answer = resolve(raw, api);
              return html`
                <tr key=${status}>
                  <th scope="row" class="mono">
                    ${status}
                  </th>
                  <td>${answer.description ?? ""}</td>
                  <td>
                    ${Object.values(answer.content ?? {}).map(
                      (content) => content.schema && typeOf(content.schema),
                    )}
                  </td>
                </tr>
              `;
            })}
          </tbody>
        </table>
        ${one.method === "get" && !/events$/.test(one.path) && html`<${Try} one=${one} api=${api} />`}
      </div>
    </details>
  `;
}

/**
 * Asks, and shows the answer.
 * @param {{one: Endpoint, api: Api.Document}} props
 */
function Try({ one, api }) {
  const [values, setValues] = useState(/** @type {Record<string, string>} */ ({}));
  const [answer, setAnswer] = useState(
    /** @type {{status: number, text: string, took: number} | null} */ (null),
  );
  const parameters = one.parameters
    .map((raw) => resolve(raw, api))
    .filter((parameter) => parameter.in === "path" || parameter.in === "query");
  /** @type {(parameter: Api.Parameter, event: Page.FieldEvent) => void} */
  const set = (parameter, event) => setValues({ ...values, [parameter.name]: event.target.value });
  /** @param {Page.FieldEvent} event */
  const run = async (event) => {
    event.preventDefault();
    const query = new URLSearchParams();
    let path = one.path;
    for (const parameter of parameters) {
      const value = values[parameter.name];
      if (parameter.in === "path")
        path = path.replace(`{${parameter.name}}`, encodeURIComponent(value ?? ""));
      else if (value) query.set(parameter.name, value);
    }
    const began = performance.now();
    try {
      const res = await fetch(path + (query.size ? `?${query}` : ""));
      const text = await res.text();
      let shown = text;
      try {
        shown = JSON.stringify(JSON.parse(text), null, 2);
      } catch {
        // not JSON: as it came
      }
      setAnswer({ status: res.status, text: shown.slice(0, 20_000), took: performance.now() - began });
    } catch (error) {
      setAnswer({ status: 0, text: String(error), took: performance.now() - began });
    }
  };
  return html`
    <form class="try" onSubmit=${run}>
      ${parameters.map(
        (parameter) => html`
          <label key=${parameter.name} class="field">
            <span>${parameter.name}</span>
            ${
              parameter.schema?.enum
                ? html`
                  <select onChange=${(event) => set(parameter, event)}>
                    <option value=""></option>
                    ${parameter.schema.enum
                      .map(String)
                      .map((value) => html`<option key=${value}>${value}</option>`)}
                  </select>
                `
                : html`
                  <input
                    type="text"
                    required=${!!parameter.required}
                    onInput=${(event) => set(parameter, event)}
                  />
                `
            }
          </label>
        `,
      )}
      <button type="submit" class="button">
        ${t("docs.try")}
      </button>
      ${
        answer &&
        html`
          <div class="try-answer">
            <p class="note" role="status">
              ${answer.status} · ${as.duration(answer.took)}
            </p>
            <${Code} text=${answer.text} label=${one.path} />
          </div>
        `
      }
    </form>
  `;
}

/** @param {string} reference */
const nameOf = (reference) => reference.split("/").at(-1);

/**
 * The object that a reference names, or the object itself.
 * @template {{$ref?: string}} T
 * @param {T} value
 * @param {Api.Document} api
 * @returns {T}
 */
function resolve(value, api) {
  if (!value?.$ref) return value;
  /** @type {unknown} */
  let at = api;
  for (const part of value.$ref.slice(2).split("/"))
    at = at && typeof at === "object" ? Reflect.get(at, part) : undefined;
  return /** @type {T} */ (at ?? {});
}

/**
 * A schema in a few characters: its type, or a link to it.
 * @param {Api.Schema} schema
 * @returns {Page.Child}
 */
function typeOf(schema) {
  if (schema.$ref) {
    const name = nameOf(schema.$ref);
    const open = () => document.getElementById(`schema-${name}`)?.setAttribute("open", "");
    return html`
      <a class="mono" href=${`#schema-${name}`} onClick=${open}>
        ${name}
      </a>
    `;
  }
  if (schema.enum) return html`<code>${schema.enum.map((value) => JSON.stringify(value)).join(" | ")}</code>`;
  const choices = schema.oneOf ?? schema.anyOf ?? schema.allOf;
  if (choices)
    return choices.map(
      (choice, i) => html`
        ${i > 0 && " | "}
        ${typeOf(choice)}
      `,
    );
  if (schema.type === "array") return html`[${typeOf(schema.items ?? {})}]`;
  const type = [schema.type ?? "any"].flat().join(" | ");
  return html`
    <code>
      ${type}
      ${schema.format ? ` (${schema.format})` : ""}
    </code>
  `;
}

/** @param {{schema: Api.Schema, api: Api.Document}} props */
function Fields({ schema: raw, api }) {
  const schema = raw.$ref ? resolve(raw, api) : raw;
  const fields = {
    ...Object.assign({}, ...(schema.allOf ?? []).map((part) => resolve(part, api).properties)),
    ...schema.properties,
  };
  if (!Object.keys(fields).length) return html`<p>${typeOf(schema)}</p>`;
  return html`
    <table class="plain">
      <tbody>
        ${Object.entries(fields).map(
          ([name, field]) => html`
            <tr key=${name}>
              <th scope="row" class="mono">
                ${name}
                ${schema.required?.includes(name) && REQUIRED()}
              </th>
              <td>${typeOf(field)}</td>
              <td class="note">${field.description ?? ""}</td>
            </tr>
          `,
        )}
      </tbody>
    </table>
  `;
}
