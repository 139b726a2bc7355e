// The language of the page: two dictionaries, one loaded at a time.

import { cell, kept } from "./view.js";

const LOADERS = { en: () => import("./i18n/en.js"), zh: () => import("./i18n/zh.js") };

export const language = cell(document.documentElement.lang.startsWith("zh") ? "zh" : "en");
let words = (await LOADERS[language.get()]()).default;

/** The text of a key, with `{name}` replaced by `values.name`. */
export function t(key, values) {
  const text = words[key] ?? key;
  return values ? text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole) : text;
}

/** The locale for numbers and dates. */
export const locale = () => (language.get() === "zh" ? "zh-CN" : "en-GB");

export async function speak(lang) {
  words = (await LOADERS[lang]()).default;
  document.documentElement.lang = lang === "zh" ? "zh-CN" : "en";
  kept.set("lang", lang);
  language.set(lang);
}
