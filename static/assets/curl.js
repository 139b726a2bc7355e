// A request as a command for a shell. What came from a client is quoted, all of it: a method is any token.

/**
 * One word for sh, whatever is in it.
 * @param {string} text
 */
export const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/**
 * The request as a command: with a variable for the key and a body to fill in.
 * `base`: an origin, or `unix:PATH`.
 * @param {Api.Row} row
 * @param {string} base
 */
export function curl(row, base) {
  const isSocket = base.startsWith("unix:");
  const address = (isSocket ? "http://localhost" : base) + row.path;
  const lines = [
    [
      "curl -sS",
      ...options(row),
      ...(isSocket ? [`--unix-socket ${quote(base.slice("unix:".length))}`] : []),
      quote(address),
    ].join(" "),
    `-H "x-api-key: $ANTHROPIC_API_KEY"`,
    `-H 'anthropic-version: 2023-06-01'`,
  ];
  if (row.method === "POST") {
    const body = {
      model: row.model ?? "claude-sonnet-4-6",
      ...(row.route === "messages"
        ? { max_tokens: row.max_tokens ?? 1024, stream: row.stream ?? false }
        : {}),
      messages: [{ role: "user", content: "Hello" }],
    };
    lines.push(
      `-H 'content-type: application/json'`,
      `-d ${quote(JSON.stringify(row.route === "messages" || row.route === "count_tokens" ? body : {}))}`,
    );
  }
  return lines.join(" \\\n  ");
}

/** @param {Api.Row} row */
function options({ method, path }) {
  const list = [];
  // with -X HEAD curl would wait for content
  if (method === "HEAD") list.push("--head");
  else if (method !== "GET") list.push(`-X ${quote(method)}`);
  // curl reads brackets as patterns, and takes dots out of paths
  if (/[[\]{}]/.test(path)) list.push("--globoff");
  if (/\/\.\.?(\/|$)/.test(path)) list.push("--path-as-is");
  return list;
}
