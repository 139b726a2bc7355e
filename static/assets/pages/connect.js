// How to use this proxy: settings to copy, and whether it answers.

import { html, useState } from "../view.js";
import { t } from "../i18n.js";
import * as as from "../format.js";
import { useAnswer } from "../api.js";
import { statusCommand, useProxyAddress } from "../proxy.js";
import { Link } from "../router.js";
import { Bones, Card, Code, Icon } from "../parts.js";

export default function Connect() {
  const base = useProxyAddress();
  const { data } = useAnswer("/config", null);
  if (base === null) return html`<${Bones} rows=${8} />`;
  // no client takes a socket for an address: say where it is, and leave the rest
  if (base.startsWith("unix:"))
    return html`
      <div class="stack">
        <${Card} title=${t("connect.address")}>
          <p class="note">${t("connect.unix")}</p>
          <${Code} text=${base} label=${t("connect.address")} />
          <${Test} base=${base} />
        <//>
      </div>
    `;
  const file = {
    env: { ANTHROPIC_BASE_URL: base },
    statusLine: { type: "command", command: statusCommand(data?.data_dir ?? null, location) },
  };
  const settings = [
    ["connect.shell", `export ANTHROPIC_BASE_URL=${base}\nclaude`],
    ["connect.settings", JSON.stringify(file, null, 2)],
  ];
  const sdks = [
    ["Python", python(base)],
    ["TypeScript", typescript(base)],
  ];
  return html`
    <div class="stack">
      <p class="lead">${t("connect.lead")}</p>
      <${Card} title=${t("connect.address")}>
        <${Code} text=${base} label=${t("connect.address")} />
        <${Test} base=${base} />
      <//>
      <div class="grid">
        <${Card} title="Claude Code">
          ${settings.map(
            ([key, text]) => html`
              <div key=${key}>
                <h3>${t(key)}</h3>
                <${Code} text=${text} label=${t(key)} />
              </div>
            `,
          )}
          <p class="note">${t("connect.key")}</p>
          <p class="note">${t("connect.statusline")}</p>
        <//>
        <${Card} title="curl">
          <${Code} text=${shell(base)} label="curl" />
        <//>
        ${sdks.map(
          ([name, text]) => html`
            <${Card} key=${name} title=${`${name} SDK`}>
              <${Code} text=${text} label=${name} />
            <//>
          `,
        )}
      </div>
    </div>
  `;
}

/** @param {string} base */
const python = (base) =>
  [
    "from anthropic import Anthropic",
    "",
    `client = Anthropic(base_url="${base}")`,
    "message = client.messages.create(",
    '    model="claude-sonnet-4-6",',
    "    max_tokens=1024,",
    '    messages=[{"role": "user", "content": "Hello"}],',
    ")",
    "print(message.content[0].text)",
  ].join("\n");

/** @param {string} base */
const typescript = (base) =>
  [
    'import Anthropic from "@anthropic-ai/sdk";',
    "",
    `const client = new Anthropic({ baseURL: "${base}" });`,
    "const message = await client.messages.create({",
    '  model: "claude-sonnet-4-6",',
    "  max_tokens: 1024,",
    '  messages: [{ role: "user", content: "Hello" }],',
    "});",
    "console.log(message.content);",
  ].join("\n");

/** @param {string} base */
const shell = (base) =>
  [
    `curl -sS ${base}/v1/messages`,
    `-H "x-api-key: $ANTHROPIC_API_KEY"`,
    `-H 'anthropic-version: 2023-06-01'`,
    `-H 'content-type: application/json'`,
    `-d '{"model":"claude-sonnet-4-6","max_tokens":64,"messages":[{"role":"user","content":"Hello"}]}'`,
  ].join(" \\\n  ");

/** @typedef {{state: "busy" | "good" | "bad", status: number | null, took: number}} Result */

/**
 * Requests /health of the page's own origin, the only one that its content security policy allows. For
 * another address of the proxy it shows a command.
 * @param {{base: string}} props
 */
function Test({ base }) {
  const asked = `${location.origin}/health`;
  const [result, setResult] = useState(/** @type {Result | null} */ (null));
  const run = async () => {
    setResult({ state: "busy", status: null, took: 0 });
    const began = performance.now();
    try {
      const res = await fetch("/health", { cache: "no-store" });
      setResult({ state: res.ok ? "good" : "bad", status: res.status, took: performance.now() - began });
    } catch {
      setResult({ state: "bad", status: null, took: 0 });
    }
  };
  const says = !result
    ? ""
    : result.state === "busy"
      ? t("connect.testing")
      : result.status === null
        ? t("fault.unreachable")
        : t(result.state === "good" ? "connect.good" : "connect.bad", {
            status: result.status,
            took: as.duration(result.took),
            url: asked,
          });
  return html`
    <p class="test">
      <button type="button" class="button primary" onClick=${run} disabled=${result?.state === "busy"}>
        ${t("connect.test")}
      </button>
      <span role="status" class=${result ? `tone-${result.state}` : ""}>
        ${
          result &&
          result.state !== "busy" &&
          html`<${Icon} name=${result.state === "good" ? "check" : "errors"} />`
        }
        ${says}
      </span>
      <${Link} to="doctor">${t("connect.doctor")}<//>
    </p>
    ${
      base !== location.origin &&
      !base.startsWith("unix:") &&
      html`
        <p class="note">${t("connect.apart", { url: asked, base })}</p>
        <${Code} text=${`curl -sS ${base}/health`} label="curl" />
      `
    }
  `;
}
