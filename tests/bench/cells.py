#!/usr/bin/env python3
"""Measures one peer: cells.py PEER CELLS --out RESULTS.jsonl [--program PATH] [--quick]

PEER is `ours`, `nginx`, `nginx-njs`, `haproxy` or `direct` (the mock itself); CELLS are separated by
commas. Mock and peer are started anew for each cell. A line of JSON is added to RESULTS for each try; a
try in which other processes used more than 0.15 cores is marked as noisy and repeated once.

| cell | what |
|---|---|
| A, Ap | 2 KB `POST /v1/messages`, 64 clients; Ap: the proxy on core 0, all else on core 1 |
| B | the same at 200 requests a second: latency |
| C, Clo | 200 (20) streams of 200 events, 5 ms apart: lag and CPU of an event |
| D1, D5 | 1,000 and 5,000 streams, an event a second: memory of a stream |
| E100, E1M | bodies of 100 KB and 1 MB, 16 clients |
| F | a download of 100 MB after the other |
| G | start to the first answer, memory when idle |
"""

import argparse
import json
import pathlib
import statistics
import time

import harness

STREAMS = "--mode sse --events 200 --delay-ms 5 --ramp 1"
IDLE_STREAMS = "--mode sse --once --events 20 --delay-ms 1000"
# arguments of the load generator; the longer of two durations is for all but --quick
CELLS = {
    "A": "--concurrency 64 --warmup 3 --duration {10}",
    "Ap": "--concurrency 64 --warmup 3 --duration {10}",
    "B": "--concurrency 8 --rate 200 --warmup 2 --duration {10}",
    "C": f"{STREAMS} --concurrency 200 --warmup 3 --duration {{10}}",
    "Clo": f"{STREAMS} --concurrency 20 --warmup 2 --duration {{10}}",
    "D1": f"{IDLE_STREAMS} --concurrency 1000 --ramp 2 --duration 50",
    "D5": f"{IDLE_STREAMS} --concurrency 5000 --ramp 5 --duration 60",
    "E100": "--body-bytes 102400 --concurrency 16 --warmup 2 --duration {8}",
    "E1M": "--body-bytes 1048576 --concurrency 16 --warmup 2 --duration {8}",
    "F": "--mode download --target /bytes/104857600 --concurrency 1 --warmup 1 --duration {6}",
}
# tries that last a minute are not repeated
ONCE = ("G", "D1", "D5")
NOISE = 0.15
SHOWN = ("ok", "errors", "rps", "p50_us", "p99_us", "lag_p50_us", "lag_p99_us", "cpu_us_per", "cpu_ms_per_100MB",
         "rss0_kb", "hwm_kb", "startup_ms", "idle_rss_kb", "foreign_cores", "failed")


def busy():
    """Ticks that all cores together have worked."""
    ticks = [int(text) for text in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]


def wait_for_quiet(seconds=15):
    """Waits until the machine has a quiet second, but not for ever."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before = busy()
        time.sleep(1)
        if (busy() - before) / harness.TICK < NOISE:
            return


def start_up(name, mock, program):
    """Cell G: three starts."""
    times, sizes = [], []
    for _ in range(3):
        with harness.Peer(name, mock, program) as peer:
            times.append(peer.seconds * 1000)
            time.sleep(2)
            sizes.append(harness.resident(peer.pid))
    return {"startup_ms": round(statistics.median(times), 1), "idle_rss_kb": statistics.median(sizes)}


def measure(rig, name, cell, options):
    own, others = ("0", "1") if cell == "Ap" else ("", "")
    with harness.Mock(rig, others) as mock:
        if cell == "G":
            wait_for_quiet()
            return start_up(name, mock, options.program)
        arguments = CELLS[cell]
        for full in (10, 8, 6):
            arguments = arguments.replace(f"{{{full}}}", str(max(2, full // 3) if options.quick else full))
        with harness.Peer(name, mock, options.program, cores=own) as peer:
            time.sleep(1)
            wait_for_quiet()
            return harness.result(harness.load(rig, peer, arguments.split(), others))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=("ours", "nginx", "nginx-njs", "haproxy", "direct"))
    parser.add_argument("cells")
    parser.add_argument("--out", required=True)
    parser.add_argument("--program", default=harness.ROOT / "target/dist/anthropic-proxy")
    parser.add_argument("--quick", action="store_true", help="a third of the time")
    options = parser.parse_args()
    cells = options.cells.split(",")
    unknown = [cell for cell in cells if cell not in (*CELLS, "G")]
    if unknown:
        parser.error(f"unknown cells: {', '.join(unknown)}; there are: {', '.join((*CELLS, 'G'))}")
    if advice := harness.missing(options.peer):
        parser.error(f"{options.peer} is not installed: {advice}")
    rig = harness.build()
    for cell in cells:
        if cell == "G" and options.peer == "direct":
            continue
        for _ in range(1 if cell in ONCE else 2):
            line = measure(rig, options.peer, cell, options)
            line = {"peer": options.peer, "cell": cell, "noisy": line.get("foreign_cores", 0) > NOISE, **line}
            with open(options.out, "a") as out:
                out.write(json.dumps(line) + "\n")
            shown = " ".join(f"{key} {line[key]}" for key in SHOWN if line.get(key))
            print(options.peer, cell, "(noisy)" if line["noisy"] else "", shown, line.get("errs") or "", flush=True)
            if not line["noisy"]:
                break


if __name__ == "__main__":
    main()
