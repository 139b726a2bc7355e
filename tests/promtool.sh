#!/usr/bin/env bash
# The exposition of /metrics as Prometheus reads it: a test writes that of metrics in which every
# family has a series, and that of metrics with nothing counted; promtool (Debian: prometheus)
#  - lints names, units and help (`check metrics`, which reads the older text format: both are written
#    by the same code),
#  - takes the OpenMetrics text itself into a block of its database, with Prometheus' own parser. It
#    wants a time behind every sample, which a scrape need not have,
#  - parses each expression of the Grafana dashboard, its variables filled in.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
PROMTOOL_FOLDER=$folder cargo test --quiet --locked --lib \
    metrics::tests::expositions_are_written_for_promtool >/dev/null

for name in filled empty; do
    promtool check metrics <"$folder/$name.prometheus"
    sed -E '/^#/!s/$/ 1700000000/' "$folder/$name.openmetrics" >"$folder/$name.timed"
    promtool tsdb create-blocks-from openmetrics "$folder/$name.timed" "$folder/$name" >"$folder/log" ||
        { cat "$folder/log" >&2; exit 1; }
    # every sample is in the database, and nothing else (a database has a log to be read first)
    mkdir -p "$folder/$name/wal"
    read=$(promtool tsdb dump "$folder/$name" | wc -l)
    written=$(grep -vc '^#' "$folder/$name.openmetrics")
    ((read == written)) || { echo "$name: $written samples written, $read read" >&2; exit 1; }
    echo "promtool: $name: $read samples"
done

python3 - static/grafana/anthropic-proxy.json >"$folder/rules" <<'PYTHON'
import json, sys
dashboard = json.load(open(sys.argv[1]))
expressions = [annotation["expr"] for annotation in dashboard["annotations"]["list"]]
for panel in dashboard["panels"]:
    expressions += [target["expr"] for target in panel.get("targets", [])]
variables = {"$__rate_interval": "5m", "$__range": "1h", "$__interval": "1m", "$instance": ".*"}
rules = []
for at, expression in enumerate(expressions):
    for variable, value in variables.items():
        expression = expression.replace(variable, value)
    rules.append({"record": f"expression:{at}", "expr": expression})
# JSON is YAML
print(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
PYTHON
promtool check rules "$folder/rules"

# each alert fires where it should and nowhere else
promtool check rules static/prometheus/alerts.yaml
python3 tests/prometheus/alerts.py "$PWD/static/prometheus/alerts.yaml" >"$folder/alerts"
promtool test rules "$folder/alerts"
