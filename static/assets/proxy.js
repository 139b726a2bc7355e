// Where clients reach the proxy: the dashboard may listen apart from it.

import { useAnswer } from "./api.js";

const LOOPBACK = /^(localhost|127(\.\d+){3}|\[::1\])$/;

/**
 * The command of a status line. On the proxy's own machine it names the proxy's folder, by which a client
 * without a key of the proxy finds it. `page` is a location.
 * @param {string | null} folder
 * @param {Location | URL} page
 */
export function statusCommand(folder, page) {
  const command = "anthropic-proxy statusline";
  if (!folder || !LOOPBACK.test(page.hostname)) return command;
  const word = /^[\w/.,:@+-]+$/.test(folder) ? folder : `'${folder.replaceAll("'", "'\\''")}'`;
  return `${command} --data-dir ${word}`;
}

/**
 * The proxy's address for clients of the reader: that of the page itself if the proxy listens there, else the
 * first one. `page` is a location. `unix:PATH` only if the proxy listens nowhere else.
 * @param {string[]} urls
 * @param {Location | URL} page
 */
export function proxyAddress(urls, page) {
  const reached = urls
    .filter((url) => /^https?:/.test(url))
    .map((url) => {
      const address = new URL(url);
      if (address.hostname === "0.0.0.0" || address.hostname === "[::]") address.hostname = page.hostname;
      return address;
    });
  const here = new URL(page.origin);
  /** @param {URL} address */
  const port = ({ port, protocol }) => port || (protocol === "https:" ? "443" : "80");
  /** @param {URL} one */
  const isHere = (one) =>
    one.protocol === here.protocol &&
    port(one) === port(here) &&
    (one.hostname === here.hostname || (LOOPBACK.test(one.hostname) && LOOPBACK.test(here.hostname)));
  return reached.some(isHere) ? here.origin : (reached[0]?.origin ?? urls[0] ?? here.origin);
}

/** The proxy's address, or null until it is known. */
export function useProxyAddress() {
  const { data, fault } = useAnswer("/config", null);
  return data ? proxyAddress(data.proxy_urls, location) : fault ? location.origin : null;
}
