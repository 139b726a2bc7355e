// Content of errors: laid out to be read, or why there is none.

import * as as from "./format.js";
import { t } from "./i18n.js";

/** JSON is laid out; anything else is shown as it came. */
export function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** Why a failure has no content to show: it had none, or none that can be read. `row` may have gone by now. */
export function silence(row) {
  if (!row) return t("errors.unkept");
  const isUnread = row.bytes_out > 0 && row.status >= 400 && row.ended?.by === "complete";
  return isUnread ? t("errors.unread", { bytes: as.bytes(row.bytes_out) }) : t("errors.silent");
}
