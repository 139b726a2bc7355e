// ServiceMonitors and PrometheusRules against the schemas of the Prometheus operator's own CRDs, as
// @kubernetes-models compiles them.
//
//     MODULES=node_modules node monitors.mjs FILE    (FILE: JSON, as check.py --monitors writes it)
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

/** By kind: a change that the schema must refuse, so that the check is one that can fail. */
const BREAKS = {
  ServiceMonitor: (monitor) => (monitor.spec.endpoints[0].interval = "30 s"),
  PrometheusRule: (rule) => (rule.spec.groups[0].rules[0].for = "2 m"),
};

const items = JSON.parse(readFileSync(process.argv[2], "utf8"));
for (const [kind, spoil] of Object.entries(BREAKS)) {
  const path = `@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/${kind}.js`;
  const { [kind]: Model } = await import(pathToFileURL(resolve(process.env.MODULES, path)));
  const ofKind = items.filter((item) => item.kind === kind);
  if (ofKind.length === 0) throw new Error(`${process.argv[2]} has no ${kind}`);
  for (const item of ofKind) {
    new Model(item).validate();
    const broken = structuredClone(item);
    spoil(broken);
    let refused = false;
    try {
      new Model(broken).validate();
    } catch {
      refused = true;
    }
    if (!refused) throw new Error(`a broken ${kind} is taken`);
  }
  console.log(`deploy: ${ofKind.length} ${kind} as its CRD wants it`);
}
