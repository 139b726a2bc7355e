// The key in the address (`/admin#key=…`): taken before other code runs, so that neither the address bar
// nor the history keeps it.

/** @type {string | null} */
let taken = null;

function take() {
  // a plus is itself, not a space
  const query = new URLSearchParams(location.hash.slice(1).replaceAll("+", "%2B"));
  const key = query.get("key");
  if (!key) return;
  taken = key;
  history.replaceState(history.state, "", location.pathname + location.search);
}

take();
addEventListener("hashchange", take);

/** Gives the key of the address, once. */
export function takenKey() {
  const key = taken;
  taken = null;
  return key;
}
