// What must hold of the dashboard's files without a browser: node tests/browser/static.mjs
//
// The modules' own tests (unit.mjs) are among it.

import { readFileSync, readdirSync, statSync } from "node:fs";
import { dirname, extname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, gzipSync } from "node:zlib";
import "./unit.mjs";

const STATIC = join(dirname(fileURLToPath(import.meta.url)), "../../static");
// of every file that a reader may load, not only those of the first page
const MOST = 156 * 1024;

const files = (folder) =>
  readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? files(path) : [path];
  });
const read = (name) => readFileSync(join(STATIC, name), "utf8");
const assets = files(join(STATIC, "assets"));
const ours = assets.filter((path) => !path.includes("/vendor/"));
let failed = 0;
let passed = 0;

function check(name, faults) {
  if (faults.length === 0) return (passed++, console.log(`ok   ${name}`));
  failed++;
  console.log(`FAIL ${name}`);
  for (const fault of faults) console.log(`     ${fault}`);
}

const { default: en } = await import(join(STATIC, "assets/i18n/en.js"));
const { default: zh } = await import(join(STATIC, "assets/i18n/zh.js"));
const holes = (text) => (text.match(/\{\w+\}/g) ?? []).sort().join();
check("both languages have the same keys", [
  ...Object.keys(en)
    .filter((key) => !(key in zh))
    .map((key) => `zh lacks ${key}`),
  ...Object.keys(zh)
    .filter((key) => !(key in en))
    .map((key) => `en lacks ${key}`),
]);
check(
  "both languages have the same values to fill in",
  Object.keys(en).filter((key) => key in zh && holes(en[key]) !== holes(zh[key])),
);
check(
  "no text is empty",
  [en, zh].flatMap((words) => Object.keys(words).filter((key) => !words[key].trim())),
);

// what prettier cannot break: texts of the dictionaries stay whole, for search
const LONGEST = 110;
const written = [
  ...ours,
  ...files(dirname(fileURLToPath(import.meta.url))),
  join(STATIC, "index.html"),
].filter((path) => /\.(js|mjs|css|html|ts)$/.test(path) && !path.includes("/node_modules/"));
const TEXT = /^ *(?:".*":)? ?(?:"(?:[^"\\]|\\.)*",)?$/;
const isText = (path, line) => path.includes("/i18n/") && TEXT.test(line);
check(
  `no line is longer than ${LONGEST} characters`,
  written.flatMap((path) =>
    readFileSync(path, "utf8")
      .split("\n")
      .map((line, i) => [
        [...line].length > LONGEST && !isText(path, line),
        `${relative(STATIC, path)}:${i + 1}`,
      ])
      .filter(([isLong]) => isLong)
      .map(([, where]) => where),
  ),
);

const code = ours
  .filter((path) => extname(path) === ".js" && !path.includes("/i18n/"))
  .map((path) => readFileSync(path, "utf8"))
  .join("\n");
const families = [...code.matchAll(/\b(?:t|word)\(`([a-z_.]*)\$\{/g)].map((found) => found[1]);
// a key may stand in a table and be given to t() later: any text that has the form of one
const used = new Set([...code.matchAll(/\bt\("([^"]+)"/g)].map((found) => found[1]));
const prefixes = new Set(Object.keys(en).map((key) => key.split(".")[0]));
for (const [, key] of code.matchAll(/"([a-z]+(?:\.[a-zA-Z0-9_]+)+)"/g))
  if (prefixes.has(key.split(".")[0]) && !/\.(js|svg|css|json|example)$/.test(key)) used.add(key);
for (const [, condition] of code.matchAll(/\bt\(([^`"()]*\?[^()]*)\)/g))
  for (const [, key] of condition.matchAll(/[?:]\s*"([^"]+)"/g)) used.add(key);
check(
  "every key that the code names is there",
  [...used].filter((key) => !(key in en)),
);
check(
  "every family of keys is there",
  families.filter((family) => !Object.keys(en).some((key) => key.startsWith(family))),
);
const mentioned = (key) =>
  used.has(key) || code.includes(`"${key}"`) || families.some((family) => key.startsWith(family));
check(
  "every key is used",
  Object.keys(en).filter((key) => !mentioned(key)),
);

const settings = readFileSync(join(STATIC, "../docs/configuration.zh-CN.md"), "utf8");
const chinese = [...Object.values(zh), settings].join("\n");
check(
  "the dashboard has one name in Chinese",
  ["控制台", "看板", "面板", "仪表板"].filter(
    (other) => chinese.includes(other) || read("index.html").includes(other),
  ),
);
// a sentence without a Chinese character was not translated; a name or a unit needs none
const same = new Set([
  "nav.docs",
  "p50",
  "p95",
  "p99",
  "drawer.max_tokens",
  "filter.user_agent",
  "tokens",
  "drawer.tokens",
  "plot.tokens",
]);
check(
  "every text is in Chinese",
  Object.keys(zh).filter((key) => !same.has(key) && !/[\u4e00-\u9fff、。]/.test(zh[key])),
);

// words that name no one and nothing, and second names of a term
const RIDDLES =
  /\b(?:somebody|nobody|whoever|so much|so many|what there was|there is nothing|answers?|answered)\b/i;
const chineseTexts = { ...zh, ...settings };
check("texts are plain", [
  ...Object.keys(en).filter((key) => RIDDLES.test(en[key])),
  ...Object.keys(chineseTexts).filter((key) => /回答|应答|有人|后端/.test(chineseTexts[key])),
]);

const index = read("index.html");
check("the page has no inline script, style or handler", [
  ...(/<style|\sstyle=|\son\w+=/.test(index) ? ["index.html"] : []),
  ...(/<script(?![^>]*\ssrc=)/.test(index) ? ["index.html: script"] : []),
  ...ours
    .filter((path) =>
      /\sstyle="|innerHTML|insertAdjacentHTML|dangerouslySetInnerHTML|\beval\(|new Function/.test(
        readFileSync(path, "utf8"),
      ),
    )
    .map((path) => relative(STATIC, path)),
]);
const named = [...index.matchAll(/(?:href|src)="\/admin\/([^"]+)"/g)]
  .map((found) => found[1])
  .concat(JSON.parse(read("manifest.webmanifest")).icons.map((icon) => icon.src.slice("/admin/".length)));
const isThere = (path) => {
  try {
    return statSync(path).isFile();
  } catch {
    return false;
  }
};
check("every file that is named is there", [
  ...named.filter((name) => !isThere(join(STATIC, name))),
  ...ours
    .filter((path) => extname(path) === ".js")
    .flatMap((path) =>
      [...readFileSync(path, "utf8").matchAll(/(?:from|import\()\s*"(\.[^"]+)"/g)]
        .map((found) => join(dirname(path), found[1]))
        .filter((target) => !isThere(target))
        .map((target) => `${relative(STATIC, path)}: ${relative(STATIC, target)}`),
    ),
]);

// WCAG 2.2, 1.4.3: text at 4.5:1 against its ground; 1.4.11: edges of fields at 3:1
const css = read("assets/app.css");
const palette = [...css.matchAll(/--([a-z-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);/g)];
const themes = {
  light: Object.fromEntries(palette.map(([, name, light]) => [name, light])),
  dark: Object.fromEntries(palette.map(([, name, , dark]) => [name, dark])),
};
// colours stand in the palette alone; the page's head and the manifest cannot name its variables
const COLOUR = /#[0-9a-f]{3,8}\b|\b(?:rgba?|hsla?|hwb|oklch|oklab|lab|lch|light-dark)\(/gi;
const PALETTE = /:root \{[^}]*light-dark[^}]*\}/;
check("there is one palette", [
  ...ours
    .filter((path) => /\.(css|js)$/.test(path) && !path.includes("/i18n/"))
    .flatMap((path) => {
      const text = readFileSync(path, "utf8")
        .replace(/\/\*.*?\*\//gs, "")
        .replace(PALETTE, "");
      return (text.match(COLOUR) ?? []).map((colour) => `${relative(STATIC, path)}: ${colour}`);
    }),
  ...(index.match(COLOUR) ?? []).filter((hex) => ![themes.light.page, themes.dark.page].includes(hex)),
  ...(read("manifest.webmanifest").match(COLOUR) ?? []).filter((hex) => hex !== themes.light.page),
]);
const light = (hex) => {
  const [r, g, b] = [1, 3, 5]
    .map((at) => parseInt(hex.slice(at, at + 2), 16) / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ratio = (a, b) => {
  const [high, low] = [light(a), light(b)].sort((x, y) => y - x);
  return (high + 0.05) / (low + 0.05);
};
const pairs = [
  ...["text", "muted"].flatMap((ink) => ["page", "card", "sunk"].map((ground) => [ink, ground, 4.5])),
  ...["good", "warn", "bad", "busy", "accent-text"].flatMap((ink) =>
    ["page", "card", "sunk"].map((ground) => [ink, ground, 4.5]),
  ),
  ...["good", "warn", "bad"].map((ink) => [ink, `${ink}-soft`, 4.5]),
  ...["accent-text", "text", "good", "warn", "bad", "busy", "muted"].map((ink) => [ink, "accent-soft", 4.5]),
  ["on-accent", "accent", 4.5],
  ["edge", "card", 3],
  ["edge", "page", 3],
  ["accent", "card", 3],
  ["accent", "page", 3],
];
for (const [theme, colours] of Object.entries(themes)) {
  check(
    `the ${theme} theme passes WCAG AA`,
    pairs
      .map(([ink, ground, least]) => [ink, ground, least, ratio(colours[ink], colours[ground])])
      .filter(([, , least, found]) => found < least)
      .map(([ink, ground, least, found]) => `${ink} on ${ground}: ${found.toFixed(2)} < ${least}`),
  );
}

const kib = (bytes) => (bytes / 1024).toFixed(1);
// a reader loads one language, and neither licences nor types
const dictionaries = (lang) => (path) => !path.includes("/i18n/") || path.includes(`/i18n/${lang}`);
const shipped = [
  ...assets.filter((path) => !/\.(json|LICENSE|d\.ts)$/.test(path)),
  ...["index.html", "manifest.webmanifest", "icon.svg"].map((name) => join(STATIC, name)),
];
for (const lang of ["en", "zh"]) {
  const loaded = shipped.filter(dictionaries(lang));
  const size = (pack) => loaded.reduce((sum, path) => sum + pack(readFileSync(path)).length, 0);
  const [gzip, brotli] = [size((content) => gzipSync(content, { level: 9 })), size(brotliCompressSync)];
  console.log(`     all files of a reader, ${lang}: ${kib(gzip)} KiB gzip, ${kib(brotli)} KiB brotli`);
  check(
    `everything that a reader loads is at most 156 KiB compressed, ${lang}`,
    gzip <= MOST && brotli <= MOST ? [] : ["too large"],
  );
}

console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
