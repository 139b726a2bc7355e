// Where clients reach the proxy: here, unless the dashboard listens apart from it.

import { useAnswer } from "./api.js";

export function proxyAddress(settings) {
  const value = (name) => settings?.find((setting) => setting.name === name)?.value || null;
  const { protocol, hostname, origin, port } = location;
  const admin = value("ADMIN_LISTEN");
  const isApart = admin && admin.split(":").at(-1) === (port || (protocol === "https:" ? "443" : "80"));
  if (!isApart) return origin;
  const host = hostname.includes(":") && !hostname.startsWith("[") ? `[${hostname}]` : hostname;
  return `http://${host}:${value("PORT") ?? "8088"}`;
}

export function useProxyAddress() {
  const { data } = useAnswer("/config", null);
  return proxyAddress(data?.settings);
}
