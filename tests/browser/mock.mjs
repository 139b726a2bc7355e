// A small server of the admin API with lively data, for work on the dashboard without the proxy.
//
//     node tests/browser/mock.mjs [PORT]       (KEY=… is its key; FAST=1 makes more requests)
//
// Pages, assets and the content security policy are those of the real thing; the data is invented.
// restart() cuts every connection, answers nothing for a second, and counts from zero; cut() ends the
// streams alone.

import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { brotliCompressSync, constants } from "node:zlib";
import { randomBytes } from "node:crypto";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..");
const CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
  "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".webmanifest": "application/manifest+json",
  ".json": "application/json",
};
const PAGES = [
  "",
  "/requests",
  "/sessions",
  "/errors",
  "/usage",
  "/spend",
  "/keys",
  "/audit",
  "/upstreams",
  "/doctor",
  "/config",
  "/connect",
  "/docs",
];
// seconds, and seconds of a step of the series
const RANGES = {
  "5m": [300, 2],
  "15m": [900, 5],
  "1h": [3600, 60],
  "6h": [21600, 120],
  "24h": [86400, 600],
  "7d": [604800, 3600],
};
const USAGE_RANGES = { "1h": 0, "6h": 0, "24h": 0, "7d": 7, "30d": 30, "90d": 90, "365d": 365 };
const UPSTREAMS = [
  "https://api.anthropic.com",
  "https://backup.example/anthropic",
  "https://api.anthropic.com",
];
const NAMES = [
  "https://api.anthropic.com",
  "https://backup.example/anthropic",
  "https://api.anthropic.com #2",
];
const STATUS = /^([1-9][0-9]{2}|[1-5]xx|pending|succeeded|failed|canceled|aborted|)$/;
const TEXTS = ["method", "path", "model", "session", "upstream", "user_agent", "q"];
// what a route may be asked; everything else is refused
const QUERIES = {
  "/overview": ["range"],
  "/errors": ["range"],
  "/requests": ["limit", "before", "since", "until", "status", ...TEXTS],
  "/usage": ["range", "by", "since", "until"],
  "/usage/series": ["range", "by", "since", "until"],
  "/usage.csv": ["range", "by", "since", "until"],
  "/usage.json": ["range", "by", "since", "until"],
  "/sessions": ["q", "sort", "order", "since", "until", "limit", "offset"],
  "/keys": ["q", "state", "limit", "after"],
  "/spend": ["by"],
  "/limits": ["limit"],
  "/audit": ["actor", "action", "since", "limit"],
};
const GROUPS = ["model", "day", "model_day", "hour", "key", "user", "team", "session"];
const MODELS = ["claude-sonnet-4-5-20250929", "claude-opus-4-5-20251101", "claude-haiku-4-5-20251001"];
const PRICES = { [MODELS[0]]: [3, 15], [MODELS[1]]: [5, 25], [MODELS[2]]: [1, 5] };
const SESSIONS = ["7c0c2d5e-40a1-4f0b-9d4b-1a5b0e8f5a11", "e1b6a7f2-93c4-4c55-8a56-5f0f3b7c9d20", null];

/** Starts the mock. `urls`: those of the proxy, if the dashboard has its own. */
export async function start({ port = 0, key, fast = false, urls = null } = {}) {
  let state = fresh();
  const sessions = new Set();
  const streams = new Set();
  const ended = [];
  let isDown = false;
  let attempts = 0;

  function fresh() {
    const state = {
      boot: randomBytes(8).toString("hex"),
      started: Date.now() - 9_912_000,
      seq: 0,
      rows: [],
      changed: new Set(),
    };
    const now = Date.now();
    for (let i = 420; i > 0; i--) {
      const row = begin(state, now - i * 2100 - Math.random() * 900);
      end(state, row, row.plan);
    }
    state.changed.clear();
    return state;
  }

  const timer = setInterval(() => {
    const now = Date.now();
    for (const row of state.rows) {
      if (row.state !== "pending") continue;
      const spent = now - row.at;
      if (row.ending) {
        end(state, row, spent);
        Object.assign(row, {
          ended: {
            by: "proxy",
            phase: row.head_ms === null ? "request" : "response",
            label: "ended_by_operator",
          },
          result: "failed",
          ending: false,
        });
      } else if (spent >= row.plan) end(state, row, spent);
      else {
        // a row is told when it begins, when its response head is there, and when it ends
        const hadHead = row.head_ms !== null;
        progress(row, spent);
        if (!hadHead && row.head_ms !== null) state.changed.add(row);
      }
    }
    for (let i = 0, n = Math.floor(Math.random() * (fast ? 40 : 3)); i < n; i++)
      begin(state, now - Math.random() * 900);
    state.rows.length = Math.min(state.rows.length, 5000);
    const pending = state.rows.filter((row) => row.state === "pending").length;
    const changed = [...state.changed];
    state.changed.clear();
    const tick = {
      now,
      boot_id: state.boot,
      in_flight: pending,
      requests_per_second: 1.2 + Math.random(),
      error_rate: 0.02 + Math.random() * 0.02,
      tokens_per_second: 140 + Math.random() * 60,
      rows: changed.slice(0, 100).map(shown),
      dropped: Math.max(0, changed.length - 100),
      running: state.rows
        .filter((row) => row.state === "pending")
        .slice(0, 200)
        .map(running),
    };
    for (const stream of streams) stream.write(`event: tick\ndata: ${JSON.stringify(tick)}\n\n`);
  }, 1000);

  const server = createServer(async (req, res) => {
    if (isDown) return req.socket.destroy();
    const url = new URL(req.url, "http://mock");
    const path = url.pathname;
    res.setHeader("content-security-policy", CSP);
    res.setHeader("x-content-type-options", "nosniff");
    try {
      if (path === "/health") return json(res, 200, { status: "ok" });
      if (path === "/" || path === "/admin/") return void res.writeHead(307, { location: "/admin" }).end();
      if (path.startsWith("/admin/api/v1/")) return await api(req, res, url);
      if (
        /^\/admin\/(?!(api|assets|grafana|prometheus)(\/|$))/.test(path) &&
        !PAGES.includes(path.slice("/admin".length)) &&
        !/^\/admin\/(manifest\.webmanifest|icon\.svg)$/.test(path) &&
        /text\/html/.test(req.headers.accept ?? "")
      )
        return ((res.statusCode = 404), await file(req, res, "index.html"));
      if (path === "/admin" || PAGES.includes(path.slice("/admin".length)))
        return await file(req, res, "index.html");
      if (/^\/admin\/(assets\/.+|manifest\.webmanifest|icon\.svg)$/.test(path))
        return await file(req, res, normalize(path.slice("/admin/".length)));
      json(res, 404, { type: "error", error: { type: "not_found_error", message: "mock" } });
    } catch (error) {
      console.error(error);
      res.destroy();
    }
  });

  async function file(req, res, name) {
    let content;
    try {
      content = await readFile(join(ROOT, "static", name));
    } catch {
      return json(res, 404, { error: { code: "not_found", message: "no such file" } });
    }
    res.setHeader("content-type", TYPES[extname(name)] ?? "application/octet-stream");
    res.setHeader("cache-control", "no-cache");
    if (/\bbr\b/.test(req.headers["accept-encoding"] ?? "") && extname(name) !== ".png") {
      res.setHeader("content-encoding", "br");
      content = brotliCompressSync(content, { params: { [constants.BROTLI_PARAM_QUALITY]: 6 } });
    }
    res.end(content);
  }

  const isKnown = (req) =>
    req.headers.authorization === `Bearer ${key}` ||
    sessions.has(/anthropic_proxy_session=([0-9a-f]+)/.exec(req.headers.cookie ?? "")?.[1]);

  async function api(req, res, url) {
    const path = url.pathname.slice("/admin/api/v1".length);
    const query = url.searchParams;
    if (path === "/session") {
      if (req.method === "GET") {
        const known = isKnown(req);
        const said = {
          role: known ? "admin" : null,
          user: null,
          method: known ? "session" : null,
          zone: known ? "UTC" : null,
        };
        return json(res, 200, { authenticated: known, ...said });
      }
      if (req.method === "DELETE") {
        sessions.delete(/anthropic_proxy_session=([0-9a-f]+)/.exec(req.headers.cookie ?? "")?.[1]);
        return void res
          .writeHead(204, { "set-cookie": "anthropic_proxy_session=; Max-Age=0; Path=/admin" })
          .end();
      }
      let body = "";
      for await (const chunk of req) body += chunk;
      if (JSON.parse(body).key !== key) {
        if (++attempts > 9)
          return json(
            res.setHeader("retry-after", "6"),
            429,
            fault("too_many_attempts", "too many attempts"),
          );
        return json(res, 401, fault("unauthorized", "this is not the key"));
      }
      attempts = 0;
      const id = randomBytes(16).toString("hex");
      sessions.add(id);
      return void res
        .writeHead(204, {
          "set-cookie": `anthropic_proxy_session=${id}; HttpOnly; SameSite=Strict; Path=/admin`,
        })
        .end();
    }
    if (!isKnown(req)) return json(res, 401, fault("unauthorized", "a key is needed"));
    const bad = refused(path, query);
    if (bad) return json(res, 400, bad);
    const range = query.get("range");
    if (path === "/overview") return json(res, 200, overview(state, range ?? "15m"));
    if (path === "/requests") return json(res, 200, list(state, query));
    if (/^\/requests\/[^/]+$/.test(path)) {
      const row = state.rows.find((row) => row.id === path.slice("/requests/".length));
      if (!row) return json(res, 404, fault("not_found", "no such request"));
      return json(res, 200, {
        ...shown(row),
        ...fields(row),
        error: row.content ? { content: row.content, truncated: false } : null,
      });
    }
    const ending = /^\/requests\/([^/]+)\/end$/.exec(path)?.[1];
    if (ending) {
      if (req.method !== "POST")
        return json(res, 405, fault("method_not_allowed", "the method is not one of POST"));
      let body = "";
      for await (const chunk of req) body += chunk;
      const row = state.rows.find((row) => row.id === ending);
      if (!row) return json(res, 404, fault("not_found", "there is nothing here"));
      if (row.state === "done" || row.ending)
        return json(res, 409, fault("too_late", "the request has ended, or its end was asked for before"));
      row.ending = true;
      ended.push({ id: row.id, reason: JSON.parse(body).reason ?? null });
      return json(res, 202, { id: row.id, label: "ended_by_operator" });
    }
    if (path === "/config" || path.startsWith("/config/")) {
      let body = "";
      for await (const chunk of req) body += chunk;
      const changed = revise(req, path, body && JSON.parse(body));
      if (changed) return json(res, changed.status, changed.value);
      return json(res, 200, config(key, server.address()?.port, urls));
    }
    const admin = await administer(req, path, query);
    if (admin) return json(res, admin.status ?? 200, admin.value);
    if (path === "/errors") return json(res, 200, errors(state, range ?? "15m"));
    if (path === "/usage") return json(res, 200, usage(state, query));
    if (path === "/usage/series") return json(res, 200, usageSeries(query));
    if (path === "/sessions") return json(res, 200, sessionList(query));
    if (path.startsWith("/sessions/")) {
      const found = sessionDetail(state, decodeURIComponent(path.slice("/sessions/".length)));
      return json(res, found.status ?? 200, found.value);
    }
    if (path === "/usage.csv") {
      const { rows } = usage(state, query);
      const lead = query.get("by") === "model_day" ? ["day", "model"] : ["key"];
      res.writeHead(200, {
        "content-type": "text/csv; charset=utf-8",
        "content-disposition": 'attachment; filename="usage.csv"',
      });
      return void res.end(
        [...lead, "requests"].join() +
          "\r\n" +
          rows
            .map((row) => [...lead.map((name) => `"${row[name] ?? ""}"`), row.requests].join() + "\r\n")
            .join(""),
      );
    }
    if (path === "/usage.json")
      return json(
        res.setHeader("content-disposition", 'attachment; filename="usage.json"'),
        200,
        usage(state, query),
      );
    if (path === "/upstreams") return json(res, 200, upstreams(state));
    if (path === "/replicas") return json(res, 200, replicas(state));
    if (path === "/openapi.json") return json(res, 200, OPENAPI);
    if (path === "/events") {
      res.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
      res.write(": hello\n\n");
      streams.add(res);
      res.on("close", () => streams.delete(res));
      return;
    }
    json(res, 404, fault("not_found", "no such route"));
  }

  await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
  const cut = () => {
    for (const stream of streams) stream.destroy();
    streams.clear();
  };
  return {
    base: `http://127.0.0.1:${server.address().port}`,
    key,
    cut,
    /// What was ended, and why.
    ended,
    state: () => state,
    async restart() {
      isDown = true;
      state = fresh();
      state.started = Date.now();
      cut();
      await new Promise((resolve) => setTimeout(resolve, 1000));
      isDown = false;
    },
    stop() {
      clearInterval(timer);
      server.close();
      server.closeAllConnections();
    },
  };
}

/// What is wrong with a query; the API takes nothing that it does not know.
function refused(path, query) {
  const known = QUERIES[path] ?? (path.startsWith("/sessions/") ? ["key"] : []);
  const names = [...query.keys()];
  if (names.some((name, i) => !known.includes(name) || names.indexOf(name) !== i))
    return fault("bad_request", `the query cannot be read: ${query}`);
  const ranges = path.startsWith("/usage") ? USAGE_RANGES : RANGES;
  const [range, by, status, limit, before] = ["range", "by", "status", "limit", "before"].map((name) =>
    query.get(name),
  );
  if (range !== null && !(range in ranges))
    return fault("bad_range", `range is not one of ${Object.keys(ranges).join(", ")}`);
  if (path.startsWith("/usage") && by !== null && !GROUPS.includes(by))
    return fault("bad_filter", `by is not one of ${GROUPS.join(", ")}`);
  if (status !== null && !STATUS.test(status))
    return fault(
      "bad_filter",
      "status is no status of three digits and not one of 1xx, 2xx, 3xx, 4xx, 5xx, pending, succeeded, " +
        "failed, canceled, aborted",
    );
  if (path === "/audit") return null;
  if (["since", "until"].some((name) => query.get(name) !== null && !/^\d+$/.test(query.get(name))))
    return fault("bad_request", "the query cannot be read");
  const long = TEXTS.find((name) => [...(query.get(name) ?? "")].length > 256);
  if (long) return fault("bad_filter", `${long} is too long or out of range`);
  if (limit !== null && !(Number(limit) >= 1 && Number(limit) <= 1000))
    return fault("bad_filter", "limit is too long or out of range");
  if (before !== null && !/^\d+$/.test(before)) return fault("bad_request", "the query cannot be read");
  return null;
}

const fault = (code, message) => ({ error: { code, message } });

function json(res, status, value) {
  res.writeHead(status, { "content-type": "application/json" });
  res.end(JSON.stringify(value));
}

const pick = (list, at = Math.random()) => list[Math.floor(at * list.length)];
const sum = (list, of) => list.reduce((total, item) => total + of(item), 0);
const none = () => ({ input: 0, output: 0, cache_read: 0, cache_write_5m: 0, cache_write_1h: 0 });

function begin(state, at) {
  const kind = Math.random();
  const [method, path, route] =
    kind < 0.78
      ? ["POST", "/v1/messages", "messages"]
      : kind < 0.93
        ? ["POST", "/v1/messages/count_tokens", "count_tokens"]
        : kind < 0.97
          ? ["GET", "/v1/models", "models"]
          : kind < 0.99
            ? ["GET", "/v1/organizations/usage_report/messages", "other"]
            : ["HEAD", "/v1/models", "models"];
  const isGeneration = route === "messages";
  const row = {
    seq: ++state.seq,
    id: "req_" + randomBytes(12).toString("hex"),
    at: Math.round(at),
    state: "pending",
    client: pick(["127.0.0.1", "10.20.0.7", "2001:db8::17"]),
    version: pick(["1.1", "2"]),
    method,
    path,
    route,
    status: null,
    upstream: pick(NAMES, Math.random() ** 3),
    upstream_request_id: null,
    session: pick(SESSIONS),
    agent: null,
    key: null,
    key_name: null,
    user: null,
    team: null,
    user_agent: pick([
      "claude-cli/2.1.330 (external, cli)",
      "anthropic-sdk-python/0.68.0",
      "curl/8.14.1",
      null,
    ]),
    bytes_in: Math.round(isGeneration ? 2e4 + Math.random() * 3e5 : 300 + Math.random() * 4000),
    bytes_out: 0,
    connected_ms: null,
    connecting_ms: null,
    head_ms: null,
    ttft_ms: null,
    duration_ms: 0,
    overhead_ms: Math.random() * 0.3,
    ended: null,
    ended_at: null,
    result: null,
    ending: false,
    edit: isGeneration ? pick(["replaced", "inserted", "unchanged"]) : null,
    verify: isGeneration ? pick(["same", "same", "incomplete"]) : null,
    model: isGeneration ? (Math.random() < 0.02 ? "local-experiment-1" : pick(MODELS)) : null,
    stream: isGeneration ? Math.random() < 0.9 : null,
    max_tokens: isGeneration ? 32000 : null,
    tokens: null,
    output_events: null,
    server_tools: 0,
    cost_usd: null,
    at_least: false,
    estimate: null,
    other_models: [],
    inference_geo: null,
    speed: null,
    service_tier: null,
    metering_failure: null,
    stop_reason: null,
    error_type: null,
    plan: isGeneration ? 1500 + Math.random() * 14000 : 60 + Math.random() * 400,
    outcome: Math.random(),
  };
  state.rows.unshift(row);
  state.changed.add(row);
  return row;
}

function progress(row, spent) {
  const isNew = row.seq % 3 === 0;
  row.connecting_ms ??= isNew ? 18 + Math.random() * 40 : null;
  row.connected_ms ??= (row.connecting_ms ?? 0) + 0.4;
  const head = row.connected_ms + Math.min(900, row.plan * 0.2);
  if (spent > head && row.head_ms === null)
    ((row.head_ms = head), (row.status = 200), (row.upstream_request_id = "req_011C" + row.id.slice(4, 20)));
  if (row.route === "messages" && spent > head + 240 && row.ttft_ms === null) row.ttft_ms = head + 180;
  if (row.head_ms !== null) row.bytes_out = Math.round((spent - row.head_ms) * 6);
  row.duration_ms = spent;
  if (row.ttft_ms !== null) {
    row.tokens = { ...none(), input: 20, cache_read: Math.round(row.bytes_in / 4.2), output: 1 };
    row.output_events = Math.round((spent - row.ttft_ms) / 20);
  }
}

/// How far a row in flight has come.
function running(row) {
  return {
    seq: row.seq,
    id: row.id,
    upstream: row.upstream,
    bytes_in: row.bytes_in,
    bytes_out: row.bytes_out,
    ttft_ms: row.ttft_ms,
    duration_ms: Date.now() - row.at,
    tokens: row.tokens ?? none(),
    output_events: row.output_events ?? 0,
    ending: row.ending,
  };
}

function end(state, row, spent) {
  progress(row, spent);
  row.state = "done";
  row.ended_at = Math.round(row.at + spent);
  row.output_events = row.tokens = null;
  row.upstream_request_id = "req_011C" + row.id.slice(4, 20);
  row.ended = { by: "complete", phase: "response", label: null };
  row.status = 200;
  const fails = (status, type, message, took) => {
    row.status = status;
    row.error_type = type;
    row.content = JSON.stringify(
      { type: "error", error: { type, message }, request_id: row.upstream_request_id },
      null,
      0,
    );
    row.ttft_ms = null;
    row.duration_ms = took;
    row.head_ms = took - 1;
    row.bytes_out = row.content.length;
  };
  if (row.outcome > 0.985) fails(529, "overloaded_error", "Overloaded", 240 + Math.random() * 90);
  else if (row.outcome > 0.97)
    fails(
      429,
      "rate_limit_error",
      "This request would exceed the rate limit for your organization of 400,000 input tokens per minute.",
      90,
    );
  else if (row.outcome > 0.965) {
    // in a coding that nobody here can read
    fails(500, null, "", 130);
    row.content = undefined;
    row.coding = "zstd";
    row.bytes_out = 918;
  } else if (row.outcome > 0.96)
    fails(
      400,
      "invalid_request_error",
      "messages.3.content.0: unexpected `tool_use_id` found in `tool_result` blocks: toolu_01. Each " +
        "`tool_result` block must have a corresponding `tool_use` block in the previous message.",
      70,
    );
  else if (row.outcome > 0.95) {
    fails(502, "api_error", "the upstream could not be reached: connection refused", 12);
    row.ended = { by: "proxy", phase: "request", label: "connection_refused" };
    row.upstream_request_id = row.head_ms = null;
  } else if (row.outcome > 0.935) row.ended = { by: "client", phase: "response", label: "client_gone" };
  else if (row.outcome > 0.93)
    row.ended = { by: "upstream", phase: "response", label: "connection_terminated" };
  // an upstream that says in a 200 that it failed
  if (row.outcome > 0.92 && row.outcome <= 0.93 && row.route === "messages") {
    row.error_type = "overloaded_error";
    row.content =
      'event: error\ndata: {"type":"error","error":{"type":"overloaded_error",' +
      '"message":"Overloaded in the middle of the stream"}}';
  }
  if (row.route === "models" && row.status === 200 && row.seq % 4 === 0) row.status = 304;
  if (row.route === "messages" && row.status === 200) {
    const cached = Math.round(row.bytes_in / 4.2);
    row.tokens = {
      input: Math.round(20 + Math.random() * 900),
      output: Math.round(row.plan / 16),
      cache_read: Math.random() < 0.85 ? cached : 0,
      cache_write_5m: Math.round(Math.random() * 2400),
      cache_write_1h: 0,
    };
    row.stop_reason = row.ended.by === "complete" ? pick(["tool_use", "tool_use", "end_turn"]) : null;
    const price = PRICES[row.model];
    row.cost_usd = price
      ? (row.tokens.input * price[0] +
          row.tokens.output * price[1] +
          row.tokens.cache_read * price[0] * 0.1 +
          row.tokens.cache_write_5m * price[0] * 1.25) /
        1e6
      : null;
    if (row.ended.by !== "complete") {
      row.at_least = true;
      row.estimate = {
        output: row.tokens.output,
        cost_usd: row.cost_usd === null ? null : row.cost_usd * 1.4,
      };
      row.tokens.output = 1;
    }
    row.service_tier = "standard";
    if (row.seq % 9 === 0)
      row.other_models = [
        { model: MODELS[2], tokens: { ...none(), input: 900, output: 120 }, cost_usd: 0.0015 },
      ];
  }
  row.result = isCanceled(row) ? "canceled" : isFailed(row) ? "failed" : "succeeded";
  state.changed.add(row);
}

function shown({ plan, outcome, content, coding, ...row }) {
  if (row.state !== "pending") return row;
  // of a request that has begun no more is known than how it began, until its response has
  const early = [
    "status",
    "stream",
    "max_tokens",
    "upstream_request_id",
    "connected_ms",
    "connecting_ms",
    "head_ms",
  ];
  const unknown = row.head_ms === null ? early : [];
  return {
    ...row,
    ...Object.fromEntries(unknown.map((name) => [name, null])),
    overhead_ms: 0,
    duration_ms: Date.now() - row.at,
  };
}

/// The comparison of one direction.
function verified(result, octets) {
  const digest = { octets, sha256: "9f86d081884c7d65".repeat(4) };
  return { result, received: digest, sent: digest, edit: null };
}

/// The fields of a row, as they are shown: what may be a secret is null.
function fields(row) {
  const list = (fields) =>
    fields.filter(([, value]) => value !== undefined).map(([name, value]) => ({ name, value }));
  return {
    request_fields: list([
      ["host", "127.0.0.1:8088"],
      ["user-agent", "claude-cli/2.0.14 (external, cli)"],
      ["x-api-key", null],
      ["anthropic-version", "2023-06-01"],
      [
        "anthropic-beta",
        "claude-code-20250219,interleaved-thinking-2025-05-14,fine-grained-tool-streaming-2025-05-14",
      ],
      ["content-type", row.method === "POST" ? "application/json" : undefined],
      ["content-length", row.method === "POST" ? String(row.bytes_in) : undefined],
      ["cookie", null],
    ]),
    verified: row.verify && {
      result: row.verify,
      request: verified(row.verify, row.bytes_in),
      response: verified(row.verify, row.bytes_out),
    },
    response_fields:
      row.head_ms === null
        ? []
        : list([
            ["date", new Date(row.at).toUTCString()],
            [
              "content-type",
              row.content
                ? "application/json"
                : row.route === "messages"
                  ? "text/event-stream; charset=utf-8"
                  : "application/json",
            ],
            ["content-encoding", row.coding],
            ["request-id", row.upstream_request_id],
            ["set-cookie", null],
            ["cf-ray", "8f1c0a2b3c4d5e6f-FRA"],
          ]),
  };
}

const isCanceled = (row) => row.state === "done" && row.ended.by === "client";
const isFailed = (row) =>
  row.state === "done" &&
  !isCanceled(row) &&
  (row.status >= 400 || row.ended.by !== "complete" || row.error_type !== null);
const isAborted = (row) =>
  row.status === null || (row.ended.by !== "complete" && row.ended.phase === "response");
const isOf = (row, status) =>
  !status ||
  (row.state === "pending"
    ? status === "pending"
    : status === "aborted"
      ? isAborted(row)
      : [row.result, String(row.status), `${Math.floor(row.status / 100)}xx`].includes(status));

function list(state, query) {
  const status = query.get("status");
  const before = Number(query.get("before") ?? Infinity);
  const limit = Number(query.get("limit") ?? 200);
  const has = (name, value) =>
    !query.get(name) || (value ?? "").toLowerCase().includes(query.get(name).toLowerCase());
  const items = state.rows.filter(
    (row) =>
      isOf(row, status) &&
      row.at >= Number(query.get("since") ?? 0) &&
      row.at < Number(query.get("until") || Infinity) &&
      (!query.get("method") || row.method.toLowerCase() === query.get("method").toLowerCase()) &&
      ["path", "model", "session", "upstream", "user_agent"].every((name) => has(name, shown(row)[name])) &&
      has(
        "q",
        [
          row.id,
          row.path,
          row.session,
          row.client,
          row.user_agent,
          ...["model", "upstream_request_id", "upstream", "error_type"].map((name) => shown(row)[name]),
        ].join(" "),
      ),
  );
  const done = items.filter((row) => row.state === "done" && row.seq < before).sort((a, b) => b.seq - a.seq);
  const page = done.slice(0, limit);
  const pending = query.has("before") ? [] : items.filter((row) => row.state === "pending");
  return {
    items: [...pending, ...page].map(shown),
    next_before: done.length > limit ? page.at(-1).seq : null,
    total: items.length,
  };
}

function errors(state, range) {
  const groups = new Map();
  const failed = state.rows.filter((row) => isFailed(row) && row.at > Date.now() - RANGES[range][0] * 1000);
  for (const row of failed) {
    const { by, label } = row.ended;
    const name = [row.status, row.error_type, row.upstream, by, label].join("|");
    const group = groups.get(name) ?? {
      status: row.status,
      type: row.error_type,
      upstream: row.upstream,
      ours: by === "proxy",
      by,
      label,
      count: 0,
      first_at: row.at,
      last_at: row.at,
      sample: { id: row.id, content: row.content ?? null },
    };
    group.count++;
    group.first_at = Math.min(group.first_at, row.at);
    group.last_at = Math.max(group.last_at, row.at);
    groups.set(name, group);
  }
  // attempts whose request went on to the next upstream
  for (const [status, label] of [
    [502, "failed_over"],
    [null, "unreachable"],
  ]) {
    const row = state.rows.find((row) => row.state === "done");
    groups.set(label, {
      status,
      type: null,
      upstream: NAMES[2],
      ours: false,
      by: "upstream",
      label,
      count: 3,
      first_at: row.ended_at,
      last_at: row.ended_at,
      sample: { id: row.id, content: null },
    });
  }
  failed.sort((a, b) => b.ended_at - a.ended_at);
  return {
    groups: [...groups.values()].sort((a, b) => b.count - a.count),
    items: failed.slice(0, 100).map(shown),
    kept: 1000,
    since: state.started,
  };
}

function added(rows) {
  const tokens = none();
  for (const row of rows) if (row.tokens) for (const kind in tokens) tokens[kind] += row.tokens[kind];
  return tokens;
}

const share = (tokens) => {
  const read = tokens.input + tokens.cache_read + tokens.cache_write_5m + tokens.cache_write_1h;
  return read ? tokens.cache_read / read : 0;
};

function usage(state, query) {
  const by = query.get("by") ?? "model";
  const days = USAGE_RANGES[query.get("range") ?? "24h"] ?? 30;
  const groups = new Map();
  for (const row of state.rows.filter((row) => row.tokens)) {
    const moment = row.at - (days ? row.seq % Math.min(days, 40) : 0) * 86_400_000;
    const day = ["day", "model_day"].includes(by) ? new Date(moment).toISOString().slice(0, 10) : null;
    const model = ["model", "model_day"].includes(by) ? row.model : null;
    const hour = Math.floor(moment / 3_600_000) * 3_600_000;
    const at = by === "hour" ? hour : day && Date.parse(day);
    const owner = OWNERS[row.seq % OWNERS.length];
    const whose = { key: owner.id, user: owner.user, team: owner.team, session: row.session }[by];
    const key =
      by === "hour"
        ? new Date(hour).toISOString()
        : by in owner || whose !== undefined
          ? (whose ?? "")
          : [day, model].filter((part) => part !== null).join(" ");
    const name = by === "key" ? owner.name : null;
    const group = groups.get(key) ?? { key, at, name, day, model, rows: [] };
    groups.set(key, group);
    group.rows.push(row);
  }
  return {
    rows: [...groups.values()]
      .map(({ key, at, name, day, model, rows }) => {
        const tokens = added(rows);
        return {
          key,
          at,
          name,
          day,
          model,
          requests: rows.length,
          tokens,
          cache_hit_share: share(tokens),
          ...costs(rows),
        };
      })
      .sort((a, b) => (a.day === b.day ? b.cost_usd - a.cost_usd : a.day < b.day ? 1 : -1)),
    shared: { complete: true, read_at: Date.now() },
    prices_date: "2025-11-24",
    zone: "UTC",
    not_priced: ["regional_premium", "priority_tier", "code_execution_time"],
  };
}

/// Usage over time: a month by the hour, or longer by the day.
function usageSeries(query) {
  const hours = { "1h": 1, "6h": 6, "24h": 24, "7d": 168, "30d": 720 }[query.get("range") ?? "24h"];
  const since = Number(query.get("since"));
  const step = hours || since ? 3_600_000 : 86_400_000;
  const until = Math.min(Number(query.get("until")) || Date.now(), Date.now());
  const count = hours ?? (since ? Math.max(1, Math.ceil((until - since) / step)) : 90);
  const first = Math.floor((until - (count - 1) * step) / step) * step;
  const by = query.get("by");
  const names = { key: OWNERS.map((it) => it.id), team: ["core", "research"] }[by] ?? [...MODELS, "other"];
  return {
    step_ms: step,
    t: Array.from({ length: count }, (_, i) => first + i * step),
    lines: names.map((key, line) => {
      const wave = (i) => Math.max(0, Math.sin(i / 9 + line) + 0.4) / (line + 1);
      const of = (size) => Array.from({ length: count }, (_, i) => Math.round(wave(i) * size * 100) / 100);
      return {
        key,
        name: by === "key" ? OWNERS[line].name : null,
        requests: of(20),
        tokens_in: of(90_000),
        tokens_out: of(4_000),
        cost_usd: of(2),
      };
    }),
  };
}

function sums(seed) {
  const at = Date.now() - seed * 5_400_000;
  return {
    first_at: at - 2_700_000 - seed * 60_000,
    last_at: at,
    duration_ms: 2_700_000 + seed * 60_000,
    busy_ms: 900_000 + seed * 1000,
    requests: 40 + seed,
    errors: seed % 4 === 1 ? 2 : 0,
    tokens: {
      input: 4200,
      output: 18_300,
      cache_read: 1_900_000,
      cache_write_5m: 120_000,
      cache_write_1h: 0,
    },
    cache_hit_share: 0.94 - seed / 100,
    cache_breaks: seed % 3,
    cost_usd: 1.37 + seed,
    cost_is_floor: seed === 2,
  };
}

function session(seed) {
  const owner = OWNERS[seed % OWNERS.length];
  return {
    id: SESSIONS[seed] ?? `5e55100${seed}-40a1-4f0b-9d4b-1a5b0e8f5a11`,
    key: owner.id || null,
    key_name: owner.name,
    user: owner.user,
    team: owner.team,
    user_agent: "claude-cli/2.1.332 (external, cli)",
    agents: 3,
    models: [MODELS[1], MODELS[2]],
    ...sums(seed),
  };
}

function sessionList(query) {
  const all = Array.from({ length: 130 }, (_, seed) => session(seed));
  const q = (query.get("q") ?? "").toLowerCase();
  const found = all.filter((one) => JSON.stringify(one).toLowerCase().includes(q));
  const sorts = { cost: (one) => one.cost_usd, requests: (one) => one.requests };
  const of = sorts[query.get("sort")] ?? ((one) => one.last_at);
  found.sort((a, b) => of(b) - of(a));
  const [offset, limit] = [Number(query.get("offset")), Number(query.get("limit")) || 100];
  return {
    items: found.slice(offset, offset + limit),
    total: found.length,
    next_offset: offset + limit < found.length ? offset + limit : null,
    shared: { complete: true, read_at: Date.now() },
  };
}

function sessionDetail(state, id) {
  const seed = Array.from({ length: 130 }, (_, i) => i).find((i) => session(i).id === id);
  if (seed === undefined) return { status: 404, value: fault("not_found", "no such session") };
  const rows = state.rows.filter((row) => row.session === id && row.state === "done").slice(0, 20);
  const agent = (id, parent, depth) => ({
    id,
    parent,
    depth,
    models: [MODELS[depth % 3]],
    ...sums(seed + depth),
  });
  const broken = (cause, message) => ({
    at: Date.now() - 600_000,
    request: rows[0]?.id ?? "req_0",
    agent: message ? null : "a1b2c3d4e5f60718a",
    model: MODELS[1],
    cause,
    message,
    expected: 84_200,
    read: 12_100,
    written: 73_000,
  });
  return {
    value: {
      ...session(seed),
      cache_breaks: 4,
      tree: [
        agent(null, null, 0),
        agent("a1b2c3d4e5f60718a", null, 1),
        agent("b1b2c3d4e5f60718b", "a1b2c3d4e5f60718a", 2),
      ],
      causes: [
        { cause: "system_changed", count: 2 },
        { cause: "message_changed", count: 1 },
        { cause: "ttl_lapsed", count: 1 },
      ],
      breaks: [broken("message_changed", 7), broken("system_changed", null), broken("ttl_lapsed", null)],
      last_requests: rows.map(shown),
    },
  };
}

/// Keys, budgets and the audit. What is made lasts as long as the mock.
const OWNERS = [
  { id: "0aB3zZ9xY1", name: "anna-laptop", user: "anna", team: "core" },
  { id: "1bC4aA0yZ2", name: "ci", user: null, team: "core" },
  { id: "2cD5bB1zA3", name: "li-workstation", user: "li", team: "research" },
];
const made = [];
const iso = (later) => new Date(Date.now() + later).toISOString();

function keyRow({ id, name, user, team, state = "active", limits, models }) {
  return {
    id,
    name,
    user,
    team,
    state,
    last4: ["x9Kq"],
    secrets: [],
    created_at: iso(-9e8),
    expires_at: name === "ci" ? iso(6e9) : null,
    last_used_at: name === "ci" ? null : iso(-60_000),
    revoked_at: null,
    revoked_reason: state === "revoked" ? "lost" : null,
    models: models ?? (name === "ci" ? ["claude-haiku-*"] : []),
    paths: [],
    sources: [],
    limits: limits ?? [
      { kind: "spend", amount_usd: 50, period: "month", zone: "Europe/Berlin" },
      { kind: "at_once", amount: 8 },
    ],
    upstream_key_env: null,
  };
}

let doctorReport = null;

function diagnosis(spends) {
  const check = (group, id, status, detail, more) => ({
    group,
    id,
    status,
    ms: 12,
    detail,
    fix: null,
    evidence: [],
    ...more,
  });
  const subject = UPSTREAMS[0];
  const checks = [
    check("configuration", "settings", "ok", "those of the files are in effect"),
    check("upstream", "dns", "ok", "api.anthropic.com has 2 addresses", {
      subject,
      evidence: ["::1", "127.0.0.1"],
    }),
    check("upstream", "tls", "warn", "certificate by Corp Root, 90 days left; no public authority", {
      subject,
      fix: "put its certificate into UPSTREAM_CA_FILE",
    }),
    check("upstream", "stream", spends ? "ok" : "skip", spends ? "not buffered" : "not tried", { subject }),
    check("listener", "round_trip", "fail", "no answer", {
      subject: "http://127.0.0.1:8088",
      fix: "start it",
    }),
  ];
  const count = (status) => checks.filter((one) => one.status === status).length;
  const counts = { ok: count("ok"), warn: count("warn"), fail: count("fail"), skip: count("skip") };
  return { version: "0.1.0", at: Date.now(), ms: 812, counts, checks };
}

async function administer(req, path, query) {
  let text = "";
  if (req.method === "POST") for await (const chunk of req) text += chunk;
  const body = text ? JSON.parse(text) : {};
  const secret = "ap_0aB3zZ9xY1_TheSecretOfTheMockThatIsShownOnce0123456";
  const all = () => [...OWNERS, ...made].map(keyRow);
  if (path === "/keys" && req.method === "POST") {
    if (body.name === "taken") return { status: 409, value: fault("conflict", "a key has this name") };
    const owner = { id: `n${String(made.length).padStart(9, "0")}`, user: null, team: null, ...body };
    made.push(owner);
    return { status: 201, value: { ...keyRow(owner), key: secret, warnings: [] } };
  }
  if (path === "/keys") {
    const items = all().filter((one) => JSON.stringify(one).includes(query.get("q") ?? ""));
    return { value: { items, total: items.length, next_after: null } };
  }
  const [, id, verb] = /^\/keys\/([^/]+)\/(rotate|revoke)$/.exec(path) ?? [];
  if (verb) {
    const owner = [...OWNERS, ...made].find((one) => one.id === id);
    if (!owner) return { status: 404, value: fault("not_found", "no such key") };
    if (verb === "revoke") owner.state = "revoked";
    const row = keyRow(owner);
    return { value: verb === "rotate" ? { ...row, key: secret, warnings: [] } : row };
  }
  if (path === "/spend") {
    const by = query.get("by");
    const names = { org: ["org"], team: ["team:core", "team:research"], user: ["user:anna", "user:li"] };
    const bar = (subject, i) => ({
      subject,
      name: by === "key" ? OWNERS[i].name : null,
      period: i === 1 ? "day" : "month",
      zone: "Europe/Berlin",
      models: i === 1 ? "claude-opus-*" : null,
      limit_usd: 500,
      spent_usd: [412.5, 120, 20][i],
      held_usd: i ? 0 : 14.2,
      left_usd: [73.3, 380, 480][i],
      percent: [85.3, 24, 4][i],
      resets_at: iso(2.2e8),
      forecast_usd: [560, by === "user" ? null : 130, null][i],
      // a replica that has not reached the shared state knows its own part alone
      shared: {
        state: by === "user" && i ? "lost" : "fresh",
        age_seconds: by === "user" && i ? null : 0.2,
        replicas: 2,
        counts: by === "user" && i ? "unknown" : "all",
        unreachable: "closed",
      },
    });
    return { value: { items: (names[by] ?? OWNERS.map((one) => `key:${one.id}`)).map(bar) } };
  }
  if (path === "/limits") {
    const row = (subject, name, kind, bound, spent) => ({
      ...{ subject, name, kind, amount: bound, bound, spent, held: 0, left: bound - spent },
      ...{ percent: (100 * spent) / bound, resets_at: null, default_of: null, waiting: 0, shared: null },
    });
    const items = [
      row("team:core", null, "output_tokens_per_minute", 80000, 76000),
      row(`key:${OWNERS[0].id}`, OWNERS[0].name, "requests_per_minute", 60, 12),
    ];
    return { value: { items, total: 2 } };
  }
  if (path === "/audit/verify")
    return {
      value: { ok: true, unanchored: null, chains: [{ chain: "r1", first: 1, last: 6, broken: null }] },
    };
  if (path === "/audit") {
    const line = (seq, action, result, more) => ({
      seq,
      at: iso((seq - 7) * 3_600_000),
      actor: { type: "session", id: "dashboard", ip: "10.0.0.7", ua: null },
      action,
      target: { type: "key", id: "0aB3zZ9xY1" },
      before: null,
      after: null,
      reason: null,
      request_id: `req_${seq}`,
      result,
      replica: "r1",
      ...more,
    });
    const items = [
      line(1, "key.create", "intent", { after: { name: "anna-laptop", team: "core" } }),
      line(2, "key.create", "done", { after: { name: "anna-laptop", team: "core" } }),
      line(3, "session.open", "refused: a wrong key", {
        actor: { type: "anonymous", id: "-", ip: "10.9.9.9" },
      }),
      line(4, "limits.set", "failed: the disk is full\nnothing was changed", {
        target: { type: "subject", id: "team:core" },
      }),
      line(5, "key.revoke", "done", { reason: "the laptop was lost", before: { state: "active" } }),
    ];
    return { value: { items: items.filter((one) => one.action.startsWith(query.get("action") ?? "")) } };
  }
  if (path === "/doctor" && req.method === "POST") {
    doctorReport = diagnosis(body.spend);
    return { value: doctorReport };
  }
  if (path === "/doctor") return { value: { running: false, report: doctorReport } };
  return null;
}

/// What rows cost, as far as that is known.
function costs(rows) {
  const cost_usd = sum(rows, (row) => row.cost_usd ?? 0);
  const unpriced_requests = rows.filter((row) => row.tokens && row.cost_usd === null).length;
  const at_least = rows.some((row) => row.at_least);
  return {
    cost_usd,
    unpriced: unpriced_requests > 0,
    unpriced_requests,
    at_least,
    cost_is_floor: unpriced_requests > 0 || at_least,
    cost_estimate_usd:
      cost_usd + sum(rows, (row) => Math.max(0, (row.estimate?.cost_usd ?? 0) - (row.cost_usd ?? 0))),
  };
}

/// Four replicas: one of another version, one of other settings whose circuit is open, one that is silent.
function replicas(state) {
  const now = Date.now();
  const one = (n, more) => ({
    boot_id: `${n}`.repeat(32),
    name: `proxy-${n}`,
    own: n === 0,
    state: "running",
    version: "1.4.0",
    version_differs: false,
    config: "5f2b8c0e91aa",
    config_differs: false,
    config_differing: [],
    started_at: state.started - n * 60_000,
    seen_at: now - 300,
    in_flight: 10 * n,
    requests: 1000 * n + 7,
    errors: n,
    open_circuits: [],
    ...more,
  });
  const items = [
    one(0),
    one(1, { version: "1.3.9", version_differs: true, state: "draining" }),
    one(2, {
      config: "0c93d1f7ab42",
      config_differs: true,
      config_differing: ["STREAM_IDLE_TIMEOUT", "UPSTREAM_API_KEYS"],
      open_circuits: [UPSTREAMS[0]],
    }),
    one(3, { state: "silent", seen_at: now - 6000 }),
  ];
  return {
    shared: true,
    fault: null,
    read_at: now,
    items,
    sums: {
      replicas: items.length,
      in_flight: sum(items, (it) => it.in_flight),
      requests: sum(items, (it) => it.requests),
      errors: sum(items, (it) => it.errors),
    },
  };
}

function overview(state, range) {
  const now = Date.now();
  const [span, step] = RANGES[range].map((seconds) => seconds * 1000);
  const rows = state.rows.filter((row) => row.at > now - span);
  const done = rows.filter((row) => row.state === "done");
  const failed = done.filter(isFailed).length;
  const canceled = done.filter(isCanceled).length;
  const succeeded = done.length - failed - canceled;
  const sorted = (of) =>
    done
      .map(of)
      .filter((x) => x !== null)
      .sort((a, b) => a - b);
  const spread = (list) => ({
    avg: list.length ? sum(list, (x) => x) / list.length : null,
    p50: list[list.length >> 1] ?? null,
    p95: list[Math.floor(list.length * 0.95)] ?? null,
    p99: list[Math.floor(list.length * 0.99)] ?? null,
  });
  const tokens = added(done);
  const series = {
    t: [],
    requests: [],
    errors: [],
    canceled: [],
    bytes_in: [],
    bytes_out: [],
    tokens_in: [],
    tokens_out: [],
    cost_usd: [],
    duration_p50: [],
    duration_p95: [],
    duration_p99: [],
    ttft_p50: [],
    ttft_p95: [],
    ttft_p99: [],
  };
  const first = Math.floor(now / step) * step - span + step;
  for (let t = first; t <= now; t += step) {
    const wave = (n) =>
      Math.max(
        0,
        Math.sin((t / span) * 19 + n) + Math.sin((t / span) * 61 + n * 2) * 0.4 + 1.2 + noise(t + n) * 0.8,
      );
    const quiet = noise(t * 3) > 0.92;
    series.t.push(t);
    series.requests.push(Math.round(wave(0) * 2 * Math.min(60, step / 1000)));
    series.errors.push(noise(t + 7) > 0.93 ? Math.ceil(wave(1)) : 0);
    series.canceled.push(noise(t + 11) > 0.96 ? 1 : 0);
    series.bytes_in.push(Math.round(wave(0) * 2e5));
    series.bytes_out.push(Math.round(wave(0) * 6e4));
    series.tokens_in.push(Math.round(wave(0) * 4e4));
    series.tokens_out.push(Math.round(wave(2) * 300));
    series.cost_usd.push(wave(0) * 0.02);
    for (const [name, base] of [
      ["duration", 5200],
      ["ttft", 820],
    ]) {
      series[`${name}_p50`].push(quiet ? null : base * (0.7 + wave(3) * 0.15));
      series[`${name}_p95`].push(quiet ? null : base * (1.7 + wave(4) * 0.3));
      series[`${name}_p99`].push(quiet ? null : base * (2.4 + wave(5) * 0.5));
    }
  }
  const paths = [...new Set(rows.map((row) => row.path))].map((path) => {
    const of = done.filter((row) => row.path === path);
    return {
      path,
      requests: of.length,
      errors: of.filter(isFailed).length,
      avg_ms: of.length ? sum(of, (row) => row.duration_ms) / of.length : 0,
      bytes_out: sum(of, (row) => row.bytes_out),
    };
  });
  return {
    now,
    range,
    step_ms: step,
    version: "0.1.0",
    boot_id: state.boot,
    started_at: state.started,
    uptime_ms: now - state.started,
    updated_at: now,
    in_flight: rows.length - done.length,
    connections: 9,
    shared: true,
    lost: state.lost ?? 0,
    totals: {
      requests: done.length,
      succeeded,
      failed,
      canceled,
      success_rate: done.length ? succeeded / done.length : 1,
      error_rate: done.length ? failed / done.length : 0,
      canceled_rate: done.length ? canceled / done.length : 0,
      requests_per_second: rows.length / Math.min(span / 1000, 900),
      bytes_in: sum(rows, (row) => row.bytes_in),
      bytes_out: sum(rows, (row) => row.bytes_out),
      duration_ms: spread(sorted((row) => row.duration_ms)),
      ttft_ms: spread(sorted((row) => row.ttft_ms)),
      tokens,
      tokens_per_second: tokens.output / Math.min(span / 1000, 900),
      cache_hit_share: share(tokens),
      at_least_requests: done.filter((row) => row.at_least).length,
      ...costs(done),
    },
    today: {
      requests: done.length * 3,
      cost_usd: sum(done, (row) => row.cost_usd ?? 0) * 3,
      at_least_requests: done.filter((row) => row.at_least).length,
      tokens,
    },
    prices_date: "2025-11-24",
    zone: "UTC",
    series,
    paths: paths.sort((a, b) => b.requests - a.requests),
    reloads: [
      { at: now - span * 0.4, ok: true, what: "env/.env" },
      { at: now - span * 0.15, ok: false, what: "PORT: not a number" },
    ],
    upstreams: UPSTREAMS.map((url, i) => ({ url, name: NAMES[i], ...HEALTH[i] })),
  };
}

const noise = (x) => {
  const y = Math.sin(x * 12.9898) * 43758.5453;
  return y - Math.floor(y);
};

const HEALTH = [
  ["failing", 2],
  ["unknown", 0],
  ["open", 0],
].map(([circuit, failures]) => ({ circuit, failures, failures_to_open: 5 }));

function upstreams(state) {
  return {
    items: UPSTREAMS.map((url, i) => {
      const of = state.rows.filter((row) => row.upstream === NAMES[i]);
      return {
        url,
        name: NAMES[i],
        ...HEALTH[i],
        http: i ? "2" : "1.1",
        own_key: !!i,
        idle_connections: i ? 0 : 6,
        requests: of.length,
        errors: of.filter(isFailed).length,
        status_429: of.filter((row) => row.status === 429).length,
        status_529: of.filter((row) => row.status === 529).length,
        connects: Math.round(of.length / 3),
        connect_failures: of.filter((row) => row.status === 502).length,
        connect_ms: { p50: 22.4, p95: 61.8 },
        head_ms: { p50: 640, p95: 2210 },
        rate_limit: i
          ? []
          : [
              { name: "requests-remaining", value: "3998", at: Date.now() - 4000 },
              { name: "input-tokens-remaining", value: "1874000", at: Date.now() - 4000 },
              { name: "output-tokens-remaining", value: "392000", at: Date.now() - 4000 },
              { name: "retry-after", value: "12", at: Date.now() - 320_000 },
            ],
      };
    }),
  };
}

/** The file of settings: its version, what it sets, and its history. */
const file = { version: 1, values: { API_BASE_URL: "https://api.anthropic.com" }, history: [] };

/** Changes the file as the proxy does, or gives its history. */
function revise(req, path, body) {
  const version = `"v${file.version}"`;
  if (path === "/config/history")
    return { status: 200, value: { items: file.history.map(({ before, ...entry }) => entry).reverse() } };
  if (path === "/config" ? req.method !== "PATCH" : req.method !== "POST") return null;
  if (req.headers["if-match"] !== version)
    return {
      status: 412,
      value: {
        error: {
          code: "stale_version",
          message: "the configuration was changed since you loaded it",
          version: `v${file.version}`,
          diff: [{ kind: "added", text: "UPSTREAM_TIMEOUT=9m" }],
        },
      },
    };
  const past = file.history.find((one) => one.id === body.to);
  const after = past ? past.before : { ...file.values, ...body.set };
  for (const [name, value] of Object.entries(after)) if (!value) delete after[name];
  const names = [...new Set([...Object.keys(file.values), ...Object.keys(after)])];
  const changed = names.filter((name) => file.values[name] !== after[name]);
  const bad = changed.find((name) => /TIMEOUT/.test(name) && after[name] && !/^\d/.test(after[name]));
  if (bad)
    return {
      status: 400,
      value: {
        error: {
          code: "invalid_configuration",
          message: `invalid configuration\n  ${bad}: is not a duration\nnothing was changed`,
        },
      },
    };
  const shown = (name, value) => `${name}=${/KEY/.test(name) ? `(${value.length} octets)` : value}`;
  const diff = changed.flatMap((name) => [
    ...(file.values[name] ? [{ kind: "removed", text: shown(name, file.values[name]) }] : []),
    ...(after[name] ? [{ kind: "added", text: shown(name, after[name]) }] : []),
  ]);
  if (!body.dry_run && changed.length) {
    const id = file.history.length + 1;
    const at = new Date().toISOString();
    const reason = body.reason ?? null;
    file.history.push({ id, at, actor: "session admin", changed, reason, before: file.values });
    file.values = after;
    file.version++;
  }
  return {
    status: 200,
    value: {
      applied: !changed.length ? "unchanged" : body.dry_run ? "shown" : "in_effect",
      id: body.dry_run ? null : file.history.length,
      version: `v${file.version}`,
      changed: changed.map((name) => ({ name, before: null, after: null })),
      diff,
      warnings: [],
      pending_restart: changed.filter((name) => name === "PORT"),
    },
  };
}

function config(key, port, urls) {
  const source = (file) => readFileSync(join(ROOT, "src/config/env", file), "utf8");
  const text = String.raw`"((?:[^"\\]|\\.)*)"`;
  const arm = new RegExp(`Self::(\\w+) => Text::new\\(${text}, ${text}\\)`, "g");
  const titles = new Map(
    [...source("variable.rs").matchAll(arm)].map(([, section, ...title]) => [section, title]),
  );
  const settings = [];
  let section = [];
  const row = `(?: = ${text})? \\{\\s*name: ${text}, applies: (\\w+)[^]*?\\ben: ${text},\\s*zh: ${text},`;
  for (const [, heading, fallback = "", name, applies, doc, doc_zh] of source("table.rs").matchAll(
    new RegExp(`^    (\\w+) \\{$|^        \\w+: [^={\n]+?${row}`, "gm"),
  ))
    if (heading) section = titles.get(heading) ?? [];
    else
      settings.push({
        name,
        value: fallback || null,
        default: fallback,
        origin: "default",
        applies: applies.toLowerCase(),
        section: section[0],
        section_zh: section[1],
        doc: doc.replaceAll('\\"', '"'),
        doc_zh: doc_zh.replaceAll('\\"', '"'),
        next: null,
        secret: /KEY|PEPPER|OTLP\w*HEADERS/.test(name) && !/FILE/.test(name),
      });
  const set = (name, value, origin, next = null) =>
    Object.assign(settings.find((setting) => setting.name === name) ?? {}, { value, origin, next });
  set("PORT", String(port), "flag --port");
  set("API_BASE_URL", "https://api.anthropic.com", "env/.env line 3");
  set("WORKERS", "1", "env/.env line 4", "2");
  set("UNIX_SOCKET", "/run/x.sock", "environment", "");
  set("ENABLE_DASHBOARD", "true", "environment");
  set("SYSTEM_PROMPT_REPLACEMENT", "(412 octets)", "env/.env line 9");
  set("DASHBOARD_API_KEY", `(${key.length} octets)`, "environment");
  for (const [name, value] of Object.entries(file.values))
    set(name, /KEY/.test(name) ? `(${value.length} octets)` : value, "env/.env line 3");
  return {
    settings,
    file: {
      path: "env/.env",
      version: `v${file.version}`,
      read_only: null,
      names: Object.keys(file.values),
    },
    last_reload: {
      at: Date.now() - 135_000,
      ok: false,
      faults: [
        "MAX_IN_FLIGHT (env/.env line 12): `many` is not a number; expected a number from 1 to 1000000",
      ],
    },
    pending_restart: ["WORKERS", "UNIX_SOCKET"],
    proxy_urls: urls ?? ["unix:/run/x.sock", `http://0.0.0.0:${port}`],
    data_dir: "/var/lib/proxy",
  };
}

const ref = (name) => ({ $ref: `#/components/schemas/${name}` });
const answers = (name, extra = {}) => ({
  200: { description: "The answer.", content: { "application/json": { schema: ref(name) } } },
  401: { description: "No session and no key." },
  ...extra,
});
const RANGE = {
  name: "range",
  in: "query",
  required: false,
  description: "How far back.",
  schema: { type: "string", enum: Object.keys(RANGES) },
};
const OPENAPI = {
  openapi: "3.1.0",
  info: {
    title: "anthropic-proxy admin API",
    version: "0.1.0",
    description: "What the dashboard shows, as JSON.",
  },
  paths: {
    "/admin/api/v1/session": {
      post: {
        tags: ["session"],
        summary: "Exchanges the key for a session.",
        requestBody: {
          required: true,
          content: {
            "application/json": {
              schema: { type: "object", required: ["key"], properties: { key: { type: "string" } } },
            },
          },
        },
        responses: {
          204: { description: "The session's cookie is set." },
          401: { description: "Not the key." },
        },
      },
      get: { tags: ["session"], summary: "Tells whether there is a session.", responses: answers("Session") },
    },
    "/admin/api/v1/overview": {
      get: {
        tags: ["activity"],
        summary: "Sums, quantiles and series of a range.",
        parameters: [RANGE],
        responses: answers("Overview"),
      },
    },
    "/admin/api/v1/requests": {
      get: {
        tags: ["activity"],
        summary: "The last requests, newest first.",
        parameters: [
          { name: "limit", in: "query", schema: { type: "integer", minimum: 1, maximum: 1000 } },
          { name: "status", in: "query", schema: { type: "string" } },
        ],
        responses: answers("Requests"),
      },
    },
    "/admin/api/v1/requests/{id}": {
      get: {
        tags: ["activity"],
        summary: "One request.",
        parameters: [{ name: "id", in: "path", required: true, schema: { type: "string" } }],
        responses: answers("Row", { 404: { description: "No such request." } }),
      },
    },
    "/admin/api/v1/upstreams": {
      get: { tags: ["proxy"], summary: "The upstreams.", responses: answers("Upstreams") },
    },
  },
  components: {
    schemas: {
      Session: {
        type: "object",
        properties: { authenticated: { type: "boolean" } },
      },
      Tokens: {
        type: "object",
        description: "Tokens by kind.",
        properties: { input: { type: "integer" }, output: { type: "integer" } },
      },
      Row: {
        type: "object",
        required: ["id"],
        properties: { id: { type: "string" }, status: { type: ["integer", "null"] }, tokens: ref("Tokens") },
      },
      Requests: {
        type: "object",
        properties: {
          items: { type: "array", items: ref("Row") },
          next_before: { type: ["integer", "null"] },
        },
      },
      Overview: { type: "object", properties: { now: { type: "integer" }, tokens: ref("Tokens") } },
      Upstreams: { type: "object", properties: { items: { type: "array", items: { type: "object" } } } },
    },
  },
};

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const key = process.env.KEY || "a-key-of-the-mock";
  const { base } = await start({ port: Number(process.argv[2] ?? 8099), key, fast: !!process.env.FAST });
  console.log(`${base}/admin#key=${key}`);
}
