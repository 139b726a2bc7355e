// ServiceMonitors against the schema of the Prometheus operator's own CRD, as @kubernetes-models compiles it.
//
//     MODULES=node_modules node monitors.mjs FILE    (FILE: JSON, as check.py --monitors writes it)
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const model = "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor.js";
const { ServiceMonitor } = await import(pathToFileURL(resolve(process.env.MODULES, model)));

const monitors = JSON.parse(readFileSync(process.argv[2], "utf8"));
if (monitors.length === 0) throw new Error(`${process.argv[2]} has no ServiceMonitor`);
for (const monitor of monitors) {
  new ServiceMonitor(monitor).validate();
  // the check is one that can fail
  const broken = structuredClone(monitor);
  broken.spec.endpoints[0].interval = "30 s";
  let refused = false;
  try {
    new ServiceMonitor(broken).validate();
  } catch {
    refused = true;
  }
  if (!refused) throw new Error("an interval that is none is taken");
}
console.log(`deploy: ${monitors.length} ServiceMonitor as its CRD wants it`);
