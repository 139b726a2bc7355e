// Draws static/dashboard.png, the picture of the READMEs: the overview with the invented data of the mock,
// a calm quarter of an hour with two healthy upstreams.
//
//     (cd tests/browser && npm ci --ignore-scripts) && node tests/browser/picture.mjs
//
// Look at the picture before it is committed. CHROMIUM=PATH names another browser.

import { statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { start } from "./mock.mjs";

const PICTURE = join(dirname(fileURLToPath(import.meta.url)), "../../static/dashboard.png");
const MOST = 150 * 1024;
// the small lines of the tiles grow by a point a second
const SECONDS = 25;

const mock = await start({ key: "a key of the picture" });
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--font-render-hinting=none"],
});
const context = await browser.newContext({
  viewport: { width: 1280, height: 860 },
  colorScheme: "light",
  locale: "en-GB",
  reducedMotion: "reduce",
});
await context.request.post(`${mock.base}/admin/api/v1/session`, { data: { key: "a key of the picture" } });
const page = await context.newPage();
await page.route("**/api/v1/overview*", async (route) => {
  const answer = await (await route.fetch()).json();
  answer.reloads = [];
  Object.assign(answer.totals, { at_least_requests: 0, unpriced_requests: 0 });
  answer.totals.cost_estimate_usd = answer.totals.cost_usd;
  answer.today.at_least_requests = 0;
  answer.upstreams = answer.upstreams
    .slice(0, 2)
    .map((one, i) => ({ ...one, name: `https://${i ? "backup" : "api"}.example.com`, circuit: "closed" }));
  // no pauses: each value that is missing is the one before it
  for (const name of Object.keys(answer.series))
    answer.series[name].forEach((value, i, all) => (all[i] = value ?? all[i - 1] ?? all.find((one) => one)));
  await route.fulfill({ json: answer });
});
await page.goto(`${mock.base}/admin`);
await page.locator(".link-state.tone-good").first().waitFor();
await page.waitForFunction(() => !document.querySelector("main .bones, main .bone"));
await page.waitForTimeout(SECONDS * 1000);
await page.screenshot({ path: PICTURE });
await browser.close();
mock.stop();

const { size } = statSync(PICTURE);
console.log(`${PICTURE}: ${(size / 1024).toFixed(1)} KiB`);
if (size > MOST) throw new Error(`the picture is larger than ${MOST / 1024} KiB`);
