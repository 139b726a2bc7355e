#!/usr/bin/env bash
# The exposition of /metrics as Prometheus reads it: a test writes that of metrics in which every
# family has a series, and that of metrics with nothing counted; promtool (Debian: prometheus)
#  - lints names, units and help (`check metrics`, which reads the older text format: both are written
#    by the same code),
#  - takes the OpenMetrics text itself into a block of its database, with Prometheus' own parser. It
#    wants a time behind every sample, which a scrape need not have.
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
    # every sample is in the database, and nothing else
    read=$(promtool tsdb dump "$folder/$name" | wc -l)
    written=$(grep -vc '^#' "$folder/$name.openmetrics")
    ((read == written)) || { echo "$name: $written samples written, $read read" >&2; exit 1; }
    echo "promtool: $name: $read samples"
done
