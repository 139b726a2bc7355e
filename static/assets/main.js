// Begins: who are we, which page, and the stream of events.

import { html, render, useCell, useEffect, useState } from "./view.js";
import { language, t } from "./i18n.js";
import { chosen } from "./zone.js";
import { asFault, greet, login, session } from "./api.js";
import { takenKey } from "./key.js";
import { follow, leave } from "./live.js";
import { Link, route } from "./router.js";
import { Shell } from "./shell.js";
import { Bones, Empty, FaultNote } from "./parts.js";

// a page's code is loaded when it is first looked at
/** @type {Record<string, () => Promise<{default: Page.View}>>} */
const LOADERS = {
  overview: () => import("./pages/overview.js"),
  requests: () => import("./pages/requests.js"),
  sessions: () => import("./pages/sessions.js"),
  errors: () => import("./pages/errors.js"),
  usage: () => import("./pages/usage.js"),
  spend: () => import("./pages/spend.js"),
  keys: () => import("./pages/keys.js"),
  audit: () => import("./pages/audit.js"),
  upstreams: () => import("./pages/upstreams.js"),
  doctor: () => import("./pages/doctor.js"),
  config: () => import("./pages/config.js"),
  connect: () => import("./pages/connect.js"),
  docs: () => import("./pages/docs.js"),
  login: () => import("./pages/login.js"),
};

/** @param {string | null} name */
function useModule(name) {
  /** @type {{name: string | null, View: Page.View | null, fault: Page.Fault | null}} */
  const none = { name: null, View: null, fault: null };
  const [module, setModule] = useState(none);
  const [tries, again] = useState(0);
  useEffect(() => {
    let isHere = true;
    LOADERS[name ?? ""]?.().then(
      (loaded) => isHere && setModule({ name, View: loaded.default, fault: null }),
      (error) =>
        isHere && setModule({ name, View: null, fault: { code: "unreachable", message: error.message } }),
    );
    return () => (isHere = false);
  }, [name, tries]);
  return {
    View: module.name === name ? module.View : null,
    fault: module.name === name ? module.fault : null,
    again: () => again(tries + 1),
  };
}

function App() {
  const known = useCell(session);
  const { page, query } = useCell(route);
  useCell(language);
  useCell(chosen);
  const isOpen = known?.authenticated;
  const name = known === null ? null : isOpen ? page : "login";
  const { View, fault, again } = useModule(name);
  useEffect(() => {
    if (!isOpen) return;
    follow();
    return leave;
  }, [!!isOpen]);

  if (known && !isOpen) return View ? html`<${View} />` : null;
  return html`
    <${Shell} page=${page} title=${page ? t(`nav.${page}`) : t("nowhere.title")}>
      ${
        page === null
          ? html`
            <${Empty} title=${t("nowhere.title")}>
              <${Link} to="overview">${t("nowhere.back")}<//>
            <//>
          `
          : fault
            ? html`<${FaultNote} fault=${fault} onRetry=${again} />`
            : View
              ? html`<${View} query=${query} />`
              : html`<${Bones} />`
      }
    <//>
  `;
}

const root = document.getElementById("app") ?? document.body;
root.textContent = "";
render(html`<${App} />`, root);

// a page that is open is given an address with a key
addEventListener("hashchange", () => {
  const key = takenKey();
  // a key that is refused changes nothing, and the door says why
  if (key) login(key).catch(asFault);
});

// until the server says who we are there is nothing to show; one that is starting is asked again
let key = takenKey();
for (let wait = 250; session.get() === null; wait = Math.min(wait * 2, 5000)) {
  try {
    await (key ? login(key) : greet());
  } catch (error) {
    if (key && asFault(error).status) key = null;
    else await new Promise((resolve) => setTimeout(resolve, wait));
  }
}
