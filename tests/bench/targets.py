#!/usr/bin/env python3
"""How the medians of `ours` stand to the targets: targets.py RESULTS.jsonl

One row a target. It judges by the tries without noise where there are any, and says `~` where
there are none.
"""

import collections
import json
import statistics
import sys


def per_stream(line):
    return max(0, max(line["rss_peak_kb"], line["hwm_kb"]) - line["rss0_kb"]) / 5000


# cell, what, value of a line, peer whose median is the measure (None: absolute), at most
TARGETS = [
    ("A", "CPU per request, of nginx's", "cpu_us_per", "nginx", 1.0),
    ("A", "CPU per request, of haproxy's (stretch)", "cpu_us_per", "haproxy", 1.0),
    ("C", "CPU per event, of nginx's", "cpu_us_per", "nginx", 1.0),
    ("C", "lag p99, of haproxy's", "lag_p99_us", "haproxy", 1.5),
    ("Clo", "CPU per event, of nginx's", "cpu_us_per", "nginx", 1.0),
    ("Clo", "lag p99, of haproxy's", "lag_p99_us", "haproxy", 1.5),
    ("E100", "CPU per request, of haproxy's", "cpu_us_per", "haproxy", 1.0),
    ("E100", "CPU per request, of nginx-njs's", "cpu_us_per", "nginx-njs", 0.15),
    ("E1M", "CPU per request, of haproxy's", "cpu_us_per", "haproxy", 1.0),
    ("E1M", "CPU per request, of nginx-njs's", "cpu_us_per", "nginx-njs", 0.15),
    ("F", "CPU per 100 MB, of haproxy's", "cpu_ms_per_100MB", "haproxy", 1.2),
    ("B", "p50 at 200 req/s, of haproxy's", "p50_us", "haproxy", 1.0),
    ("D5", "KB per stream", per_stream, None, 16),
    ("D5", "errors", "errors", None, 0),
    ("G", "ms to the first answer", "startup_ms", None, 50),
    ("G", "MB idle", lambda line: line["idle_rss_kb"] / 1024, None, 12),
]


def main():
    lines = collections.defaultdict(list)
    for text in open(sys.argv[1]):
        line = json.loads(text)
        if "failed" not in line:
            lines[line["peer"], line["cell"]].append(line)

    def median(peer, cell, value):
        tries = lines[peer, cell]
        quiet = [line for line in tries if not line.get("noisy")]
        values = [value(line) if callable(value) else line.get(value) for line in quiet or tries]
        values = [number for number in values if number is not None]
        return (statistics.median(values), "" if quiet else "~") if values else None

    print("### targets\n\n| cell | what | ours | peer | measure | at most | |\n|---|---|---|---|---|---|---|")
    for cell, what, value, peer, limit in TARGETS:
        ours, theirs = median("ours", cell, value), median(peer, cell, value) if peer else (1, "")
        if ours is None or theirs is None:
            continue
        measure = ours[0] / theirs[0] if theirs[0] else float("inf")
        verdict = "ok" if measure <= limit else "**missed**"
        beside = f"{theirs[0]:.1f}{theirs[1]}" if peer else ""
        print(f"| {cell} | {what} | {ours[0]:.1f}{ours[1]} | {beside} | {measure:.2f} | {limit} | {verdict} |")


if __name__ == "__main__":
    main()
