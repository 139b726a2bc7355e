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
    for (const name of ["curl", "id", "pwned"]) writeFileSync(join(folder, name), name === "curl" ? `#!/bin/sh\nprintf '%s\\0' "$@"\n` : `#!/bin/sh\n: >${folder}/ran\n`, { mode: 0o755 });
    const said = execFileSync("/bin/sh", ["-c", command], { cwd: folder, env: { PATH: `${folder}:/usr/bin:/bin`, ANTHROPIC_API_KEY: "a key" }, encoding: "utf8" });
    assert.throws(() => execFileSync("/bin/ls", [join(folder, "ran")], { stdio: "ignore" }), "something was run");
    return said.split("\0").slice(0, -1);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const row = { method: "POST", path: "/v1/messages", route: "messages", model: null, max_tokens: null, stream: null };
for (const hostile of ["X`id`", "X|pwned", "X'id", "X\"$(id)", "X;pwned", "X&pwned", "$(pwned)", "'`id`'", "-o/etc/x", "X\npwned", "X\\", "*", "!!", "#x"])
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
test("a copied command asks as the client did", () => {
  assert.deepEqual(words(curl({ ...row, method: "HEAD" }, "http://a")).slice(0, 3), ["-sS", "--head", "http://a/v1/messages"]);
  assert.deepEqual(words(curl({ ...row, method: "GET", path: "/a/../b[1]" }, "http://a")).slice(0, 4), ["-sS", "--globoff", "--path-as-is", "http://a/a/../b[1]"]);
});

console.log(`${passed} passed, ${failed} failed`);
if (failed) process.exit(1);
