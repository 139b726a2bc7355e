#!/usr/bin/env python3
"""Points of docs/scale.md, measured: 1, 2, 4 and 8 replicas on one Redis.

    unshare --net scale.py PROGRAM [SUBJECTS] [RATE] [SECONDS]     (default: 200 keys, 300 requests a second, 15 s)

Keys have a rate and a budget each, and are asked by Zipf's law: the first ones for far more than they may have, the
last ones for less. It prints what Redis had to do, what each replica sent, what was admitted beyond the limits, and
how much was used of those that were reached.
"""

from __future__ import annotations

import collections
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import run
from fleet import Fleet, Key, Replica, Upstream
from servers import Server, Single

PER_MINUTE = 30


def main() -> None:
    program = os.path.abspath(sys.argv[1])
    subjects, rate, seconds = (float(sys.argv[i]) if len(sys.argv) > i else default for i, default in ((2, 200), (3, 300), (4, 15)))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    print("| replicas | requests/s | scripts/s | of each replica | Redis CPU | µs a script (in Redis) | above the rates | used of them | p50 | p99 |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for count in (1, 2, 4, 8):
        with tempfile.TemporaryDirectory() as folder:
            measure(program, pathlib.Path(folder), count, int(subjects), rate, seconds)


def measure(program: str, folder: pathlib.Path, count: int, subjects: int, rate: float, seconds: float) -> None:
    servers, upstream, replicas = Single("redis-server", folder), Upstream("127.0.0.1"), []
    try:
        for number in range(count):
            replicas.append(Replica(program, folder / f"replica{number}", servers.url(), f"http://127.0.0.1:{upstream.port}",
                                    REPLICAS=str(count)))
        fleet = Fleet(replicas, upstream)
        limits = [{"kind": "requests_per_minute", "amount": PER_MINUTE}, run.spend(10**6)]
        keys = [Key(f"key {number}", replicas[0].api("POST", "/keys", {"name": f"key {number}", "limits": limits}))
                for number in range(subjects - 1)]
        keys.append(fleet.key("last", *limits))
        process = run.load(fleet, paced=[{"keys": [[key.name, key.text] for key in keys], "rate": rate / count}])
        time.sleep(2)
        before, began = work(servers.server), time.monotonic()
        time.sleep(seconds)
        after, took = work(servers.server), time.monotonic() - began
        results = run.finish(process)
        report(count, results, upstream.counts(), [b - a for a, b in zip(before, after)], took)
    finally:
        for replica in replicas:
            replica.kill()
        upstream.end()
        servers.end()


def work(server: Server) -> list[float]:
    """Scripts that ran, microseconds in them, and seconds of CPU time of the whole process."""
    facts = dict(part.split("=") for part in (server.info("cmdstat_evalsha") or "calls=0,usec=0").split(","))
    return [float(facts["calls"]), float(facts["usec"]), float(server.info("used_cpu_user")) + float(server.info("used_cpu_sys"))]


def report(count: int, results: list[list], counts: dict[str, dict], done: list[float], took: float) -> None:
    wrong = collections.Counter(f"{status} {cause}" for *_, status, cause in results if status != 200 and cause != "request_limit")
    if wrong:
        raise SystemExit(f"{count} replicas: {wrong}")
    scripts, micros, cpu = done
    above = allowed = used = 0.0
    for name, requests in collections.Counter(result[0] for result in results).items():
        arrivals = counts[name]["arrivals"]
        most = PER_MINUTE * (1 + (results[-1][2] - results[0][2]) / 60)
        above += max(0.0, len(arrivals) - most)
        if requests > most * 1.2:
            allowed, used = allowed + most, used + len(arrivals)
    latency = [seconds for *_, seconds, status, _ in results if status == 200]
    print(f"| {count} | {len(results) / (results[-1][2] - results[0][2]):.0f} | {scripts / took:.0f} | {scripts / took / count:.0f} | "
          f"{cpu / took * 100:.1f} % | {micros / max(1, scripts):.1f} | {above / max(1, allowed) * 100:.1f} % | "
          f"{used / max(1, allowed) * 100:.0f} % | {statistics.median(latency) * 1e3:.2f} ms | {run.percentile(latency, 99) * 1e3:.2f} ms |", flush=True)


if __name__ == "__main__":
    main()
