// The dashboard in a real browser.
//
//     node tests/browser/run.mjs                               against the mock
//     BASE=http://127.0.0.1:8089 KEY=… node tests/browser/run.mjs    against a proxy that has had some traffic:
//                                                 four good POST /v1/messages at least
//
// With KEY the proxy must ask for it. TRAFFIC=URL is asked now and then, so that the proxy under test
// has something to show. SHOTS=0 takes no pictures; they go to .shots/, for a person to look at.

import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { start } from "./mock.mjs";

const SHOTS = join(dirname(fileURLToPath(import.meta.url)), ".shots");
const PAGES = ["", "/requests", "/errors", "/usage", "/upstreams", "/config", "/connect", "/docs"];
const ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const WAIT = 10_000;
const isMock = !process.env.BASE;
const key = process.env.KEY || (isMock ? "a key of the test" : null);
const mock = isMock ? await start({ key }) : null;
const base = process.env.BASE || mock.base;
const only = process.argv[2];

mkdirSync(SHOTS, { recursive: true });
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: ARGS });
const traffic = process.env.TRAFFIC && setInterval(() => fetch(process.env.TRAFFIC).then((res) => res.text(), () => {}), 300);
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
async function visitor({ width = 1280, height = 860, scheme = "light", locale = "en-GB", isIn = true } = {}) {
  const storageState = isIn && key ? (opened ??= await enter()) : undefined;
  const context = await browser.newContext({ storageState, viewport: { width, height }, colorScheme: scheme, locale, reducedMotion: "reduce" });
  context.setDefaultTimeout(WAIT);
  const page = await context.newPage();
  const complaints = [];
  await page.addInitScript(() => document.addEventListener("securitypolicyviolation", (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`)));
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  return { context, page, complaints };
}

async function test(name, options, run) {
  if (only && !name.includes(only)) return;
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
    await here.page?.screenshot({ path: join(SHOTS, `fail-${name.replace(/\W+/g, "-")}.png`) }).catch(() => {});
  } finally {
    await here.context?.close();
  }
}

const open = async (page, path) => {
  await page.goto(`${base}/admin${path}`);
  await page.locator("main").waitFor();
};
const settled = async (page) => {
  await page.locator(".bones, .bone").first().waitFor({ state: "detached" }).catch(() => {});
  await page.waitForFunction(() => !document.querySelector("main .bones, main .bone"));
};
const shoot = (page, name) => (process.env.SHOTS === "0" ? null : page.screenshot({ path: join(SHOTS, `${name}.png`) }));
const live = (page) => page.locator(".link-state.tone-good").first().waitFor();

for (const path of PAGES) {
  const name = path.slice(1) || "overview";
  await test(`${name} loads without a complaint`, {}, async (page) => {
    await open(page, path);
    await settled(page);
    holds((await page.locator("h1").count()) === 1, "there is one h1");
    holds((await page.locator("main").count()) === 1 && (await page.locator("nav").first().isVisible()), "there are the landmarks");
    holds((await page.locator('nav a[aria-current="page"]').first().getAttribute("href")) === `/admin${path}`, "the navigation tells the page");
    holds((await page.locator(".notice-bad[role=alert] >> text=/could not answer|does not answer/").count()) === 0, "no fault is shown");
    const nameless = await page.evaluate(() => [...document.querySelectorAll("button, a, input, select")].filter((one) => one.checkVisibility() && !(one.getAttribute("aria-label") || one.textContent.trim() || one.labels?.length)).map((one) => one.outerHTML));
    holds(nameless.length === 0, `every control has a name: ${nameless}`);
  });
  for (const scheme of ["light", "dark"])
    for (const width of [1280, 390])
      await test(`${name} fits ${width} px, ${scheme}`, { width, height: width === 390 ? 844 : 860, scheme }, async (page) => {
        await open(page, path);
        await settled(page);
        await live(page);
        if (name === "overview") await page.waitForTimeout(process.env.SHOTS === "0" ? 0 : 3500);
        const wide = await page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);
        holds(wide <= 0, `nothing sticks out: ${wide} px`);
        const ground = await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
        holds((ground === "rgb(247, 247, 245)") === (scheme === "light"), `the theme is the system's: ${ground}`);
        await shoot(page, `${name}-${width}-${scheme}`);
        if (width === 390 || name === "overview") await page.evaluate(() => scrollTo(0, 900)), await shoot(page, `${name}-${width}-${scheme}-below`);
      });
}

await test("the first paint comes within 300 ms", {}, async (page) => {
  await open(page, "");
  // the first visit warms the browser up; the second is measured, with its cache empty
  const session = await page.context().newCDPSession(page);
  await session.send("Network.setCacheDisabled", { cacheDisabled: true });
  const took = [];
  for (let i = 0; i < 3; i++) {
    await page.reload();
    await settled(page);
    took.push(await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime));
  }
  console.log(`     ${took.map((ms) => ms.toFixed(0)).join(", ")} ms`);
  holds(Math.min(...took) < 300, `first paint ${took} ms`);
  const bytes = await page.evaluate(() => performance.getEntries().filter((one) => one.encodedBodySize && !one.name.includes("/api/")).reduce((sum, one) => sum + one.encodedBodySize, 0));
  console.log(`     ${(bytes / 1024).toFixed(1)} KiB for the first page`);
  holds(bytes <= 120 * 1024, `the first page is ${bytes} bytes`);
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
  await page.waitForFunction(() => [...document.querySelectorAll(".vrow .status")].every((one) => /^2/.test(one.textContent)));
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
  await page.fill("#filter-path", "x".repeat(400)).catch(() => {});
  await page.locator("#filter-path").pressSequentially("y");
  holds((await page.inputValue("#filter-path")).length <= 400, "typed");
  holds((await page.getAttribute("#filter-path", "maxlength")) === "256", "at most 256");
  await page.fill("#filter-path", "");
});

await test("the list pauses and goes on", {}, async (page) => {
  await open(page, "/requests");
  await page.locator(".vrow").first().waitFor();
  await page.keyboard.press("p");
  await page.locator('.list-bar button[aria-pressed="true"]').waitFor();
  await page.waitForTimeout(300);
  const ids = () => page.evaluate(() => [...document.querySelectorAll(".vrow")].map((row) => row.dataset.id).join());
  const before = await ids();
  await page.waitForTimeout(2500);
  holds((await ids()) === before, "nothing moves while paused");
  await page.keyboard.press("p");
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
  await page.locator(".vrow").nth(1).focus();
  await page.keyboard.press("Enter");
  await page.locator("dialog.drawer[open]").waitFor();
  await page.keyboard.press("Escape");
  await page.locator("dialog.drawer").waitFor({ state: "detached" });
});

for (const [width, scheme] of [[1280, "light"], [1280, "dark"], [390, "light"], [390, "dark"]])
  await test(`the drawer tells of a request, ${width} px, ${scheme}`, { width, height: 844, scheme }, async (page, { context }) => {
    await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: new URL(base).origin });
    await open(page, "/requests?status=2xx&path=%2Fv1%2Fmessages");
    await page.locator(".vrow").nth(3).click();
    const drawer = page.locator("dialog.drawer[open]");
    await drawer.locator(".waterfall .span").first().waitFor();
    holds((await drawer.locator(".pairs").count()) > 0, "the fields are there");
    // focus stays inside of the dialog
    for (let i = 0; i < 12; i++) await page.keyboard.press("Tab");
    holds(await page.evaluate(() => document.activeElement === document.body || !!document.activeElement.closest("dialog")), "focus is held");
    await drawer.locator("button", { hasText: "Copy as curl" }).click();
    await drawer.locator("button", { hasText: "Copied" }).waitFor();
    const text = await page.evaluate(() => navigator.clipboard.readText());
    holds(text.startsWith("curl ") && text.includes("/v1/messages"), text);
    await shoot(page, `drawer-${width}-${scheme}`);
    const wide = await page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);
    holds(wide <= 0, `nothing sticks out: ${wide} px`);
  });

await test("usage is exported", {}, async (page) => {
  await open(page, "/usage");
  await settled(page);
  for (const kind of ["CSV", "JSON"]) {
    const download = page.waitForEvent("download");
    await page.locator("a.button", { hasText: kind }).click();
    holds((await download).suggestedFilename().endsWith(`.${kind.toLowerCase()}`), "its name");
  }
});

await test("the settings are searched", {}, async (page) => {
  await open(page, "/config");
  await page.locator(".setting").first().waitFor();
  await page.fill('input[type="search"]', "DASHBOARD_API_KEY");
  await page.waitForFunction(() => document.querySelectorAll(".setting").length < 4);
  if (key) holds(!(await page.locator("main").textContent()).includes(key), "the key is not shown");
});

await test("the proxy is tested", {}, async (page) => {
  await open(page, "/connect");
  await page.locator("button", { hasText: "Test the proxy" }).click();
  await page.locator(".test .tone-good").waitFor();
});

await test("the API's description is read and asked", {}, async (page) => {
  await open(page, "/docs");
  const operation = page.locator(".operation", { has: page.locator("code", { hasText: /\/overview$/ }) }).first();
  await operation.locator("summary").click();
  await operation.locator("button", { hasText: "Ask" }).click();
  await operation.locator(".try-answer", { hasText: "200" }).waitFor();
});

await test("Chinese is chosen and kept", {}, async (page) => {
  await open(page, "");
  await page.locator("aside button.lang").click();
  await page.locator("h1", { hasText: "概览" }).waitFor();
  holds((await page.getAttribute("html", "lang")) === "zh-CN", "lang");
  await page.reload();
  await page.locator("h1", { hasText: "概览" }).waitFor();
});

for (const path of PAGES)
  await test(`${path.slice(1) || "overview"} in Chinese has no key left over`, { locale: "zh-CN" }, async (page) => {
    await open(page, path);
    await settled(page);
    await page.locator("h1", { hasText: /[\u4e00-\u9fff]|API/ }).waitFor();
    const raw = await page.evaluate(() => (document.body.innerText.match(/\b(nav|sum|col|now|plot|filter|range|link|drawer|usage|errors|config|connect|docs|upstreams|fault|state|tokens|circuit|section)\.[a-z_]+\b/g) ?? []).filter((text) => !/\.(example|json|csv|com|top)$/.test(text)));
    holds(raw.length === 0, `keys: ${raw}`);
    await shoot(page, `${path.slice(1) || "overview"}-zh`);
  });

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
  holds(await page.evaluate(() => document.activeElement.classList.contains("skip")), "the first stop is the skip link");
  await page.keyboard.press("Enter");
  holds(await page.evaluate(() => document.activeElement.id === "main"), "and leads to the content");
});

await test("it can be installed", {}, async (page) => {
  await open(page, "");
  const manifest = await page.evaluate(async () => (await fetch(document.querySelector("link[rel=manifest]").href)).json());
  for (const icon of manifest.icons) holds((await page.request.get(base + icon.src)).ok(), icon.src);
});

await test("an unknown page says so, in the page", {}, async (page) => {
  await open(page, "");
  await page.evaluate(() => (history.pushState(null, "", "/admin/nowhere"), dispatchEvent(new PopStateEvent("popstate"))));
  await page.locator(".empty", { hasText: "No such page" }).waitFor();
});

await test("a hidden page is not live", {}, async (page) => {
  await open(page, "");
  await live(page);
  await page.evaluate(() => {
    Object.defineProperty(document, "hidden", { value: true, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  });
  await page.locator(".link-state.tone-plain").waitFor();
  await page.evaluate(() => {
    Object.defineProperty(document, "hidden", { value: false, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  });
  await live(page);
});

if (key) {
  for (const scheme of ["light", "dark"])
    await test(`the door is shown without a session, ${scheme}`, { isIn: false, scheme }, async (page) => {
      await open(page, "/requests");
      await page.locator("input[type=password]").waitFor();
      await shoot(page, `login-1280-${scheme}`);
    });

  await test("the wrong key stays outside, the right one is let in and out", { isIn: false, width: 390, height: 844 }, async (page, { complaints }) => {
    await open(page, "/usage");
    await page.fill("#key", "wrong");
    await page.keyboard.press("Enter");
    await page.locator("#key-fault", { hasText: "This is not the key." }).waitFor();
    await shoot(page, "login-390-wrong");
    holds(complaints.every((text) => text.includes("401")), `only the refusal is told: ${complaints}`);
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
  });

  await test("a session that ended leads to the door", {}, async (page, { context, complaints }) => {
    await open(page, "");
    await settled(page);
    await context.clearCookies();
    await page.locator('.top button[aria-label="Refresh"]').click();
    await page.locator("#key").waitFor();
    complaints.length = 0;
  });
}

if (isMock) {
  const keyless = await start({ key: null });
  await test("without a key it opens, and says how to set one", { isIn: false }, async (page) => {
    await page.goto(`${keyless.base}/admin`);
    const hint = page.locator(".notice", { hasText: "DASHBOARD_API_KEY" });
    await hint.waitFor();
    await settled(page);
    await shoot(page, "open-1280-light");
    await hint.locator("button").click();
    await hint.waitFor({ state: "detached" });
    await page.reload();
    await settled(page);
    holds((await hint.count()) === 0, "it is dismissed for good");
  });
  await test("without a key and from elsewhere it stays closed, and says why", { isIn: false, width: 390, height: 844 }, async (page) => {
    await page.route("**/api/v1/session", (route) => route.fulfill({ json: { authenticated: false, key_required: false, loopback: false } }));
    await page.goto(`${keyless.base}/admin`);
    await page.locator("h1", { hasText: "closed" }).waitFor();
    holds((await page.locator("main").textContent()).includes("DASHBOARD_API_KEY"), "how to set one");
    await shoot(page, "closed-390-light");
  });
  keyless.stop();

  await test("a restart is told and survived", {}, async (page, { complaints }) => {
    await open(page, "");
    await live(page);
    await page.request.post(`${base}/__mock/restart`);
    await page.locator(".link-state.tone-bad").waitFor();
    await shoot(page, "lost-1280-light");
    await live(page);
    complaints.length = 0;
  });

  await test("a pending row ends in place", {}, async (page) => {
    await open(page, "/requests?status=pending");
    const row = page.locator(".vrow").first();
    await row.waitFor();
    const id = await row.getAttribute("data-id");
    await page.locator(`.vrow[data-id="${id}"]`).waitFor({ state: "detached", timeout: 25_000 });
  });

  for (const [width, scheme] of [[1280, "light"], [390, "dark"]])
    await test(`an error's words are shown, ${width} px, ${scheme}`, { width, height: 844, scheme }, async (page) => {
      await open(page, "/errors");
      await page.locator("details.group summary").first().click();
      await page.locator("details.group[open] .group-body").waitFor();
      await shoot(page, `error-${width}-${scheme}`);
      await open(page, "/requests?status=4xx");
      await page.locator(".vrow").first().click();
      await page.locator("dialog.drawer .code").waitFor();
      await shoot(page, `drawer-error-${width}-${scheme}`);
    });
}

clearInterval(traffic);
await browser.close();
mock?.stop();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
