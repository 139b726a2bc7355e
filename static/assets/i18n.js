// The language of the page: two dictionaries, one loaded at a time.

import { cell, kept, useCell, useEffect, useState } from "./view.js";

const LOADERS = { en: () => import("./i18n/en.js"), zh: () => import("./i18n/zh.js") };

/** @type {Page.Cell<Page.Lang>} */
export const language = cell(document.documentElement.lang.startsWith("zh") ? "zh" : "en");
/** @type {Record<string, string>} */
let words = (await LOADERS[language.get()]()).default;

/**
 * The text of a key, with `{name}` replaced by `values.name`.
 * @param {string} key
 * @param {Record<string, string | number>} [values]
 */
export function t(key, values) {
  const text = words[key] ?? key;
  return values ? text.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole)) : text;
}

/**
 * The text of a key that may be none: a word of the proxy, which may be newer than this page.
 * @type {<T extends string | null>(key: string, otherwise: T) => string | T}
 */
export const word = (key, otherwise) => words[key] ?? otherwise;

/**
 * Chinese for texts of the API's description, which are in English. A function of a name and the English
 * text, which stands where there is no other; null while the texts are loaded.
 * @returns {((key: string, english: string) => string) | null}
 */
export function useApiTexts() {
  const lang = useCell(language);
  const [texts, setTexts] = useState(/** @type {Record<string, string> | null} */ (null));
  useEffect(
    () =>
      void (
        lang === "zh" &&
        import("./i18n/zh-api.js").then(
          (loaded) => setTexts(loaded.default),
          () => setTexts({}),
        )
      ),
    [lang],
  );
  if (lang !== "zh") return (_, english) => english;
  return texts && ((key, english) => texts[key] ?? english);
}

/** The locale for numbers and dates. */
export const locale = () => (language.get() === "zh" ? "zh-CN" : "en-GB");

/** @param {Page.Lang} lang */
export async function speak(lang) {
  words = (await LOADERS[lang]()).default;
  document.documentElement.lang = lang === "zh" ? "zh-CN" : "en";
  kept.set("lang", lang);
  language.set(lang);
}
