// The built program with an upstream of the tests' own, for what needs a process to itself: restarts, other
// settings, exchanges that take their time.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PATIENCE = 20_000;

/// Starts `program` with a dashboard apart from the proxy, with a generated key unless `more` has one.
export async function start(program, more = {}) {
  const upstream = await answering();
  const folder = mkdtempSync(join(tmpdir(), "browser-"));
  const settings = join(folder, ".env");
  writeFileSync(settings, "WORKERS=1\n");
  const env = {
    PATH: process.env.PATH,
    PORT: "0",
    ADMIN_LISTEN: "127.0.0.1:0",
    API_BASE_URL: upstream.base,
    ...more,
  };
  let child, main, admin, key;

  async function run() {
    child = spawn(program, ["--env-file", settings], { cwd: folder, env, stdio: ["ignore", "pipe", "pipe"] });
    const said = { Proxy: null, Admin: null };
    key = env.DASHBOARD_API_KEY ?? null;
    let log = "";
    await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${program} did not start:\n${log}`)), PATIENCE);
      const hear = (chunk) => {
        log += chunk;
        for (const [, who, where] of log.matchAll(/\[(Proxy|Admin)\] listening on (http:\S+?)[,\s]/g))
          said[who] ??= where;
        key ??= /\/admin#key=(\S+)/.exec(log)?.[1] ?? null;
        if (said.Proxy && said.Admin && key) (clearTimeout(timer), resolve());
      };
      child.stdout.on("data", hear);
      child.stderr.on("data", hear);
      child.on("exit", (code) => reject(new Error(`${program} ended with ${code}:\n${log}`)));
    });
    [main, admin] = [said.Proxy, said.Admin];
    // the next run is where this one was
    env.PORT = new URL(main).port;
    env.ADMIN_LISTEN = new URL(admin).host;
  }

  /// Twice asked, it does not wait for what is under way.
  async function end() {
    child.removeAllListeners("exit");
    const isEnded = new Promise((resolve) => child.on("exit", resolve));
    for (const signal of ["SIGTERM", "SIGINT"]) child.kill(signal);
    await isEnded;
  }

  /// A generation whose prompt says what the upstream is to do: `status 429`, `slowly`,
  /// `for ever`, `fails late`, `coded`.
  function ask(prompt, { signal } = {}) {
    const body = JSON.stringify({
      model: "claude-sonnet-4-5",
      max_tokens: 16,
      stream: true,
      messages: [{ role: "user", content: prompt }],
    });
    return fetch(`${main}/v1/messages`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-api-key": "sk-ant-canary-5" },
      body,
      signal,
    })
      .then((res) => res.text())
      .catch(() => null);
  }

  await run();
  return {
    base: admin,
    get main() {
      return main;
    },
    get key() {
      return key;
    },
    ask,
    async traffic() {
      for (const prompt of ["hi", "status 400", "status 529", "coded", "hi"]) await ask(prompt);
      await fetch(`${main}/v1/models`, { headers: { "x-api-key": "sk-ant-canary-5" } }).then((res) =>
        res.text(),
      );
    },
    write: (text) => writeFileSync(settings, text),
    async restart() {
      await end();
      await new Promise((resolve) => setTimeout(resolve, 1200));
      await run();
    },
    async stop() {
      await end();
      upstream.stop();
      rmSync(folder, { recursive: true });
    },
  };
}

async function answering() {
  const server = createServer(async (req, res) => {
    let content = "";
    for await (const chunk of req) content += chunk;
    const prompt = req.method === "POST" ? (JSON.parse(content).messages?.[0]?.content ?? "") : "";
    const fields = { "request-id": "req_upstream_1", "set-cookie": "a=1" };
    const status = Number(/status (\d{3})/.exec(prompt)?.[1]);
    if (status)
      return void res.writeHead(status, { ...fields, "content-type": "application/json" }).end(
        JSON.stringify({
          type: "error",
          error: {
            type: status === 529 ? "overloaded_error" : "invalid_request_error",
            message: `the words of ${status}`,
          },
        }),
      );
    if (prompt === "coded")
      return void res
        .writeHead(500, { ...fields, "content-type": "application/json", "content-encoding": "x-unheard-of" })
        .end("????????");
    if (req.method !== "POST")
      return void res.writeHead(200, { ...fields, "content-type": "application/json" }).end('{"data":[]}');
    res.writeHead(200, { ...fields, "content-type": "text/event-stream" });
    const event = (value) => res.write(`event: ${value.type}\ndata: ${JSON.stringify(value)}\n\n`);
    event({
      type: "message_start",
      message: {
        id: "msg_1",
        type: "message",
        role: "assistant",
        model: "claude-sonnet-4-5",
        content: [],
        usage: { input_tokens: 12, output_tokens: 1 },
      },
    });
    event({ type: "content_block_start", index: 0, content_block: { type: "text", text: "" } });
    const isSlow = prompt === "slowly" || prompt === "for ever";
    for (let i = 0; (i < (prompt === "slowly" ? 60 : 3) || prompt === "for ever") && !res.destroyed; i++) {
      event({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "word " } });
      await new Promise((resolve) => setTimeout(resolve, isSlow ? 100 : 10));
    }
    if (prompt === "fails late")
      return void (
        event({
          type: "error",
          error: { type: "overloaded_error", message: "Overloaded in the middle of the stream" },
        }),
        res.end()
      );
    event({ type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: 9 } });
    event({ type: "message_stop" });
    res.end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    base: `http://127.0.0.1:${server.address().port}`,
    stop() {
      server.close();
      server.closeAllConnections();
    },
  };
}
