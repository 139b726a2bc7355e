// Sets the theme and the language before the first paint: a classic script, so that it runs at once.
(() => {
  /** @param {string} name */
  const kept = (name) => {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  };
  const root = document.documentElement;
  const theme = kept("theme");
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;
  const lang =
    kept("lang") ??
    (navigator.languages ?? [])
      .map((lang) => lang.slice(0, 2))
      .find((lang) => lang === "zh" || lang === "en");
  root.lang = lang === "zh" ? "zh-CN" : "en";
})();
