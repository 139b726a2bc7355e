#!/usr/bin/env python3
"""The medians of a comparison as tables: report.py RESULTS.jsonl

Tries without noise count; where a cell has none, the noisy ones do, with a `~`.
"""

import collections
import json
import statistics
import sys

MILLI = 1e-3
# title, then columns: heading, cell, key, scale, digits
TABLES = [
    ("2 KB POST", [
        ("A req/s", "A", "rps", 1, 0), ("A p50 ms", "A", "p50_us", MILLI, 2), ("A p99 ms", "A", "p99_us", MILLI, 1),
        ("A CPU µs", "A", "cpu_us_per", 1, 1), ("A errors", "A", "errors", 1, 0),
        ("Ap req/s", "Ap", "rps", 1, 0), ("Ap CPU µs", "Ap", "cpu_us_per", 1, 1),
        ("B p50 µs", "B", "p50_us", 1, 0), ("B p99 µs", "B", "p99_us", 1, 0), ("B CPU µs", "B", "cpu_us_per", 1, 1),
        ("start ms", "G", "startup_ms", 1, 1), ("idle MB", "G", "idle_rss_kb", 1 / 1024, 1),
    ]),
    ("streams of 200 events/s: 200 (C) and 20 (Clo)", [
        ("C events/s", "C", "events_per_s", 1, 0), ("C lag p50 ms", "C", "lag_p50_us", MILLI, 2),
        ("C lag p99 ms", "C", "lag_p99_us", MILLI, 2), ("C CPU µs/event", "C", "cpu_us_per", 1, 1),
        ("C errors", "C", "errors", 1, 0), ("Clo events/s", "Clo", "events_per_s", 1, 0),
        ("Clo lag p50 ms", "Clo", "lag_p50_us", MILLI, 2), ("Clo lag p99 ms", "Clo", "lag_p99_us", MILLI, 2),
        ("Clo CPU µs/event", "Clo", "cpu_us_per", 1, 1), ("Clo errors", "Clo", "errors", 1, 0),
    ]),
    ("streams of an event a second: 1,000 (D1) and 5,000 (D5)", [
        ("D1 MB", "D1", "hwm_kb", 1 / 1024, 1), ("D1 CPU µs/event", "D1", "cpu_us_per", 1, 1),
        ("D1 errors", "D1", "errors", 1, 0), ("D5 MB", "D5", "hwm_kb", 1 / 1024, 1),
        ("D5 CPU µs/event", "D5", "cpu_us_per", 1, 1), ("D5 lag p99 ms", "D5", "lag_p99_us", MILLI, 1),
        ("D5 errors", "D5", "errors", 1, 0),
    ]),
    ("large bodies", [
        ("100K req/s", "E100", "rps", 1, 0), ("100K CPU µs", "E100", "cpu_us_per", 1, 1),
        ("100K p99 ms", "E100", "p99_us", MILLI, 1), ("100K errors", "E100", "errors", 1, 0),
        ("1M req/s", "E1M", "rps", 1, 0), ("1M CPU µs", "E1M", "cpu_us_per", 1, 1),
        ("1M p99 ms", "E1M", "p99_us", MILLI, 1), ("1M errors", "E1M", "errors", 1, 0),
        ("F MB/s", "F", "MBps", 1, 0), ("F CPU ms/100MB", "F", "cpu_ms_per_100MB", 1, 1),
    ]),
]


def main():
    lines = [json.loads(text) for text in open(sys.argv[1])]
    tries = collections.defaultdict(list)
    for line in lines:
        if "failed" not in line:
            tries[line["peer"], line["cell"]].append(line)
    peers = list(dict.fromkeys(line["peer"] for line in lines))
    measured = {cell for _, cell in tries}

    def value(peer, cell, key, scale, digits):
        quiet = [line for line in tries[peer, cell] if not line["noisy"]]
        counted = quiet or tries[peer, cell]
        if not counted:
            return "–"
        median = statistics.median(line[key] for line in counted) * scale
        return f"{median:.{digits}f}" + ("" if quiet else "~")

    for title, columns in TABLES:
        columns = [column for column in columns if column[1] in measured]
        if not columns:
            continue
        print(f"### {title}\n\n| peer | " + " | ".join(column[0] for column in columns) + " |")
        print("|---" * (len(columns) + 1) + "|")
        for peer in peers:
            row = [value(peer, *column[1:]) for column in columns]
            if any(cell != "–" for cell in row):
                print(f"| {peer} | " + " | ".join(row) + " |")
        print()
    for line in lines:
        if line.get("errs") or "failed" in line:
            print(f"- {line['peer']} {line['cell']}: {line.get('errs') or line['failed']}")
    noisy = sum(line["noisy"] for line in lines)
    print(f"{len(lines)} tries, {noisy} of them noisy (other processes used more than 0.15 cores)\n")


if __name__ == "__main__":
    main()
