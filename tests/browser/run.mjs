// The dashboard in a real browser.
//
//     node tests/browser/run.mjs                               against the mock
//     BASE=http://127.0.0.1:8089 KEY=… node tests/browser/run.mjs    against a proxy that has had some
//                                                 traffic: four good POST /v1/messages at least
//
// With KEY the proxy must ask for it. TRAFFIC=URL is asked now and then, so that the proxy under test
// has something to show. PROGRAM=PATH is the built program, for tests that need one to themselves: restarts,
// a generated key, other settings; without it they are made with the mock. SHOTS=0 takes no pictures; they go
// to .shots/, for a person to look at.

import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { start } from "./mock.mjs";
import { start as startProgram } from "./program.mjs";
import { accessTests } from "./access.mjs";

const SHOTS = join(dirname(fileURLToPath(import.meta.url)), ".shots");
const PAGES = [
  "",
  "/requests",
  "/sessions",
  "/errors",
  "/usage",
  "/upstreams",
  "/doctor",
  "/config",
  "/connect",
  "/docs",
  "/spend",
  "/keys",
  "/audit",
];
const ARGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const WAIT = 10_000;
const isMock = !process.env.BASE;
const key = process.env.KEY || (isMock ? "a key of the test" : null);
const mock = isMock ? await start({ key }) : null;
const base = process.env.BASE || mock.base;
const only = process.argv.slice(2);

mkdirSync(SHOTS, { recursive: true });
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ARGS,
});
const traffic =
  process.env.TRAFFIC &&
  setInterval(
    () =>
      fetch(process.env.TRAFFIC).then(
        (res) => res.text(),
        () => {},
      ),
    300,
  );
let [passed, failed] = [0, 0];

class Failure extends Error {}
const holds = (condition, says) => {
  if (!condition) throw new Failure(says);
};

let opened = null;

/** The session that most tests share: attempts are counted, those that succeed, too. */
async function enter() {
  const context = await browser.newContext();
  const res = await context.request.post(`${base}/admin/api/v1/session`, { data: { key } });
  holds(res.status() === 204, `the key opens a session: ${res.status()}`);
  const state = await context.storageState();
  await context.close();
  return state;
}

/** A fresh browser profile; what the console says against the page is kept. */
async function visitor({
  width = 1280,
  height = 860,
  scheme = "light",
  locale = "en-GB",
  isIn = true,
  timezone = undefined,
} = {}) {
  const storageState = isIn && key ? (opened ??= await enter()) : undefined;
  const context = await browser.newContext({
    storageState,
    viewport: { width, height },
    colorScheme: scheme,
    locale,
    timezoneId: timezone,
    reducedMotion: "reduce",
  });
  context.setDefaultTimeout(WAIT);
  const page = await context.newPage();
  const complaints = [];
  await page.addInitScript(() =>
    document.addEventListener("securitypolicyviolation", (event) =>
      console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`),
    ),
  );
  page.on(
    "console",
    (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()),
  );
  page.on("pageerror", (error) => complaints.push(String(error)));
  return { context, page, complaints };
}

async function test(name, options, run) {
  if (only.length && !only.some((part) => name.includes(part))) return;
  const here = await visitor(options).catch((error) => ({ error }));
  try {
    if (here.error) throw here.error;
    await run(here.page, here);
    holds(here.complaints.length === 0, `the console is silent: ${here.complaints.join(" | ")}`);
    passed++;
    console.log(`ok   ${name}`);
  } catch (error) {
    failed++;
    console.log(`FAIL ${name}\n     ${error instanceof Failure ? error.message : error.stack}`);
    await here.page
      ?.screenshot({ path: join(SHOTS, `fail-${name.replace(/\W+/g, "-")}.png`) })
      .catch(() => {});
  } finally {
    await here.context?.close();
  }
}

const open = async (page, path) => {
  await page.goto(`${base}/admin${path}`);
  await page.locator("main").waitFor();
};
const settled = async (page) => {
  await page
    .locator(".bones, .bone")
    .first()
    .waitFor({ state: "detached" })
    .catch(() => {});
  await page.waitForFunction(() => !document.querySelector("main .bones, main .bone"));
};
const shoot = (page, name) =>
  process.env.SHOTS === "0" ? null : page.screenshot({ path: join(SHOTS, `${name}.png`) });
const hide = (page, isHidden) =>
  page.evaluate((isHidden) => {
    Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  }, isHidden);
const live = (page) => page.locator(".link-state.tone-good").first().waitFor();

for (const path of PAGES) {
  const name = path.slice(1) || "overview";
  await test(`${name} loads without a complaint`, {}, async (page) => {
    await open(page, path);
    await settled(page);
    holds((await page.locator("h1").count()) === 1, "there is one h1");
    holds(
      (await page.locator("main").count()) === 1 && (await page.locator("nav").first().isVisible()),
      "there are the landmarks",
    );
    holds(
      (await page.locator('nav a[aria-current="page"]').first().getAttribute("href")) === `/admin${path}`,
      "the navigation tells the page",
    );
    holds(
      (await page.locator(".notice-bad[role=alert] >> text=/Request failed|does not respond/").count()) === 0,
      "no fault is shown",
    );
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll("button, a, input, select")]
        .filter(
          (one) =>
            one.checkVisibility() &&
            !(one.getAttribute("aria-label") || one.textContent.trim() || one.labels?.length),
        )
        .map((one) => one.outerHTML),
    );
    holds(nameless.length === 0, `every control has a name: ${nameless}`);
  });
  for (const scheme of ["light", "dark"])
    for (const width of [1280, 390])
      await test(
        `${name} fits ${width} px, ${scheme}`,
        { width, height: width === 390 ? 844 : 860, scheme },
        async (page) => {
          await open(page, path);
          await settled(page);
          await live(page);
          if (name === "overview") await page.waitForTimeout(process.env.SHOTS === "0" ? 0 : 3500);
          const wide = await page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);
          holds(wide <= 0, `nothing sticks out: ${wide} px`);
          const ground = await page.evaluate(
            () => getComputedStyle(document.documentElement).backgroundColor,
          );
          holds(
            (ground === "rgb(247, 247, 245)") === (scheme === "light"),
            `the theme is the system's: ${ground}`,
          );
          await shoot(page, `${name}-${width}-${scheme}`);
          if (width === 390 || name === "overview")
            (await page.evaluate(() => scrollTo(0, 900)),
              await shoot(page, `${name}-${width}-${scheme}-below`));
        },
      );
}

// no clock: how fast a machine paints says nothing of the page
await test("the first paint waits for little", {}, async (page) => {
  await open(page, "");
  // the first visit warms the browser up; the second is measured, with its cache empty
  const session = await page.context().newCDPSession(page);
  await session.send("Network.enable");
  await session.send("Network.setCacheDisabled", { cacheDisabled: true });
  await page.reload();
  await settled(page);
  const { paint, blocking, wait, all } = await page.evaluate(() => {
    const entries = performance.getEntriesByType("resource");
    const blocks = entries.filter((one) => one.renderBlockingStatus === "blocking");
    const navigation = performance.getEntriesByType("navigation")[0];
    const size = (list) => list.reduce((sum, one) => sum + one.encodedBodySize, 0);
    return {
      paint: performance.getEntriesByName("first-contentful-paint").length,
      blocking: blocks.map((one) => new URL(one.name).pathname).sort(),
      wait: size([navigation, ...blocks]),
      all: size([navigation, ...entries.filter((one) => !one.name.includes("/api/"))]),
    };
  });
  console.log(
    `     ${(wait / 1024).toFixed(1)} KiB before the first paint, ${(all / 1024).toFixed(1)} KiB in all`,
  );
  holds(paint === 1, "something is painted");
  // neither the page's modules nor an answer of the API hold it up
  const expected = ["/admin/assets/app.css", "/admin/assets/theme.js"];
  holds(blocking.join() === expected.join(), `it waits for ${blocking}`);
  holds(wait > 0 && wait <= 12 * 1024, `it waits for ${wait} bytes`);
  holds(all > 30 * 1024 && all <= 120 * 1024, `the first page is ${all} bytes`);
});

await test("live data arrives", {}, async (page) => {
  await open(page, "");
  await live(page);
  const updated = () => page.locator(".updated").textContent();
  const before = await updated();
  await page.waitForFunction((before) => document.querySelector(".updated").textContent !== before, before);
  await page.locator(".spark-line").first().waitFor({ state: "attached" });
});

await test("the range stands in the address", {}, async (page) => {
  await open(page, "?range=1h");
  await page.locator('.choice button[aria-pressed="true"]', { hasText: "1 h" }).waitFor();
  await page.locator(".choice button", { hasText: /^5 min$/ }).click();
  holds(new URL(page.url()).searchParams.get("range") === "5m", page.url());
  await page.reload();
  await page.locator('.choice button[aria-pressed="true"]', { hasText: /^5 min$/ }).waitFor();
  await settled(page);
});

// what may be cut: a path and an error's words, which stand whole in the drawer or below
const MAY_BE_CUT = ".c-request, .c-model, .unseen, .choice, pre, svg, textarea, input";
for (const [width, locale] of [
  [390, "en-GB"],
  [390, "zh-CN"],
])
  for (const path of PAGES)
    await test(
      `nothing of ${path.slice(1) || "overview"} is cut at ${width} px, ${locale}`,
      { width, height: 844, locale },
      async (page) => {
        await open(page, path);
        await settled(page);
        for (const one of await page.locator(".group > summary").all()) await one.click();
        const cut = await page.evaluate(
          (may) =>
            [...document.querySelectorAll("body *")]
              .filter((one) => {
                const style = getComputedStyle(one);
                return (
                  one.checkVisibility() &&
                  !one.closest(may) &&
                  style.overflowX !== "visible" &&
                  one.scrollWidth > one.clientWidth + 1
                );
              })
              .map((one) => `${one.tagName}.${one.className}: ${one.textContent.slice(0, 60)}`),
          MAY_BE_CUT,
        );
        holds(cut.length === 0, `cut: ${cut.slice(0, 5).join(" | ")}`);
      },
    );

await test("a page that does not exist is a page", {}, async (page, { complaints }) => {
  const res = await page.goto(`${base}/admin/nowhere/at/all`);
  holds(
    res.status() === 404 && res.headers()["content-type"].startsWith("text/html"),
    `${res.status()} ${res.headers()["content-type"]}`,
  );
  await page.locator(".empty", { hasText: "Page not found" }).waitFor();
  await page.locator(".empty a").click();
  await page.locator("h1", { hasText: "Overview" }).waitFor();
  complaints.splice(0, complaints.length, ...complaints.filter((text) => !text.includes("404")));
});

for (const path of ["", "/errors", "/usage"])
  await test(`every range of ${path.slice(1) || "overview"} is answered`, {}, async (page) => {
    await open(page, path);
    await settled(page);
    const ranges = page.locator('.choice[aria-label="Time range"] button');
    const count = await ranges.count();
    holds(count === (path === "/usage" ? 7 : 6), `${count} ranges`);
    for (let i = 0; i < count; i++) {
      const answer = page.waitForResponse(
        (res) => /\/api\/v1\/(overview|errors|usage)\?/.test(res.url()) && !res.url().includes("range=none"),
      );
      // the one that is shown is asked for by a refresh
      if ((await ranges.nth(i).getAttribute("aria-pressed")) === "true")
        await page.locator('.top button[aria-label="Refresh"]').click();
      else await ranges.nth(i).click();
      const res = await answer;
      holds(res.status() === 200, `${await ranges.nth(i).textContent()}: ${res.status()}`);
      holds((await ranges.nth(i).getAttribute("aria-pressed")) === "true", "it is chosen");
      holds((await page.locator(".notice-bad").count()) === 0, "no fault");
    }
  });

await test("a manual refresh asks anew", {}, async (page) => {
  await open(page, "");
  await settled(page);
  const asked = page.waitForRequest((req) => req.url().includes("/overview"));
  await page.locator('.top button[aria-label="Refresh"]').click();
  await asked;
});

await test("filters work and stand in the address", {}, async (page) => {
  await open(page, "/requests");
  await page.locator(".vrow").first().waitFor();
  const answer = page.waitForResponse((res) => /\/requests\?.*status=2xx/.test(res.url()));
  await page.selectOption("#filter-status", "2xx");
  await answer;
  await page.waitForFunction(() => {
    const all = [...document.querySelectorAll(".vrow .status")];
    return all.length > 0 && all.every((one) => /^2/.test(one.textContent));
  });
  await page.fill("#filter-path", "/v1/models");
  await page.waitForFunction(() => {
    const all = [...document.querySelectorAll(".vrow .c-request")];
    return all.length > 0 && all.every((one) => one.textContent.includes("/v1/models"));
  });
  await page.fill("#filter-path", "");
  await page.waitForFunction(() => !new URL(location).searchParams.has("path"));
  holds(new URL(page.url()).searchParams.get("status") === "2xx", page.url());
  await page.fill("#filter-q", "no such thing anywhere");
  await page.locator(".empty").waitFor();
  holds(new URL(page.url()).searchParams.get("q") === "no such thing anywhere", page.url());
  await page.reload();
  await page.locator(".empty").waitFor();
  holds((await page.inputValue("#filter-q")) === "no such thing anywhere", "the field is filled in again");
  await page.locator("text=Clear filters").click();
  await page.locator(".vrow").first().waitFor();
  holds(new URL(page.url()).search === "", page.url());
});

await test("a long filter cannot be typed", {}, async (page) => {
  await open(page, "/requests");
  await page.locator("#filter-path").focus();
  await page.keyboard.insertText("x".repeat(300));
  await page.keyboard.type("y");
  holds(
    (await page.inputValue("#filter-path")) === "x".repeat(256),
    `${(await page.inputValue("#filter-path")).length} characters`,
  );
  await page.waitForFunction(() => new URL(location).searchParams.get("path")?.length === 256);
  await page.locator(".empty").waitFor();
  await page.fill("#filter-path", "");
});

await test("what is typed stays, letter by letter, while the page is live", {}, async (page) => {
  await open(page, "/requests");
  await live(page);
  await page.locator(".vrow").first().waitFor();
  const text = "claude-sonnet 4 5 x";
  await page.locator("#filter-q").pressSequentially(text, { delay: 150 });
  holds((await page.inputValue("#filter-q")) === text, await page.inputValue("#filter-q"));
  await page.waitForFunction((text) => new URL(location).searchParams.get("q") === text, text);
  // two fields at once: neither takes the other's wait
  await page.locator("#filter-path").pressSequentially("/v1");
  await page.locator("#filter-model").pressSequentially("cl");
  await page.waitForFunction(
    () =>
      new URL(location).searchParams.get("path") === "/v1" &&
      new URL(location).searchParams.get("model") === "cl",
  );
  // cleared with a letter on its way
  await page.locator("#filter-session").pressSequentially("s");
  await page.locator("text=Clear filters").click();
  await page.waitForTimeout(500);
  holds(new URL(page.url()).search === "" && (await page.inputValue("#filter-session")) === "", page.url());
  // another page with a letter on its way
  await page.locator("#filter-session").pressSequentially("s");
  await page.locator("aside nav a", { hasText: "Usage" }).click();
  await page.waitForTimeout(500);
  holds(new URL(page.url()).search === "", page.url());
});

await test("filters that the address names are chosen", {}, async (page) => {
  for (const status of ["1xx", "3xx"]) {
    await open(page, `/requests?status=${status}&method=OPTIONS`);
    await page.locator("#filter-status").waitFor();
    holds((await page.inputValue("#filter-status")) === status, await page.inputValue("#filter-status"));
    holds((await page.inputValue("#filter-method")) === "OPTIONS", await page.inputValue("#filter-method"));
  }
});

await test("the list pauses and goes on", {}, async (page) => {
  await open(page, "/requests");
  await page.locator(".vrow").first().waitFor();
  await page.keyboard.press("p");
  await page.locator('.list-bar button[aria-pressed="true"]').waitFor();
  await page.waitForTimeout(300);
  const ids = () =>
    page.evaluate(() => [...document.querySelectorAll(".vrow")].map((row) => row.dataset.id).join());
  const before = await ids();
  await page.waitForTimeout(2500);
  holds((await ids()) === before, "nothing moves while paused");
  // hidden and seen again, it is live again: the list stays
  await hide(page, true);
  await page.locator(".link-state.tone-plain").waitFor();
  await page.waitForTimeout(1500);
  const asked = [];
  page.on("request", (req) => /\/requests(\?|$)/.test(req.url()) && asked.push(req.url()));
  await hide(page, false);
  await live(page);
  await page.waitForTimeout(1500);
  holds((await ids()) === before && asked.length === 0, `nothing moves when it is live again: ${asked}`);
  await page.keyboard.press("p");
  await page.waitForFunction(
    (before) => [...document.querySelectorAll(".vrow")].map((row) => row.dataset.id).join() !== before,
    before,
  );
  holds(asked.length === 1, "what was missed is asked for once");
  await page.locator('.list-bar button[aria-pressed="false"]').waitFor();
});

await test("only the rows that are seen are drawn", {}, async (page) => {
  await open(page, "/requests");
  await page.locator(".vrow").first().waitFor();
  await live(page);
  holds((await page.locator(".vrow").count()) < 60, "few rows are drawn");
  const grid = page.locator('[role="grid"]');
  holds(Number(await grid.getAttribute("aria-rowcount")) > 1, "the grid tells its length");
});

await test("j and k walk, Enter opens, Escape closes", {}, async (page) => {
  await open(page, "/requests");
  await page.locator(".vrow").nth(2).waitFor();
  await page.keyboard.press("p");
  const walked = () => new URL(page.url()).searchParams.get("id");
  await page.keyboard.press("j");
  await page.locator("dialog.drawer[open]").waitFor();
  const first = walked();
  await page.keyboard.press("j");
  await page.waitForFunction((first) => new URL(location).searchParams.get("id") !== first, first);
  await page.keyboard.press("k");
  await page.waitForFunction((first) => new URL(location).searchParams.get("id") === first, first);
  await page.keyboard.press("Escape");
  await page.locator("dialog.drawer").waitFor({ state: "detached" });
  holds(walked() === null, page.url());
  // the focus is where the reader was: on the row that was walked to, or opened
  const focused = (id) => page.waitForFunction((id) => document.activeElement?.dataset?.id === id, id);
  await focused(first);
  for (const close of [
    () => page.keyboard.press("Escape"),
    () => page.locator('dialog.drawer button[aria-label="Close"]').click(),
  ]) {
    const row = page.locator(".vrow").nth(1);
    await row.focus();
    await page.keyboard.press("Enter");
    await page.locator("dialog.drawer[open]").waitFor();
    await close();
    await page.locator("dialog.drawer").waitFor({ state: "detached" });
    await focused(await row.getAttribute("data-id"));
  }
  await page.locator(".vrow").nth(1).click();
  await page.locator("dialog.drawer[open]").waitFor();
  for (let i = 0; i < 4; i++) await page.keyboard.press("j");
  await page.waitForFunction(() => new URL(location).searchParams.has("id"));
  await page.waitForTimeout(300);
  const last = walked();
  await page.keyboard.press("Escape");
  await focused(last);
});

await test("one status, a result and a time range are filtered by", {}, async (page) => {
  await open(page, "/requests");
  await page.locator(".vrow").first().waitFor();
  const asked = (text) =>
    page.waitForRequest((req) => req.url().includes("/requests?") && req.url().includes(text));
  let req = asked("status=failed");
  await page.selectOption("#filter-status", "failed");
  await req;
  await page.locator(".vrow .status.tone-bad, .vrow .status.tone-warn, .empty").first().waitFor();
  await page.selectOption("#filter-status", "code");
  await page.locator("#filter-code").fill("52");
  req = asked("status=529");
  await page.locator("#filter-code").fill("529");
  await req;
  await page.waitForFunction(() =>
    [...document.querySelectorAll(".vrow .status")].every((one) => one.textContent.startsWith("529")),
  );
  await page.reload();
  await page.locator("#filter-code").waitFor();
  holds((await page.inputValue("#filter-code")) === "529", "the field is filled in again");
  await page.selectOption("#filter-status", "aborted");
  holds(new URL(page.url()).searchParams.get("status") === "aborted", page.url());
  await page.selectOption("#filter-status", "");
  req = asked("since=");
  await page.selectOption("#filter-range", "15m");
  const since = Number(new URL((await req).url()).searchParams.get("since"));
  holds(Math.abs(Date.now() - 900_000 - since) < 60_000, `${since}`);
  holds(!new URL((await req).url()).searchParams.has("range"), "the server knows no range here");
  await page.selectOption("#filter-range", "own");
  await page.fill("#filter-since", "2001-02-03T04:05:06");
  req = asked("until=");
  await page.fill("#filter-until", "2002-02-03T04:05:06");
  const edges = new URL((await req).url()).searchParams;
  holds(
    Number(edges.get("since")) === new Date("2001-02-03T04:05:06").getTime() &&
      Number(edges.get("until")) === new Date("2002-02-03T04:05:06").getTime(),
    `${edges}`,
  );
  await page.locator(".empty").waitFor();
  await page.reload();
  await page.locator("#filter-until").waitFor();
  holds(
    (await page.inputValue("#filter-until")) === "2002-02-03T04:05:06",
    await page.inputValue("#filter-until"),
  );
  await page.locator("text=Clear filters").click();
  await page.locator(".vrow").first().waitFor();
});

for (const [width, scheme] of [
  [1280, "light"],
  [1280, "dark"],
  [390, "light"],
  [390, "dark"],
])
  await test(
    `the drawer tells of a request, ${width} px, ${scheme}`,
    { width, height: 844, scheme },
    async (page, { context }) => {
      await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: new URL(base).origin });
      await open(page, "/requests?status=2xx&path=%2Fv1%2Fmessages");
      await page.locator(".vrow").nth(3).click();
      const drawer = page.locator("dialog.drawer[open]");
      await drawer.locator(".waterfall .span").first().waitFor();
      holds((await drawer.locator(".pairs").count()) > 0, "its facts are there");
      await drawer.locator("h3", { hasText: "Request fields" }).waitFor();
      await drawer.locator("h3", { hasText: "Response fields" }).waitFor();
      const field = (name) =>
        drawer
          .locator(".fields tr", { has: page.locator("th", { hasText: new RegExp(`^${name}$`, "i") }) })
          .first()
          .locator("td");
      holds((await field("x-api-key").textContent()) === "redacted", "a key is redacted");
      holds(
        /event-stream|json/.test(await field("content-type").last().textContent()),
        "a media type is shown",
      );
      await shoot(page, `drawer-${width}-${scheme}`);
      // focus stays inside of the dialog
      for (let i = 0; i < 12; i++) await page.keyboard.press("Tab");
      holds(
        await page.evaluate(
          () => document.activeElement === document.body || !!document.activeElement.closest("dialog"),
        ),
        "focus is held",
      );
      await drawer.locator("button", { hasText: "Copy as curl" }).click();
      await drawer.locator("button", { hasText: "Copied" }).waitFor();
      const text = await page.evaluate(() => navigator.clipboard.readText());
      holds(text.startsWith("curl ") && text.includes("/v1/messages"), text);
      await drawer.locator("h3", { hasText: "Response fields" }).evaluate((one) => one.scrollIntoView());
      await shoot(page, `drawer-${width}-${scheme}-below`);
      const wide = await page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);
      holds(wide <= 0, `nothing sticks out: ${wide} px`);
    },
  );

await test("usage is exported", {}, async (page) => {
  await open(page, "/usage");
  await settled(page);
  for (const [by, text, lead] of [
    ["model", "By model", "key,"],
    ["day", "By day", "key,"],
    ["model_day", "By model and day", "day,model,"],
  ]) {
    await page.locator('.choice[aria-label="Group by"] button').getByText(text, { exact: true }).click();
    await page.locator("main:not(:has(.stale)) h2", { hasText: text }).waitFor();
    await page.locator("thead th", { hasText: by === "model" ? "Model" : "Day" }).waitFor();
    for (const kind of ["CSV", "JSON"]) {
      const download = page.waitForEvent("download");
      await page.locator("a.button", { hasText: kind }).click();
      const file = await download;
      holds(file.suggestedFilename().endsWith(`.${kind.toLowerCase()}`), "its name");
      const content = readFileSync(await file.path(), "utf8");
      if (kind === "CSV") holds(content.startsWith(lead), `${by}: ${content.slice(0, 40)}`);
      else
        holds(
          JSON.parse(content).rows.every(
            (row) => (row.day === null) === (by === "model") && (row.model === null) === (by === "day"),
          ),
          `${by}: ${content.slice(0, 200)}`,
        );
    }
    if (by === "model_day") await shoot(page, "usage-model-day-1280-light");
  }
});

await test("usage is of a month, of own days, and by whose it is", {}, async (page) => {
  await open(page, "/usage");
  await settled(page);
  const asked = (part) => page.waitForRequest((req) => req.url().includes(`/usage?${part}`));
  const months = page.locator("label", { hasText: "Month" }).locator("select");
  const [begin, end] = await page.evaluate(() => {
    const now = new Date();
    return [0, 1].map((later) => new Date(now.getFullYear(), now.getMonth() + later, 1).getTime());
  });
  let request = asked("since=");
  await months.selectOption({ index: 1 });
  const query = new URL((await request).url()).searchParams;
  holds(Number(query.get("since")) === begin, `a month begins here: ${query}`);
  holds(Number(query.get("until")) === end, `and ends here: ${query}`);
  await page.locator('input[type="date"]').first().fill("2026-01-05");
  await page.waitForFunction(() => location.search.includes("since=2026-01-05"));
  holds(!page.url().includes("month="), "days stand in place of a month");
  request = asked("range=30d&by=hour");
  await page.locator(".choice button", { hasText: "30 d" }).click();
  await page.locator(".choice button", { hasText: "By day" }).click();
  await request;
  await page.locator("main:not(:has(.stale)) h2", { hasText: "By day" }).waitFor();
  const days = await page.locator("tbody th[scope=row]").allTextContents();
  holds(days.length > 0 && days.every((one) => /^\d{4}-\d\d-\d\d$/.test(one.trim())), `days: ${days}`);
  await page.locator(".note", { hasText: "Days are those of" }).waitFor();
  await page.locator(".choice button", { hasText: "By team" }).click();
  await page.locator("main:not(:has(.stale)) thead th", { hasText: "Team" }).waitFor();
});

await test("times are those of the zone that is chosen", { timezone: "Pacific/Kiritimati" }, async (page) => {
  await open(page, "/usage?month=2026-03");
  await settled(page);
  const choice = page.locator(".side .zone select");
  holds((await choice.inputValue()) === "own", "the reader's at first");
  const asked = (since) =>
    page.waitForRequest((req) => req.url().includes(`since=${Date.parse(since)}`), { timeout: WAIT });
  const [request] = await Promise.all([asked("2026-03-01T00:00:00Z"), choice.selectOption("proxy")]);
  const until = new URL(request.url()).searchParams.get("until");
  holds(Number(until) === Date.parse("2026-04-01T00:00:00Z"), `a month of UTC: ${until}`);
  await page.locator(".note", { hasText: "UTC" }).first().waitFor();
  await shoot(page, "usage-zone-1280-light");
  await Promise.all([asked("2026-02-28T10:00:00Z"), choice.selectOption("own")]);
  await choice.selectOption("proxy");
  await page.reload();
  await settled(page);
  holds((await choice.inputValue()) === "proxy", "the choice is kept");
});

await test("sessions are searched, sorted and looked at", {}, async (page) => {
  await open(page, "/sessions");
  await settled(page);
  await page.locator("input[type=search]").fill("research");
  await page.waitForFunction(() => location.search.includes("q=research"));
  if (!isMock) return;
  await page.locator("main:not(:has(.stale)) .card .note", { hasText: "43 in this range" }).waitFor();
  await page.locator("input[type=search]").fill("");
  await page.locator("label", { hasText: "Sort by" }).locator("select").selectOption("cost");
  await page.waitForFunction(() => location.search.includes("sort=cost"));
  await page.locator(".rest .button", { hasText: "Next" }).click();
  await page.waitForFunction(() => location.search.includes("offset=100"));
  await open(page, "/sessions");
  await page.locator("tbody th a").first().click();
  await page.locator("h2", { hasText: "Prompt cache" }).waitFor();
  await page.locator("td", { hasText: "Message 7 changed" }).waitFor();
  holds((await page.locator("text=b1b2c3d4e5f60718b").count()) === 1, "a subagent of a subagent");
  await shoot(page, "session-1280-light");
  await page.evaluate(() => scrollTo(0, 900));
  await shoot(page, "session-1280-light-below");
  await page.locator("a", { hasText: "All sessions" }).click();
  await page.locator("h2", { hasText: "Sessions" }).waitFor();
});

if (isMock) {
  await test("a session fits a phone", { width: 390, height: 844, locale: "zh-CN" }, async (page) => {
    await open(page, "/sessions");
    await settled(page);
    await page.locator("tbody th a").first().click();
    await page.locator("h2", { hasText: "提示缓存" }).waitFor();
    const wide = await page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);
    holds(wide <= 0, `nothing sticks out: ${wide} px`);
    await page.evaluate(() => scrollTo(0, 500));
    await shoot(page, "session-390-zh");
  });

  await test("the drawer of a request leads to its session", {}, async (page) => {
    await open(page, "/requests?q=7c0c2d5e");
    await settled(page);
    await page.locator(".vrow").first().click();
    await page.locator("dialog a", { hasText: "Show its session" }).click();
    await page.locator("h2", { hasText: "Prompt cache" }).waitFor();
    holds(page.url().includes("/admin/sessions?id=7c0c2d5e"), page.url());
  });

  await test("a key is created, shown once, rotated and revoked", {}, async (page) => {
    await open(page, "/keys");
    await settled(page);
    await page.locator("button", { hasText: "New key" }).click();
    holds(await page.locator('input[name="name"]').evaluate((it) => it === document.activeElement), "focus");
    await page.locator('input[name="name"]').fill("of the test");
    await page.locator('input[name="team"]').fill("core");
    await page.locator('input[name="budget"]').fill("12.5");
    const request = page.waitForRequest((req) => req.method() === "POST" && req.url().endsWith("/keys"));
    await shoot(page, "keys-new-1280-light");
    await page.locator('form button[type="submit"]').click();
    const body = (await request).postDataJSON();
    holds(body.name === "of the test" && body.team === "core" && !("user" in body), JSON.stringify(body));
    holds(body.limits.length === 1 && body.limits[0].amount_usd === 12.5, JSON.stringify(body.limits));
    holds(body.limits[0].period === "month" && body.limits[0].zone, JSON.stringify(body.limits));
    const once = page.locator(".once");
    await once.locator("code", { hasText: "ap_0aB3zZ9xY1_" }).first().waitFor();
    await once.locator("code", { hasText: "export ANTHROPIC_AUTH_TOKEN=ap_" }).waitFor();
    await shoot(page, "keys-once-1280-light");
    await once.locator("button", { hasText: "It is copied" }).click();
    holds((await page.locator("text=TheSecretOfTheMock").count()) === 0, "it is shown once");
    const row = page.locator("tr", { hasText: "of the test" });
    await row.locator("button", { hasText: "Rotate" }).click();
    await page.locator('form button[type="submit"]').click();
    await once.locator("code", { hasText: "ap_0aB3zZ9xY1_" }).first().waitFor();
    await once.locator("button", { hasText: "It is copied" }).click();
    await row.locator("button", { hasText: "Revoke" }).click();
    await page.keyboard.press("Escape");
    holds((await page.locator("form").count()) === 0, "Escape leaves the question");
    await row.locator("button", { hasText: "Revoke" }).click();
    await page.locator('input[name="reason"]').fill("lost");
    await page.locator('form button[type="submit"]').click();
    await row.locator(".badge", { hasText: "revoked" }).waitFor();
    holds((await row.locator("button").count()) === 0, "what is revoked stays so");
  });

  await test("a key that is refused says why", {}, async (page, { complaints }) => {
    await open(page, "/keys");
    await page.locator("button", { hasText: "New key" }).click();
    await page.locator('input[name="name"]').fill("taken");
    await page.locator('form button[type="submit"]').click();
    await page.locator("form [role=alert]", { hasText: "a key has this name" }).waitFor();
    complaints.splice(0);
  });

  await test("the doctor is run, and tells its remedies", {}, async (page) => {
    await open(page, "/doctor");
    await page.locator("label", { hasText: "also try a stream" }).locator("input").check();
    await page.locator("button", { hasText: "Run the checks" }).focus();
    await page.keyboard.press("Enter");
    await page.locator("[role=status] .badge", { hasText: "1 failed" }).waitFor();
    holds((await page.locator(".check-line").count()) === 5, "each check has a line");
    await page.locator(".check-fix", { hasText: "UPSTREAM_CA_FILE" }).waitFor();
    await page.locator(".check-line", { hasText: "not buffered" }).waitFor();
    await page.locator("summary", { hasText: "Evidence" }).click();
    await page.locator(".check-line li", { hasText: "127.0.0.1" }).waitFor();
    // a screen reader that speaks Chinese reads them in English
    for (const part of ['span[lang="en"]', '.check-fix[lang="en"]', 'ul[lang="en"]']) {
      holds((await page.locator(`.check-line ${part}`).count()) > 0, `${part} names its language`);
    }
    await page.evaluate(() => import("/admin/assets/i18n.js").then((it) => it.speak("zh")));
    await page.locator(".lead", { hasText: "结果和修复方法的说明为英文" }).waitFor();
    await page.evaluate(() => import("/admin/assets/i18n.js").then((it) => it.speak("en")));
    await page.locator(".lead", { hasText: "Checks everything" }).waitFor();
  });

  await test("budgets and the audit are told", {}, async (page) => {
    await open(page, "/spend");
    await page.locator(".notice", { hasText: "Team core" }).waitFor();
    holds((await page.locator('[role="meter"]').first().getAttribute("aria-valuenow")) === "85", "a meter");
    await page.locator(".budget", { hasText: "76.0K of 80.0K output tokens/min" }).waitFor();
    await page.locator(".choice button", { hasText: "Keys" }).click();
    await page.locator(".budget:has(.budget-foot) b", { hasText: "Key anna-laptop" }).waitFor();
    await page.locator(".choice button", { hasText: "Users" }).click();
    const unknown = page.locator(".budget", { hasText: "User li" });
    await unknown.locator(".budget-sum", { hasText: "unknown of $500" }).waitFor();
    await unknown.locator(".note", { hasText: "has not been reached" }).waitFor();
    holds((await unknown.locator('[role="meter"]').count()) === 0, "no meter of what is not known");
    holds(!(await unknown.textContent()).includes("120"), "no part as the sum");
    await page.evaluate(() => import("/admin/assets/i18n.js").then((it) => it.speak("zh")));
    await page.locator(".budget-sum", { hasText: "已用 未知" }).waitFor();
    await page.evaluate(() => import("/admin/assets/i18n.js").then((it) => it.speak("en")));
    await open(page, "/audit");
    await page.locator(".audit-line", { hasText: "the laptop was lost" }).waitFor();
    const why = await page.locator(".audit-why", { hasText: "the disk is full" }).innerText();
    holds(why === "the disk is full\nnothing was changed", `each line is one: ${why}`);
    await page.locator("button", { hasText: "Verify the chain" }).click();
    await page.locator("[role=status]", { hasText: "The chain is whole: 6 lines." }).waitFor();
    await page.locator("label", { hasText: "Action" }).locator("input").fill("limits");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => location.search.includes("action=limits"));
    await page.waitForFunction(() => document.querySelectorAll(".audit-line").length === 1);
  });
}

if (process.env.PROGRAM) await accessTests(process.env.PROGRAM, { test, holds, settled, shoot });

await test("the settings are searched", {}, async (page) => {
  await open(page, "/config");
  await page.locator(".setting").first().waitFor();
  await page.fill('input[type="search"]', "DASHBOARD_API_KEY");
  await page.waitForFunction(() => document.querySelectorAll(".setting").length < 4);
  if (key) holds(!(await page.locator("main").textContent()).includes(key), "the key is not shown");
});

for (const [width, locale] of [
  [1280, "en-GB"],
  [390, "zh-CN"],
])
  await test(
    `a setting is changed after its difference is shown, and changed back, at ${width} px`,
    { width, locale },
    async (page) => {
      const says = (en, zh) => (locale === "zh-CN" ? zh : en);
      const button = (text) => page.locator("main button", { hasText: text }).first();
      await open(page, "/config?q=STREAM_IDLE");
      const change = page.getByRole("button", { name: says("Change STREAM", "修改 STREAM") });
      await change.focus();
      await page.keyboard.press("Enter");
      const field = page.locator(".setting-edit input").first();
      await field.waitFor();
      holds(await field.evaluate((one) => one === document.activeElement), "the field has the focus");
      await page.keyboard.press("Escape");
      await field.waitFor({ state: "detached" });
      await change.click();
      await field.fill("7m");
      await page.keyboard.press("Enter");
      await page.locator(".diff-added", { hasText: "+ STREAM_IDLE_TIMEOUT=7m" }).waitFor();
      holds(
        (await page.locator(".setting-value code").first().textContent()) !== "7m",
        "nothing is changed yet",
      );
      await shoot(page, `config-diff-${width}`);
      await button(says("Apply", "应用")).click();
      await page
        .locator(".notice-good", { hasText: says("is in effect", "已生效") })
        .first()
        .waitFor();
      await page.locator(".setting-value code", { hasText: /^7m$/ }).waitFor();
      const isWide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
      holds(!isWide, "nothing is wider than the screen");

      await page.fill('input[type="search"]', "");
      const back = page.locator("button", { hasText: says("Return to before", "恢复到此前") }).first();
      await back.click();
      await page.locator(".diff-removed", { hasText: "- STREAM_IDLE_TIMEOUT=7m" }).waitFor();
      await page.locator(".preview button.primary").click();
      await page.locator(".diff").waitFor({ state: "detached" });
      await page.waitForFunction(
        () => ![...document.querySelectorAll(".setting-value code")].some((one) => one.textContent === "7m"),
      );
    },
  );

await test("a secret is typed unseen, and shown by its length", {}, async (page) => {
  await open(page, "/config?q=UPSTREAM_API_KEYS");
  await page.getByRole("button", { name: "Change UPSTREAM_API_KEYS" }).click();
  const field = page.locator(".setting-edit input").first();
  holds((await field.getAttribute("type")) === "password", "it is not readable over a shoulder");
  await field.fill("sk-canary-0123");
  await page.keyboard.press("Enter");
  await page.locator(".diff-added", { hasText: "UPSTREAM_API_KEYS=(14 octets)" }).waitFor();
  holds(!(await page.locator("main").textContent()).includes("canary"), "the secret is not shown");
});

await test("each fault of a change has a line of its own", {}, async (page, { complaints }) => {
  await open(page, "/config?q=UPSTREAM_TIMEOUT");
  await page.getByRole("button", { name: "Change UPSTREAM_TIMEOUT" }).click();
  await page.locator(".setting-edit input").first().fill("many");
  await page.keyboard.press("Enter");
  const lines = page.locator(".field-fault", { hasText: "UPSTREAM_TIMEOUT" });
  const [said, shown] = await lines.evaluate((one) => [one.textContent, one.innerText]);
  const count = (text) => text.trim().split("\n").length;
  holds(count(said) > 2 && count(shown) === count(said), `${count(said)} lines are ${count(shown)}`);
  complaints.length = 0;
});

await test("names of settings are whole on a phone, above their badges", { width: 390 }, async (page) => {
  await open(page, "/config");
  await page.locator(".setting").first().waitFor();
  const rows = await page.locator(".setting").evaluateAll((rows) =>
    rows.map((row) => {
      const box = (part) => row.querySelector(part).getBoundingClientRect();
      const [name, badges, note] = [".setting-name", ".setting-badges", ".note"].map(box);
      return {
        name: row.querySelector(".setting-name").textContent,
        count: row.querySelectorAll(".badge").length,
        isWhole: name.height < 30 && badges.top >= name.bottom && note.width > 300,
      };
    }),
  );
  const squeezed = rows.filter(({ isWhole }) => !isWhole).map(({ name }) => name);
  holds(squeezed.length === 0, `squeezed: ${squeezed.join(", ")}`);
  const two = rows.find(({ count }) => count > 1);
  holds(two, "a row has two badges");
  await page.fill('input[type="search"]', two.name);
  await shoot(page, "config-badges-390-light");
});

await test("the proxy is tested", {}, async (page) => {
  await open(page, "/connect");
  await page.locator("button", { hasText: "Test the proxy" }).click();
  const says = page.locator(".test .tone-good", { hasText: `from ${base}/health` });
  await says.filter({ hasText: "The upstream was not asked." }).waitFor();
  await page.locator(".test a", { hasText: "Test the upstream: Doctor" }).click();
  await page.locator("h1", { hasText: "Doctor" }).waitFor();
});

await test("the settings of Claude Code are one object", {}, async (page) => {
  await open(page, "/connect");
  const blocks = page.locator(".code", { hasText: "statusLine" });
  await blocks.first().waitFor();
  const { env, statusLine } = JSON.parse(await blocks.locator("pre").textContent());
  holds(env.ANTHROPIC_BASE_URL && statusLine.type === "command", "it has both");
});

await test("the overview tells what its numbers are of", {}, async (page) => {
  await open(page, "");
  await settled(page);
  await page.locator(".tile dt", { hasText: "Cost today (UTC)" }).waitFor();
  await page.locator(".tile dt", { hasText: "Error rate (5 s)" }).waitFor();
  const shares = await page.evaluate(() =>
    [...document.querySelectorAll(".facts dd .note")]
      .map((one) => one.textContent)
      .filter((text) => /^[\d.]+%$/.test(text)),
  );
  holds(
    shares.length === 3 &&
      Math.round(shares.reduce((sum, text) => sum + parseFloat(text) * 100, 0)) === 10_000,
    `succeeded, errors and canceled are 100 %: ${shares}`,
  );
  await page.locator(".facts dt", { hasText: "Canceled" }).waitFor();
  await page.locator(".legend", { hasText: "Canceled" }).waitFor();
  await page.locator(".card header", { hasText: "since the proxy started" }).waitFor();
});

if (isMock)
  for (const [width, locale] of [
    [1280, "en-GB"],
    [390, "zh-CN"],
  ])
    await test(
      `replicas are listed, and what differs is marked, at ${width} px`,
      { width, locale },
      async (page) => {
        await open(page, "");
        const card = page.locator(".card", { hasText: locale === "zh-CN" ? "副本" : "Replicas" }).first();
        await card.locator("tbody tr").nth(4).waitFor();
        const differs = locale === "zh-CN" ? "不同" : "differs";
        const marks = await card
          .locator("tbody tr")
          .evaluateAll((rows, text) => rows.map((row) => row.textContent.split(text).length - 1), differs);
        holds(marks.join() === "0,1,1,0,0", `one version and one digest differ: ${marks}`);
        const named = await card.locator("tbody tr").nth(2).textContent();
        holds(named.includes("STREAM_IDLE_TIMEOUT"), `the settings that differ are named: ${named}`);
        holds(
          (await page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth)) <= 0,
          "nothing sticks out",
        );
        await card.scrollIntoViewIfNeeded();
        await shoot(page, `replicas-${width}`);
        for (const path of ["/usage", "/sessions"]) {
          await open(page, path);
          await page.getByText(locale === "zh-CN" ? "所有副本合计。" : "Sums of all replicas.").waitFor();
        }
      },
    );

for (const width of [390, 700, 910, 1000, 1280, 1480])
  await test(`nothing of a request is left out at ${width} px`, { width, height: 844 }, async (page) => {
    if (isMock) {
      await open(page, "/requests?status=pending");
      await page
        .locator(".vrow .c-status", { hasText: "200 streaming" })
        .first()
        .waitFor({ timeout: 25_000 });
      holds(
        await page.evaluate(() =>
          [...document.querySelectorAll(".vrow .c-status")].every(
            (one) => one.scrollWidth <= one.clientWidth,
          ),
        ),
        "what streams says so",
      );
    }
    // a count of tokens has no model, no usage and no cost
    await open(page, "/requests?status=2xx&path=%2Fv1%2Fmessages&model=claude");
    await page.locator(".vrow").first().waitFor();
    await live(page);
    const hidden = await page.evaluate(() =>
      ["time", "status", "request", "model", "ttft", "duration", "bytes", "tokens", "cost"].filter((name) => {
        const one = document.querySelector(`.vrow .c-${name}`);
        const [box, row] = [one.getBoundingClientRect(), one.closest(".vrow").getBoundingClientRect()];
        // a path and a model may be cut, a number may not
        const isCut = !["request", "model"].includes(name) && one.scrollWidth > one.clientWidth;
        return (
          isCut ||
          !one.checkVisibility() ||
          box.width < 20 ||
          box.top < row.top ||
          box.bottom > row.bottom + 0.5
        );
      }),
    );
    holds(hidden.length === 0, `hidden: ${hidden}`);
    const over = await page.evaluate(() => {
      const boxes = [...document.querySelector(".vrow").children].map((one) => [
        one.className,
        one.getBoundingClientRect(),
      ]);
      return boxes.flatMap(([name, a], i) =>
        boxes
          .slice(i + 1)
          .filter(
            ([, b]) =>
              a.left < b.right - 0.5 &&
              b.left < a.right - 0.5 &&
              a.top < b.bottom - 0.5 &&
              b.top < a.bottom - 0.5,
          )
          .map(([other]) => `${name} over ${other}`),
      );
    });
    holds(over.length === 0, over.join());
    holds(
      (await page.locator(".updated").isVisible()) &&
        /Updated \d/.test(await page.locator(".updated").textContent()),
      "when it was updated",
    );
    holds(
      (await page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth)) <= 0,
      "nothing sticks out",
    );
    await shoot(page, `requests-${width}-rows`);
  });

await test("rows of another day tell it", { timezone: "Pacific/Kiritimati" }, async (page) => {
  // the page's clock is two days ahead of the proxy's
  await page.clock.setFixedTime(Date.now() + 2 * 86_400_000);
  for (const path of ["", "/requests", "/errors"]) {
    await open(page, path);
    const stamp = page
      .locator(path === "/requests" ? ".vrow .c-time" : "main .card:not(.group) tbody td.dim:first-child")
      .first();
    await stamp.waitFor();
    holds(
      /^\d+ \w+, \d\d:\d\d:\d\d$/.test(await stamp.textContent()),
      `${path}: ${await stamp.textContent()}`,
    );
  }
});

await test("a copy that fails says so", {}, async (page) => {
  await page.addInitScript(() => {
    Object.defineProperty(navigator, "clipboard", { value: undefined });
    document.execCommand = () => false;
  });
  await open(page, "/connect");
  await page.locator(".code .copy button").first().click();
  await page
    .locator('.copy.text-bad [role="status"]', { hasText: "Not copied" })
    .waitFor({ state: "attached" });
  await page.evaluate(() => (document.execCommand = () => true));
  await page.locator(".code .copy button").nth(1).click();
  await page.locator('.copy [role="status"]', { hasText: /^Copied$/ }).waitFor({ state: "attached" });
});

await test("faults are told in the reader's language", { locale: "zh-CN" }, async (page, { complaints }) => {
  await open(page, "/requests?status=9xx");
  const fault = page.locator(".notice-bad p");
  await fault.waitFor();
  holds(
    /^筛选/.test(await fault.textContent()) && !/[a-z]{3}/.test(await fault.textContent()),
    await fault.textContent(),
  );
  complaints.length = 0;
});

await test("a session that cannot be asked for is no error of the page", {}, async (page, { complaints }) => {
  await open(page, "");
  await settled(page);
  await page.route("**/api/v1/session", (route) => route.abort());
  await page.route("**/api/v1/overview*", (route) =>
    route.fulfill({ status: 401, json: { error: { code: "unauthorized", message: "" } } }),
  );
  await page.locator('.top button[aria-label="Refresh"]').click();
  await page.locator(".notice-bad").waitFor();
  await page.waitForTimeout(200);
  holds(!complaints.some((text) => /Uncaught|Fault|TypeError/.test(text)), complaints.join(" | "));
  complaints.length = 0;
});

await test("the API's description is read and asked", {}, async (page) => {
  await open(page, "/docs");
  const operation = page
    .locator(".operation", { has: page.locator("code", { hasText: /\/overview$/ }) })
    .first();
  await operation.locator("summary").click();
  await operation.locator("button", { hasText: "Send" }).click();
  await operation.locator(".try-answer", { hasText: "200" }).waitFor();
});

await test("the API's operations are described in Chinese", { locale: "zh-CN" }, async (page) => {
  await open(page, "/docs");
  await page.locator(".operation").first().waitFor();
  const english = await page.evaluate(() =>
    [...document.querySelectorAll("section:not(:last-child) summary .note")]
      .map((one) => one.textContent)
      .filter((text) => text && !/[\u4e00-\u9fff]/.test(text)),
  );
  if (!isMock) holds(english.length === 0, english.join(" | "));
});

await test("Chinese is chosen and kept", {}, async (page) => {
  await open(page, "");
  await page.locator("aside button.lang").click();
  await page.locator("h1", { hasText: "概览" }).waitFor();
  holds((await page.getAttribute("html", "lang")) === "zh-CN", "lang");
  await page.reload();
  await page.locator("h1", { hasText: "概览" }).waitFor();
});

const { default: english } = await import("../../static/assets/i18n/en.js");
const FAMILIES = [
  ...new Set(Object.keys(english).flatMap((key) => (key.includes(".") ? [key.split(".")[0]] : []))),
];
for (const path of PAGES)
  await test(
    `${path.slice(1) || "overview"} in Chinese has no key left over`,
    { locale: "zh-CN" },
    async (page) => {
      await open(page, path);
      await settled(page);
      await page.locator("h1", { hasText: /[\u4e00-\u9fff]|API/ }).waitFor();
      const text = await page.evaluate(() => document.body.innerText);
      const keys = text.match(new RegExp(`\\b(${FAMILIES.join("|")})\\.[a-z_]+\\b`, "g")) ?? [];
      const raw = keys.filter((key) => !/\.(example|json|csv|com|top)$/.test(key));
      holds(raw.length === 0, `keys: ${raw}`);
      await shoot(page, `${path.slice(1) || "overview"}-zh`);
    },
  );

await test("the theme is switched and kept", {}, async (page) => {
  await open(page, "");
  await page.locator('aside button[aria-label="Dark theme"]').click();
  holds((await page.getAttribute("html", "data-theme")) === "dark", "dark");
  await page.reload();
  await page.locator('aside button[aria-label="Light theme"]').waitFor();
});

await test("the menu of a phone opens and follows", { width: 390, height: 844 }, async (page) => {
  await open(page, "");
  await page.locator(".menu-button button").click();
  await page.locator("dialog.menu[open]").waitFor();
  await shoot(page, "menu-390-light");
  await page.locator("dialog.menu nav a", { hasText: "Errors" }).click();
  await page.locator("h1", { hasText: "Errors" }).waitFor();
  holds((await page.locator("dialog.menu[open]").count()) === 0, "it closes");
});

await test("the content is a skip away", {}, async (page) => {
  await open(page, "");
  await settled(page);
  await page.keyboard.press("Tab");
  holds(
    await page.evaluate(() => document.activeElement.classList.contains("skip")),
    "the first stop is the skip link",
  );
  await page.keyboard.press("Enter");
  holds(await page.evaluate(() => document.activeElement.id === "main"), "and leads to the content");
});

if (!only.length || only.some((part) => "it can be installed".includes(part))) {
  // not in a private window, from which nothing is installed
  const profile = mkdtempSync(join(tmpdir(), "profile-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    args: ARGS,
  });
  await test("it can be installed", {}, async () => {
    if (key) await context.request.post(`${base}/admin/api/v1/session`, { data: { key } });
    const page = await context.newPage();
    await open(page, "");
    const session = await context.newCDPSession(page);
    const manifest = await session.send("Page.getAppManifest");
    holds(manifest.errors.length === 0, `the manifest is read: ${JSON.stringify(manifest.errors)}`);
    holds(
      manifest.url === `${base}/admin/manifest.webmanifest` &&
        JSON.parse(manifest.data).start_url === "/admin",
      `it is ours: ${manifest.url}`,
    );
    const { installabilityErrors } = await session.send("Page.getInstallabilityErrors");
    holds(installabilityErrors.length === 0, `it is taken: ${JSON.stringify(installabilityErrors)}`);
    for (const icon of JSON.parse(manifest.data).icons) {
      const size = await page.evaluate(async (src) => {
        const image = new Image();
        image.src = src;
        await image.decode();
        return `${image.naturalWidth}x${image.naturalHeight}`;
      }, icon.src);
      holds(icon.sizes === "any" || icon.sizes === size, `${icon.src}: ${size}`);
    }
  });
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}

await test("an unknown page says so, in the page", {}, async (page) => {
  await open(page, "");
  await page.evaluate(
    () => (history.pushState(null, "", "/admin/nowhere"), dispatchEvent(new PopStateEvent("popstate"))),
  );
  await page.locator(".empty", { hasText: "Page not found" }).waitFor();
});

await test("a hidden page is not live", {}, async (page) => {
  // streams are counted where they are opened and closed
  await page.addInitScript(() => {
    const open = new Set();
    window.streams = () => [...open].filter((one) => one.readyState !== EventSource.CLOSED).length;
    window.EventSource = class extends EventSource {
      constructor(...given) {
        super(...given);
        open.add(this);
      }
    };
  });
  for (const path of ["", "/requests", "/errors"]) {
    await open(page, path);
    await live(page);
    await settled(page);
    if (path === "/requests") {
      await page.keyboard.press("j");
      await page.locator("dialog.drawer[open]").waitFor();
    }
    holds((await page.evaluate(() => streams())) === 1, "one stream while it is seen");
    await hide(page, true);
    await page.locator(".link-state.tone-plain").waitFor();
    holds((await page.evaluate(() => streams())) === 0, "none while it is hidden");
    const asked = [];
    const hear = (req) => asked.push(req.url());
    await page.waitForTimeout(300);
    page.on("request", hear);
    await page.waitForTimeout(5500);
    page.off("request", hear);
    holds(asked.length === 0, `${path}: nothing is asked while hidden: ${asked}`);
    await hide(page, false);
    await live(page);
    holds((await page.evaluate(() => streams())) === 1, "one stream when it is seen again");
  }
});

if (key) {
  for (const [width, scheme, locale, title, where] of [
    [1280, "light", "en-GB", "Sign in", "Where is the key?"],
    [1280, "dark", "zh-CN", "登录", "密钥在哪里？"],
    [390, "light", "zh-CN", "登录", "密钥在哪里？"],
  ])
    await test(
      `the door is shown without a session, and says where the key is, ${width} px, ${locale}`,
      { isIn: false, width, height: 844, scheme, locale },
      async (page) => {
        const asked = [];
        page.on("request", (req) => req.url().includes("/api/") && asked.push(new URL(req.url()).pathname));
        await open(page, "/requests");
        await page.locator("input[type=password]").waitFor();
        await page.locator("h1", { hasText: title }).waitFor();
        holds((await page.title()).startsWith(title), await page.title());
        await page.locator("summary", { hasText: where }).click();
        for (const word of ["DASHBOARD_API_KEY", "/admin#key=", "dashboard.key"])
          await page.locator(".door-where p", { hasText: word }).first().waitFor();
        await page.waitForTimeout(1000);
        holds(
          asked.every((path) => path === "/admin/api/v1/session"),
          `no data is asked for: ${asked}`,
        );
        await shoot(page, `login-${width}-${scheme}`);
      },
    );

  await test(
    "the wrong key stays outside, the right one is let in and out",
    { isIn: false, width: 390, height: 844 },
    async (page, { complaints }) => {
      await open(page, "/usage");
      await page.fill("#key", "wrong");
      await page.keyboard.press("Enter");
      await page.locator("#key-fault", { hasText: "Invalid key." }).waitFor();
      await shoot(page, "login-390-wrong");
      holds(
        complaints.every((text) => text.includes("401")),
        `only the refusal is told: ${complaints}`,
      );
      complaints.length = 0;
      await page.fill("#key", key);
      await page.locator("button[type=submit]").click();
      await page.locator("h1", { hasText: "Usage" }).waitFor();
      holds(new URL(page.url()).pathname === "/admin/usage", "the page that was asked for");
      await settled(page);
      holds((await page.evaluate(() => document.cookie)) === "", "the session is out of the page's reach");
      await page.locator(".menu-button button").click();
      await page.locator("dialog.menu button", { hasText: "Sign out" }).click();
      await page.locator("#key").waitFor();
      complaints.length = 0;
    },
  );

  await test("a session that ended leads to the door", {}, async (page, { context, complaints }) => {
    await open(page, "");
    await settled(page);
    await context.clearCookies();
    await page.locator('.top button[aria-label="Refresh"]').click();
    await page.locator("#key").waitFor();
    complaints.length = 0;
  });
}

// what needs a process to itself: the program with a generated key, or else a mock
const own = process.env.PROGRAM
  ? await startProgram(process.env.PROGRAM)
  : isMock
    ? await start({
        key: "0123456789abcdef".repeat(4),
        urls: ["unix:/run/x.sock", "http://0.0.0.0:8088", "http://[::]:8443"],
      })
    : null;
if (own) {
  let cookies = null;
  // one session for all of them: attempts are counted
  const enter = async (page, path) => {
    const context = page.context();
    if (cookies) await context.addCookies(cookies);
    else {
      await context.request.post(`${own.base}/admin/api/v1/session`, { data: { key: own.key } });
      ({ cookies } = await context.storageState());
    }
    await page.goto(`${own.base}/admin${path}`);
    await page.locator("main").waitFor();
  };
  await own.traffic?.();

  await test("the key in the address signs in, and leaves it", { isIn: false }, async (page) => {
    const asked = [];
    page.on("request", (req) => asked.push(req.url()));
    await page.goto(`${own.base}/admin/requests?status=2xx#key=${own.key}`);
    await page.locator("h1", { hasText: "Requests" }).waitFor();
    await live(page);
    holds(page.url() === `${own.base}/admin/requests?status=2xx`, `the address is clean: ${page.url()}`);
    holds(!asked.some((url) => new URL(url).pathname.includes(own.key)), "no request names it");
    await page.reload();
    await live(page);
    await page.goBack();
    await page.goForward();
    await live(page);
    holds(!page.url().includes(own.key), `the history is clean: ${page.url()}`);
    const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }]));
    holds(!kept.includes(own.key), "nothing keeps it");
  });

  await test("an open door takes the key of a new address", { isIn: false }, async (page, { complaints }) => {
    await page.goto(`${own.base}/admin/errors#key=${"0".repeat(64)}`);
    await page.locator("#key-fault", { hasText: "Invalid key." }).waitFor();
    holds(page.url() === `${own.base}/admin/errors`, `the address is clean: ${page.url()}`);
    holds(
      complaints.every((text) => text.includes("401")),
      `only the refusal is told: ${complaints}`,
    );
    complaints.length = 0;
    // an address with another fragment is the same page
    await page.evaluate((key) => void (location.hash = `key=${key}`), own.key);
    await page.locator("h1", { hasText: "Errors" }).waitFor();
    holds(page.url() === `${own.base}/admin/errors`, `the address is clean: ${page.url()}`);
  });

  await test("clients are given the proxy's address, not the dashboard's", { isIn: false }, async (page) => {
    await enter(page, "/connect");
    const address = own.main ?? "http://127.0.0.1:8088";
    await page.locator(".code", { hasText: new RegExp(`^${address}$`) }).waitFor();
    await page.locator("main", { hasText: `ANTHROPIC_BASE_URL=${address}` }).waitFor();
    await page.locator("button", { hasText: "Test the proxy" }).click();
    await page.locator(".test .tone-good", { hasText: `from ${own.base}/health` }).waitFor();
    await page.locator(".code", { hasText: `curl -sS ${address}/health` }).waitFor();
    await shoot(page, "connect-apart-1280-light");
  });

  await test("a setting that waits for a restart tells both values", { isIn: false }, async (page) => {
    if (own.write) {
      own.write("WORKERS=2\n");
      for (
        let i = 0;
        i < 50 &&
        !(
          await (
            await fetch(`${own.base}/admin/api/v1/config`, {
              headers: { authorization: `Bearer ${own.key}` },
            })
          ).json()
        ).pending_restart.includes("WORKERS");
        i++
      )
        await new Promise((resolve) => setTimeout(resolve, 200));
    }
    await enter(page, "/config");
    await page
      .locator(".setting", { has: page.locator("code", { hasText: /^WORKERS$/ }) })
      .locator(".setting-value", { hasText: /^1, after a restart 2/ })
      .waitFor();
    await page.fill('input[type="search"]', "workers");
    await shoot(page, "config-next-1280-light");
    own.write?.("WORKERS=1\n");
  });

  await test("a pending row tells what is known, and ends in place", { isIn: false }, async (page) => {
    await enter(page, "/requests?status=pending");
    await live(page);
    own.ask?.("slowly");
    const row = page
      .locator(".vrow", { has: page.locator(".c-status", { hasText: "200 streaming" }), hasText: "claude-" })
      .first();
    await row.waitFor({ timeout: 25_000 });
    holds((await row.locator(".c-model").textContent()).startsWith("claude-"), "its model");
    const id = await row.getAttribute("data-id");
    await shoot(page, "pending-1280-light");
    await page.locator(`.vrow[data-id="${id}"]`).waitFor({ state: "detached", timeout: 25_000 });
  });

  for (const [width, scheme] of [
    [1280, "light"],
    [390, "dark"],
  ])
    await test(
      `an error's words are shown, ${width} px, ${scheme}`,
      { isIn: false, width, height: 844, scheme },
      async (page) => {
        await enter(page, "/errors");
        await page.locator(".kept", { hasText: /Of the last 1,000 failures since ./ }).waitFor();
        const group = (text) =>
          page.locator("details.group", { has: page.locator("summary", { hasText: text }) }).first();
        await group("529").locator(".badge", { hasText: "upstream response" }).waitFor();
        await group("529").locator("summary").click();
        await group("529").locator(".group-body code", { hasText: "overloaded_error" }).waitFor();
        await shoot(page, `error-${width}-${scheme}`);
        await group("500").locator("summary").click();
        await group("500").locator(".group-body", { hasText: "in an unsupported content coding" }).waitFor();
        await enter(page, "/requests?status=4xx");
        await page.locator(".vrow").first().click();
        await page.locator("dialog.drawer .code", { hasText: "error" }).first().waitFor();
        await shoot(page, `drawer-error-${width}-${scheme}`);
      },
    );

  await test(
    "an error in the middle of a 200 is an error, in its own words",
    { isIn: false },
    async (page) => {
      await own.ask?.("fails late");
      await enter(page, "/errors");
      const group = page
        .locator("details.group", { has: page.locator("summary", { hasText: /200.*overloaded_error/s }) })
        .first();
      await group.waitFor();
      await group.locator("summary .note", { hasText: "in the middle of the stream" }).waitFor();
      await enter(page, "/requests?status=failed");
      const row = page.locator(".vrow", { has: page.locator(".c-status", { hasText: "200 error" }) }).first();
      await row.locator(".status.tone-bad").waitFor();
      await row.click();
      await page.locator("dialog.drawer .code", { hasText: "in the middle of the stream" }).waitFor();
      await page.keyboard.press("Escape");
    },
  );

  await test("what failed last is first, by the time that is shown", { isIn: false }, async (page) => {
    await enter(page, "/errors");
    const times = page.locator("main .card:not(.group) tbody td.dim:first-child");
    await times.first().waitFor();
    const shown = await times.allTextContents();
    holds(shown.length > 1 && shown.every((text, i) => i === 0 || text <= shown[i - 1]), shown.join());
    await page.locator("th", { hasText: "Ended" }).waitFor();
  });

  await test("a restart is told, and leads to the door", { isIn: false }, async (page, { complaints }) => {
    await enter(page, "/requests");
    await live(page);
    await page.locator(".vrow").first().waitFor();
    const before = await page.locator(".vrow").first().getAttribute("data-id");
    const restarted = own.restart();
    await page.locator(".link-state.tone-bad").waitFor();
    await shoot(page, "lost-1280-light");
    await restarted;
    // the sessions went with the process; a mock keeps them
    if (process.env.PROGRAM) {
      await page.locator("#key").waitFor();
      await page.evaluate((key) => void (location.hash = `key=${key}`), own.key);
    }
    await live(page);
    await own.traffic?.();
    await page.waitForFunction(
      (before) =>
        document.querySelector(".vrow") &&
        ![...document.querySelectorAll(".vrow")].some((row) => row.dataset.id === before),
      before,
    );
    complaints.length = 0;
  });
  await own.stop();
}

if (key) {
  await test(
    "a request in flight tells how far it has come, and can be ended",
    {},
    async (page, { context }) => {
      const program = process.env.PROGRAM
        ? await startProgram(process.env.PROGRAM, { DASHBOARD_API_KEY: key })
        : null;
      const where = program?.base ?? base;
      try {
        if (program)
          holds(
            (await context.request.post(`${where}/admin/api/v1/session`, { data: { key } })).status() === 204,
            "the key opens a session",
          );
        await page.goto(`${where}/admin/requests?status=pending`);
        await live(page);
        const asked = program?.ask("for ever");
        const row = page
          .locator(".vrow", {
            has: page.locator(".c-status", { hasText: "200 streaming" }),
            hasText: "claude-",
          })
          .first();
        await row.waitFor({ timeout: 25_000 });
        const id = await row.getAttribute("data-id");
        const cell = (name) => page.locator(`.vrow[data-id="${id}"] .c-${name}`);
        await page.waitForFunction(
          (id) => /→ ≥/.test(document.querySelector(`.vrow[data-id="${id}"] .c-tokens`)?.textContent),
          id,
        );
        const bytes = await cell("bytes").textContent();
        await page.waitForFunction(
          ([id, bytes]) => document.querySelector(`.vrow[data-id="${id}"] .c-bytes`)?.textContent !== bytes,
          [id, bytes],
        );
        holds((await cell("ttft").textContent()) !== "–", "its first token");
        await page.locator(`.vrow[data-id="${id}"]`).click();
        const drawer = page.locator("dialog.drawer[open]");
        await drawer.locator("h3", { hasText: "Request fields" }).waitFor();
        const open = drawer.locator("button", { hasText: "End this request" });
        await open.click();
        await drawer.locator("#end-reason").fill("it never stops");
        // Escape leaves the question alone
        await page.keyboard.press("Escape");
        await open.waitFor();
        holds(
          await page.evaluate(() => document.activeElement.classList.contains("danger")),
          "the focus is back on the button",
        );
        await open.click();
        await drawer.locator("#end-reason").fill("it never stops");
        await shoot(page, "end-1280-light");
        const told = page.waitForRequest((req) => req.url().endsWith(`/requests/${id}/end`));
        await drawer.locator("button", { hasText: "End it" }).click();
        holds(JSON.parse((await told).postData()).reason === "it never stops", "with its reason");
        await drawer.locator("dd", { hasText: "ended by an operator" }).waitFor();
        await asked;
      } finally {
        await program?.stop();
      }
    },
  );
}

if (isMock) {
  await test("exchanges that are in no sum are told", {}, async (page) => {
    mock.state().lost = 1234;
    await open(page, "");
    await page.locator(".notice-warn", { hasText: "1,234 requests" }).waitFor();
    mock.state().lost = 0;
  });
  await test("money that is known is shown beside what has no price", {}, async (page) => {
    const [one, other] = mock.state().rows.filter((row) => row.cost_usd !== null);
    [one.cost_usd, other.cost_usd] = [9.71, null];
    await open(page, "/usage?by=day&range=24h");
    const cost = page.locator("tbody .cost-cell").first();
    await cost.waitFor();
    holds(/^≥\u202f\$\d/.test(await cost.textContent()), await cost.textContent());
    await cost.locator(".badge", { hasText: /\d+ unpriced/ }).waitFor();
    await page.locator(".note", { hasText: "the priority tier" }).waitFor();
    await page.locator(".tile .number", { hasText: "≥" }).first().waitFor();
  });
  await test("what other models used stands apart, and a floor is marked", {}, async (page) => {
    await open(page, "");
    const rows = mock.state().rows;
    const [other, cut] = [
      rows.find((row) => row.other_models.length && row.result === "succeeded"),
      rows.find((row) => row.at_least && row.estimate.cost_usd),
    ];
    await open(page, `/requests?id=${other.id}`);
    await page.locator("dialog.drawer h3", { hasText: "Other models" }).waitFor();
    await open(page, `/requests?id=${cut.id}`);
    await page.locator("dialog.drawer", { hasText: /≥\u202f\$/ }).waitFor();
    await page.locator("dialog.drawer dt", { hasText: "Estimated" }).waitFor();
  });
  await test("the state of an upstream is told", {}, async (page) => {
    for (const path of ["/upstreams", ""]) {
      await open(page, path);
      for (const text of ["failing (2 of 5)", "unknown", "open"])
        await page.locator("main .badge", { hasText: text }).first().waitFor();
    }
  });
  await test("attempts that failed over are errors of their upstream", {}, async (page) => {
    await open(page, "/errors");
    const group = page.locator("details.group", { has: page.locator(".badge", { hasText: "failed over" }) });
    await group.first().waitFor();
    await group.first().locator("summary").click();
    await group.first().locator(".group-body", { hasText: "retried on the next upstream" }).waitFor();
  });
  await test("a range without quantiles says so", {}, async (page) => {
    await page.route("**/api/v1/overview*", async (route) => {
      const answer = await (await route.fetch()).json();
      for (const name of ["ttft_ms", "duration_ms"])
        answer.totals[name] = { avg: 5, p50: null, p95: null, p99: null };
      await route.fulfill({ json: answer });
    });
    await open(page, "?range=7d");
    await page.locator(".note", { hasText: "No quantiles for this range" }).waitFor();
  });
  await test(
    "settings and their faults are told in the reader's language",
    { locale: "zh-CN" },
    async (page) => {
      await open(page, "/config");
      await page.locator(".setting").first().waitFor();
      const english = await page.evaluate(() =>
        [...document.querySelectorAll(".setting > div:first-child .note")]
          .map((one) => one.textContent)
          .filter((text) => !/[\u4e00-\u9fff]/.test(text)),
      );
      holds(english.length === 0, english.join(" | "));
      await page.locator(".notice li", { hasText: "MAX_IN_FLIGHT（env/.env 第 12 行）无效" }).waitFor();
      await page.locator(".setting", { hasText: "环境变量" }).first().waitFor();
    },
  );
  await test("one URL that stands twice is two upstreams", {}, async (page) => {
    for (const path of ["/upstreams", ""]) {
      await open(page, path);
      await page.locator("main .mono", { hasText: /^https:\/\/api\.anthropic\.com #2$/ }).waitFor();
      holds(
        (await page.locator("main .mono", { hasText: /^https:\/\/api\.anthropic\.com$/ }).count()) === 1,
        "and the first",
      );
    }
  });
  await test("a paused list survives a cut of the line", {}, async (page, { complaints }) => {
    await open(page, "/requests");
    await live(page);
    await page.locator(".vrow").first().waitFor();
    await page.keyboard.press("p");
    await page.locator('.list-bar button[aria-pressed="true"]').waitFor();
    const ids = () =>
      page.evaluate(() => [...document.querySelectorAll(".vrow")].map((row) => row.dataset.id).join());
    const before = await ids();
    mock.cut();
    await page.locator(".link-state.tone-bad").waitFor();
    await live(page);
    await page.waitForTimeout(1500);
    holds((await ids()) === before, "nothing moves");
    holds(
      /\d\+/.test(await page.locator('.list-bar button[aria-pressed="true"]').textContent()),
      "it says that there is more",
    );
    await page.keyboard.press("p");
    await page.waitForFunction(
      (before) => [...document.querySelectorAll(".vrow")].map((row) => row.dataset.id).join() !== before,
      before,
    );
    complaints.length = 0;
  });
}

clearInterval(traffic);
await browser.close();
mock?.stop();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
