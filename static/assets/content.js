// Content of errors: laid out to be read, or why there is none.

import * as as from "./format.js";
import { t } from "./i18n.js";

/**
 * JSON is laid out; anything else is shown as it came.
 * @param {string} text
 */
export function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/**
 * The upstream's own words, if it spoke as the API does: in JSON, or in an event of a stream.
 * @param {string | null} content
 */
export function message(content) {
  if (!content) return null;
  const data = /^data: ?(.*)$/m.exec(content)?.[1];
  for (const text of [content, data]) {
    try {
      const { error, message } = JSON.parse(text ?? "");
      const words = error?.message ?? message ?? error;
      if (typeof words === "string" && words) return words;
    } catch {
      // not this way
    }
  }
  return content.slice(0, 200);
}

/**
 * The reason why a failure has no content to show. `row` may no longer be kept.
 * @param {Api.Row | undefined} row
 */
export function silence(row) {
  if (!row || (row.status ?? 0) < 400) return t("errors.unkept");
  const isUnread = row.bytes_out > 0 && row.ended?.by === "complete";
  return isUnread ? t("errors.unread", { bytes: as.bytes(row.bytes_out) }) : t("errors.silent");
}
