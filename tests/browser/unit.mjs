// What the dashboard's modules do without a browser: node tests/browser/unit.mjs

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import assert from "node:assert/strict";

const ASSETS = join(dirname(fileURLToPath(import.meta.url)), "../../static/assets");
// some modules look at the page's language when they are loaded
globalThis.document ??= { documentElement: { lang: "en" } };
const { curl } = await import(join(ASSETS, "curl.js"));
const { MOST, Roster, matches } = await import(join(ASSETS, "rows.js"));
const { proxyAddress, statusCommand } = await import(join(ASSETS, "proxy.js"));
const { message } = await import(join(ASSETS, "content.js"));
const as = await import(join(ASSETS, "format.js"));
const { speak } = await import(join(ASSETS, "i18n.js"));
const { moment: momentOf, wall } = await import(join(ASSETS, "zone.js"));
let [passed, failed] = [0, 0];

function test(name, run) {
  try {
    run();
    passed++;
    console.log(`ok   ${name}`);
  } catch (error) {
    failed++;
    console.log(`FAIL ${name}\n     ${error.message}`);
  }
}

/** What sh makes of a command: the words that `curl` was given. A word that is run leaves a file. */
function words(command) {
  const folder = mkdtempSync(join(tmpdir(), "words-"));
  try {
    for (const name of ["curl", "id", "pwned"])
      writeFileSync(
        join(folder, name),
        name === "curl" ? `#!/bin/sh\nprintf '%s\\0' "$@"\n` : `#!/bin/sh\n: >${folder}/ran\n`,
        { mode: 0o755 },
      );
    const said = execFileSync("/bin/sh", ["-c", command], {
      cwd: folder,
      env: { PATH: `${folder}:/usr/bin:/bin`, ANTHROPIC_API_KEY: "a key" },
      encoding: "utf8",
    });
    assert.throws(
      () => execFileSync("/bin/ls", [join(folder, "ran")], { stdio: "ignore" }),
      "something was run",
    );
    return said.split("\0").slice(0, -1);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const row = {
  method: "POST",
  path: "/v1/messages",
  route: "messages",
  model: null,
  max_tokens: null,
  stream: null,
};
for (const hostile of [
  "X`id`",
  "X|pwned",
  "X'id",
  'X"$(id)',
  "X;pwned",
  "X&pwned",
  "$(pwned)",
  "'`id`'",
  "-o/etc/x",
  "X\npwned",
  "X\\",
  "*",
  "!!",
  "#x",
])
  test(`a copied command takes ${JSON.stringify(hostile)} for a word`, () => {
    const base = "http://127.0.0.1:8088";
    const method = words(curl({ ...row, method: hostile }, base));
    assert.deepEqual(method.slice(0, 4), ["-sS", "-X", hostile, `${base}/v1/messages`]);
    const path = words(curl({ ...row, path: `/${hostile}` }, base));
    assert.equal(path[3], `${base}/${hostile}`);
    const model = words(curl({ ...row, model: hostile }, base));
    assert.equal(JSON.parse(model.at(-1)).model, hostile);
    const socket = words(curl(row, `unix:/run/${hostile}`));
    assert.equal(socket[socket.indexOf("--unix-socket") + 1], `/run/${hostile}`);
    for (const said of [method, path, model, socket]) assert.ok(said.includes("x-api-key: a key"));
  });
test("moments are those of a zone's clocks, and back", () => {
  const utc = (text) => Date.parse(`${text}Z`);
  for (const [zone, at, shown] of [
    ["UTC", "2026-11-29T00:00:00", "2026-11-29T00:00:00"],
    ["Europe/Berlin", "2026-11-28T23:00:00", "2026-11-29T00:00:00"],
    ["Asia/Kathmandu", "2026-11-28T18:15:00", "2026-11-29T00:00:00"],
    ["America/New_York", "2026-11-29T05:00:00", "2026-11-29T00:00:00"],
    ["Europe/Berlin", "2026-03-29T00:59:59", "2026-03-29T01:59:59"],
    ["Europe/Berlin", "2026-03-29T01:00:00", "2026-03-29T03:00:00"],
    ["Europe/Berlin", "2026-10-24T22:00:00", "2026-10-25T00:00:00"],
    ["Europe/Berlin", "2026-10-25T23:00:00", "2026-10-26T00:00:00"],
  ]) {
    assert.equal(wall(utc(at), zone), utc(shown), `${zone} ${at}`);
    assert.equal(momentOf(utc(shown), zone), utc(at), `${zone} ${shown}`);
  }
  // a midnight that there was not, and an hour that there was twice
  assert.equal(momentOf(utc("2018-11-04T00:00:00"), "America/Sao_Paulo"), utc("2018-11-04T03:00:00"));
  assert.equal(
    wall(momentOf(utc("2026-10-25T02:30:00"), "Europe/Berlin"), "Europe/Berlin"),
    utc("2026-10-25T02:30:00"),
  );
});

test("a copied command asks as the client did", () => {
  assert.deepEqual(words(curl({ ...row, method: "HEAD" }, "http://a")).slice(0, 3), [
    "-sS",
    "--head",
    "http://a/v1/messages",
  ]);
  assert.deepEqual(words(curl({ ...row, method: "GET", path: "/a/../b[1]" }, "http://a")).slice(0, 4), [
    "-sS",
    "--globoff",
    "--path-as-is",
    "http://a/a/../b[1]",
  ]);
});

const ANY = { status: "", method: "", path: "", model: "", session: "", upstream: "", user_agent: "", q: "" };
const pending = (seq, more) => ({
  seq,
  id: `req_${seq}`,
  at: seq,
  state: "pending",
  method: "POST",
  path: "/v1/messages",
  status: null,
  model: null,
  upstream: null,
  ended: null,
  ...more,
});
const done = (seq, more) => ({
  ...pending(seq),
  state: "done",
  status: 200,
  model: "m",
  ended: { by: "complete", phase: "response" },
  result: "succeeded",
  ...more,
});
const page = (items, { total = items.length, next = null } = {}) => ({ items, total, next_before: next });
let moment = 0;
const tick = (rows, more) => ({
  now: (moment += 1000),
  boot_id: "a",
  rows,
  dropped: 0,
  running: [],
  ...more,
});
const listed = (filters, ...answer) => {
  const list = new Roster(tick([]));
  list.begin();
  list.answer(page(...answer), filters);
  return list;
};
const seqs = (list) => list.items().map((row) => row.seq);

test("what is told while the list is asked for is not lost", () => {
  const list = new Roster(tick([]));
  list.begin();
  list.tell(tick([done(3), pending(4)]), ANY);
  list.answer(page([pending(3), done(2)]), ANY);
  assert.deepEqual(seqs(list), [4, 3, 2]);
  assert.equal(list.rows.get(3).state, "done");
  assert.equal(list.total, 3);
});
test("what the list knows is not taken back by what was told before", () => {
  const list = new Roster(tick([]));
  list.begin();
  list.tell(tick([pending(3), pending(2, { status: 200 })]), ANY);
  list.answer(page([done(3), done(2)]), ANY);
  assert.ok([...list.rows.values()].every((row) => row.state === "done"));
  list.tell(tick([pending(4, { status: 200 })]), ANY);
  list.tell(tick([pending(4)]), ANY);
  assert.equal(list.rows.get(4).status, 200);
});
test("what was told before a question that was given up is in the next answer, or over", () => {
  const filters = { ...ANY, status: "pending" };
  const list = new Roster(tick([]));
  list.begin();
  list.tell(tick([pending(3)]), filters);
  list.begin();
  list.answer(page([]), filters);
  assert.deepEqual(seqs(list), []);
});
test("the total follows rows that come and go", () => {
  const filters = { ...ANY, status: "pending" };
  const list = listed(filters, [pending(9), pending(8)], { total: 5 });
  list.tell(tick([done(9), done(5), pending(10)]), filters);
  assert.deepEqual([list.items().length, list.total], [2, 4]);
  const all = listed(ANY, [pending(9)], { total: 4 });
  all.tell(tick([done(9), done(3)]), ANY);
  assert.deepEqual([all.items().length, all.total], [2, 4]);
});
test("no more are shown or counted than the server keeps", () => {
  const list = listed(
    ANY,
    Array.from({ length: MOST }, (_, seq) => done(seq)),
  );
  for (let i = 0; i < 3; i++)
    (list.tell(tick(Array.from({ length: 50 }, (_, n) => done(MOST + i * 50 + n))), ANY), list.items());
  assert.deepEqual([list.items().length, list.total, list.rows.size], [MOST, MOST, MOST]);
  list.tell(tick([pending(2 * MOST)]), ANY);
  assert.deepEqual([list.items().length, list.total], [MOST, MOST + 1]);
});
test("a list that stands still holds what comes, and goes on with it", () => {
  const list = listed(ANY, [done(1)]);
  list.pause();
  list.tell(tick([pending(2), pending(3)]), ANY);
  list.tell(tick([done(2)]), ANY);
  assert.deepEqual([seqs(list), list.waiting(ANY), list.waiting({ ...ANY, status: "2xx" })], [[1], 2, 1]);
  list.resume(ANY);
  assert.deepEqual([seqs(list), list.isBehind], [[3, 2, 1], false]);
});
test("a list that stands still holds no more than the server keeps, and says so", () => {
  const list = listed(ANY, [done(1)]);
  list.pause();
  for (let i = 0; i < MOST + 300; i += 100)
    list.tell(tick(Array.from({ length: 100 }, (_, n) => done(2 + i + n))), ANY);
  assert.deepEqual([list.waiting(ANY), list.isBehind], [MOST, true]);
  list.resume(ANY);
  assert.deepEqual([seqs(list), list.isBehind], [[1], true]);
});
for (const [what, more] of [
  ["more than it can say", { dropped: 7 }],
  ["that it is another process", { boot_id: "b" }],
  ["something after a silence", { now: 1e9 }],
])
  test(`a stream that tells ${what} leaves the list behind`, () => {
    for (const isPaused of [false, true]) {
      const list = listed(ANY, [done(1)]);
      list.tell(tick([]), ANY);
      if (isPaused) list.pause();
      list.tell({ ...tick([done(2)]), ...more }, ANY);
      assert.equal(list.isBehind, true);
      list.begin();
      assert.equal(list.isBehind, false);
    }
  });
test("a list that was asked for before the stream began is asked for again", () => {
  const list = new Roster();
  list.begin();
  list.answer(page([done(1)]), ANY);
  list.tell(tick([]), ANY);
  assert.equal(list.isBehind, true);
});
test("rows in flight are found by what is known of them", () => {
  assert.ok(matches(pending(1, { model: "claude-x", status: 200 }), { ...ANY, model: "claude" }));
  assert.ok(!matches(pending(1), { ...ANY, model: "claude" }));
  assert.ok(!matches(pending(1, { status: 200 }), { ...ANY, status: "2xx" }));
  assert.ok(matches(done(1, { status: 304 }), { ...ANY, status: "3xx" }));
});

test("rows are filtered as the server does", () => {
  const cut = { ended: { by: "client", phase: "response" }, result: "canceled" };
  const refused = {
    status: 403,
    ended: { by: "proxy", phase: "request", label: "foreign_origin" },
    result: "failed",
  };
  const none = { status: null, ended: { by: "upstream", phase: "request" }, result: "failed" };
  for (const [row, filter, expected] of [
    [done(1), { status: "200" }, true],
    [done(1, { status: 404, result: "failed" }), { status: "404" }, true],
    [done(1, { status: 403, result: "failed" }), { status: "404" }, false],
    // an error inside of a 200 failed
    [done(1, { error_type: "overloaded_error", result: "failed" }), { status: "failed" }, true],
    [done(1), { status: "failed" }, false],
    [done(1), { status: "succeeded" }, true],
    [done(1, cut), { status: "canceled" }, true],
    [done(1, cut), { status: "aborted" }, true],
    // an answer of the proxy's own is a whole one
    [done(1, refused), { status: "aborted" }, false],
    [done(1, none), { status: "aborted" }, true],
    [done(1), { status: "aborted" }, false],
    [pending(1), { status: "pending" }, true],
    [pending(1), { status: "failed" }, false],
    [pending(1, { user_agent: "claude-cli/2.1" }), { user_agent: "Claude-CLI" }, true],
    [pending(1, { user_agent: "claude-cli/2.1" }), { q: "cli/2.1" }, true],
    [pending(1, { user_agent: null }), { user_agent: "curl" }, false],
    [done(1, { at: 10 }), { since: 10, until: 11 }, true],
    [done(1, { at: 9 }), { since: 10 }, false],
    [done(1, { at: 11 }), { until: 11 }, false],
  ])
    assert.equal(matches(row, { ...ANY, ...filter }), expected, JSON.stringify([row, filter]));
});
const running = (seq, more) => ({
  seq,
  id: `req_${seq}`,
  upstream: null,
  bytes_in: 1,
  bytes_out: 2,
  ttft_ms: null,
  duration_ms: 9,
  tokens: { input: 0, output: 0 },
  output_events: 0,
  ending: false,
  ...more,
});
test("rows in flight tell how far they have come", () => {
  const list = listed(ANY, [pending(2, { upstream: "a", tokens: null }), done(1, { bytes_out: 7 })]);
  list.tell(tick([], { running: [running(2), running(1)] }), ANY);
  assert.deepEqual(
    [list.rows.get(2).bytes_out, list.rows.get(2).upstream, list.rows.get(2).tokens],
    [2, "a", null],
  );
  assert.equal(list.rows.get(1).bytes_out, 7);
  list.tell(
    tick([pending(3)], {
      running: [running(2, { upstream: "b", output_events: 5, tokens: { input: 3, output: 1 } }), running(3)],
    }),
    ANY,
  );
  assert.deepEqual(
    [
      list.rows.get(2).upstream,
      list.rows.get(2).output_events,
      list.rows.get(2).tokens.input,
      list.rows.get(3).bytes_out,
    ],
    ["b", 5, 3, 2],
  );
  assert.equal(list.rows.get(2).state, "pending");
});
test("a list that stands still shows no progress until it goes on", () => {
  const list = listed(ANY, [pending(2)]);
  list.pause();
  list.tell(tick([], { running: [running(2)] }), ANY);
  assert.equal(list.rows.get(2).bytes_out, undefined);
  list.resume(ANY);
  assert.equal(list.rows.get(2).bytes_out, 2);
});
test("rows leave a time range that moves on", () => {
  const list = listed({ ...ANY, since: 1 }, [done(2, { at: 50 }), done(1, { at: 10 })]);
  list.tell(tick([]), { ...ANY, since: 20 });
  assert.deepEqual([seqs(list), list.total], [[2], 1]);
});
for (const [counts, expected] of [
  [
    [0, 0, 0],
    ["–", "–", "–"],
  ],
  [
    [5, 0, 0],
    ["100%", "0%", "0%"],
  ],
  [
    [1, 1, 1],
    ["33.34%", "33.33%", "33.33%"],
  ],
  [
    [393, 21, 8],
    ["93.13%", "4.98%", "1.89%"],
  ],
  [
    [9999, 1, 0],
    ["99.99%", "0.01%", "0.00%"],
  ],
])
  test(`the shares of ${counts.join(", ")} add up`, () => assert.deepEqual(as.shares(counts), expected));
test("a floor is marked", () =>
  assert.deepEqual(
    [as.atLeast("$9.71", true), as.atLeast("$9.71", false), as.atLeast("–", true)],
    ["≥\u202f$9.71", "$9.71", "–"],
  ));
for (const [content, expected] of [
  ['{"type":"error","error":{"type":"x","message":"its words"}}', "its words"],
  ['event: error\ndata: {"type":"error","error":{"type":"x","message":"its words"}}\n\n', "its words"],
  ['{"error":"plain words"}', "plain words"],
  ["<h1>no JSON</h1>", "<h1>no JSON</h1>"],
  ["", null],
])
  test(`the words of ${JSON.stringify(content)} are found`, () => assert.equal(message(content), expected));

for (const [page, urls, expected] of [
  ["http://127.0.0.1:8089", ["http://127.0.0.1:8088"], "http://127.0.0.1:8088"],
  ["http://127.0.0.1:8088", ["http://127.0.0.1:8088"], "http://127.0.0.1:8088"],
  // loopback has many names
  ["http://localhost:8088", ["https://127.0.0.1:8443", "http://127.0.0.1:8088"], "http://localhost:8088"],
  ["http://[::1]:8088", ["http://127.0.0.1:8088"], "http://[::1]:8088"],
  // wherever the page was reached, clients reach all addresses
  ["http://10.0.0.5:8089", ["http://0.0.0.0:8088", "https://[::]:8443"], "http://10.0.0.5:8088"],
  ["https://proxy.example:8443", ["http://0.0.0.0:8088", "https://[::]:8443"], "https://proxy.example:8443"],
  ["https://proxy.example", ["http://0.0.0.0:80", "https://0.0.0.0:443"], "https://proxy.example"],
  ["http://[2001:db8::1]:8089", ["http://[::]:8088"], "http://[2001:db8::1]:8088"],
  ["http://127.0.0.1:8089", ["unix:/run/x.sock", "http://10.0.0.5:8088"], "http://10.0.0.5:8088"],
  ["http://127.0.0.1:8089", ["unix:/run/x.sock"], "unix:/run/x.sock"],
  ["http://127.0.0.1:8088", [], "http://127.0.0.1:8088"],
])
  test(`from ${page} the proxy at ${urls.join(", ") || "nowhere"} is ${expected}`, () =>
    assert.equal(proxyAddress(urls, new URL(page)), expected));
for (const [page, folder, more] of [
  ["http://localhost:8088", "/var/lib/proxy", " --data-dir /var/lib/proxy"],
  ["http://127.0.0.1:8088", "/a b's", " --data-dir '/a b'\\''s'"],
  ["http://127.0.0.1:8088", null, ""],
  // the folder is on another machine
  ["https://proxy.example", "/var/lib/proxy", ""],
])
  test(`the status line from ${page} with ${folder}`, () =>
    assert.equal(statusCommand(folder, new URL(page)), `anthropic-proxy statusline${more}`));
for (const [lang, texts, spans] of [
  [
    "en",
    ["9,999", "12.3K", "1.23M", "14:03:22", "23 Nov, 14:03:22"],
    ["11 µs", "84 ms", "3.25 s", "2 min 05 s", "1 h 1 min", "5 min ago"],
  ],
  [
    "zh",
    ["9,999", "1.23万", "123万", "14:03:22", "11月23日 14:03:22"],
    ["11 微秒", "84 毫秒", "3.25 秒", "2 分 05 秒", "1 小时 1 分钟", "5 分钟前"],
  ],
]) {
  await speak(lang);
  test(`counts and moments are written as ${lang} does`, () => {
    const at = new Date(2026, 10, 23, 14, 3, 22).getTime();
    const said = [
      as.count(9999),
      as.count(12_345),
      as.count(1_234_567),
      as.when(at, at + 3_600_000),
      as.when(at, at + 86_400_000),
    ];
    assert.deepEqual(said, texts);
    assert.deepEqual([...[0.011, 84, 3250, 125_000, 3_660_000].map(as.duration), as.ago(0, 300_000)], spans);
  });
}

console.log(`${passed} passed, ${failed} failed`);
if (failed) process.exit(1);
