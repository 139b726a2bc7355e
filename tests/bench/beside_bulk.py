#!/usr/bin/env python3
"""Latency of small requests beside bulk downloads: this proxy, nginx and haproxy in turn, each on one
core (one worker, one thread), the clients and the upstream on another.

    tests/bench/beside_bulk.py target/release/anthropic-proxy [other=path/to/another] nginx haproxy direct

Needs `nginx` and `haproxy` only if they are named. The figures are for comparison within one run: p50 and
p99 of a small POST (four clients, one request at a time each), what the downloads move together, and the
CPU time of the proxy for it.
"""

import argparse
import os
import statistics
import time

import harness

# no download ends while it is measured
DOWNLOAD = f"/bytes/{1 << 40}"
WARMUP = 2
SMALL_CLIENTS = 4


def measure(rig, name, program, options):
    with (
        harness.Mock(rig, options.other_cores) as mock,
        harness.Peer(name, mock, program, workers=1, cores=options.proxy_core, edits=False) as peer,
    ):
        duration = ["--warmup", str(WARMUP), "--duration", str(options.seconds)]
        downloads = ["--mode", "download", "--target", DOWNLOAD, "--concurrency", str(options.downloads)]
        bulk = harness.load(rig, peer, [*downloads, *duration], options.other_cores)
        small = harness.load(rig, peer, ["--concurrency", str(SMALL_CLIENTS), *duration], options.other_cores)
        small, bulk = harness.result(small), harness.result(bulk)
    for one in (small, bulk):
        if "failed" in one or one["errors"]:
            raise SystemExit(f"{name}: {one.get('failed') or one['errs']}")
    return {
        "p50 ms": small["p50_us"] / 1e3,
        "p99 ms": small["p99_us"] / 1e3,
        "small/s": small["rps"],
        "bulk MB/s": bulk["MBps"],
        "cpu s/GB": bulk["cpu_ms_per_100MB"] / 104.8576,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="+")
    parser.add_argument("--downloads", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--proxy-core", default="0", help="core of the proxy; empty: any")
    parser.add_argument("--other-cores", default="1", help="cores of everything else; empty: any")
    options = parser.parse_args()
    rig = harness.build()
    results = {}
    for rep in range(options.reps):
        for peer in options.peers:
            label, _, program = peer.partition("=")
            name = label
            if program or (os.path.exists(label) and label not in ("nginx", "haproxy")):
                name, label, program = "ours", label if program else "ours", program or label
            elif advice := harness.missing(name):
                parser.error(f"{name} is not installed: {advice}")
            result = measure(rig, name, program, options)
            results.setdefault(label, []).append(result)
            print(rep, f"{label:10}", "  ".join(f"{key} {value:9.2f}" for key, value in result.items()), flush=True)
            time.sleep(1)
    print("\nmedians")
    for label, all_of_it in results.items():
        medians = {key: statistics.median(result[key] for result in all_of_it) for key in all_of_it[0]}
        print(f"  {label:10}", "  ".join(f"{key} {value:9.2f}" for key, value in medians.items()))


if __name__ == "__main__":
    main()
