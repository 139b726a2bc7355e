#!/usr/bin/env python3
"""Keys and limits with their state on Redis, beside the same with SQLite: CPU time of the proxy for a request.

    tests/bench/shared_state.py PROGRAM [ROUNDS] [REQUESTS]     (default 6 rounds of 30,000)

The mock of tests/bench/rig answers; h2load asks: 64 connections, a 2 KB POST /v1/messages of which the system prompt is
replaced (cell A of cells.py), with a key that has two rates and a budget, and without keys. All proxies run all the time,
and are asked in turn, in every round. Prints the medians. Needs redis-server, h2load (nghttp2-client), cargo.
"""

import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

import harness

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "state"))
import servers  # noqa: E402

CONNECTIONS = 64
LIMITS = ["--budget", "1000000/month@Europe/Berlin", "--rpm", "100000000", "--output-tpm", "100000000000"]


class Proxy:
    """A proxy, with a key if it has a state to keep it in."""

    def __init__(self, program, folder, mock, **settings):
        folder.mkdir()
        self.port = harness.free_port()
        environment = {"PATH": os.environ["PATH"], "PORT": str(self.port), "RUST_LOG": "warn",
                       "API_BASE_URL": f"http://127.0.0.1:{mock}", "SYSTEM_PROMPT_REPLACEMENT": harness.PROMPT,
                       "UPSTREAM_API_KEYS": "sk-ant-of-the-operator", **settings}
        with open(folder / "log", "wb") as log:
            self.process = subprocess.Popen([program], env=environment, cwd=folder, stdout=log, stderr=log)
        servers.until("the proxy answers", self.answers)
        self.key = "sk-ant-of-a-client"
        if "DATA_DIR" in settings:
            verb = [program, "keys", "create", "--quiet", "--name", "bench", "--user", "ann", "--team", "core", *LIMITS]
            done = subprocess.run(verb, env=environment, cwd=folder, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr + (folder / "log").read_text())
            self.key = done.stdout.strip()

    def answers(self):
        return subprocess.run(["curl", "-sf", "-o", "/dev/null", f"http://127.0.0.1:{self.port}/readyz"]).returncode == 0

    def load(self, body, requests):
        """Microseconds of CPU a request, and requests a second."""
        before = harness.cpu(self.process.pid)
        out = subprocess.run(
            ["h2load", "--h1", "-n", str(requests), "-c", str(CONNECTIONS), "-t", "1", "-d", body, "-H", f"x-api-key: {self.key}",
             "-H", "content-type: application/json", f"http://127.0.0.1:{self.port}/v1/messages"],
            capture_output=True, text=True, timeout=300, check=True).stdout
        if int(re.search(r"status codes: (\d+) 2xx", out)[1]) != requests:
            sys.exit(f"not all answers are good:\n{out}")
        rate = float(re.search(r"finished in .*?, ([\d.]+) req/s", out)[1])
        return (harness.cpu(self.process.pid) - before) * 1e6 / requests, rate


def main():
    program = str(pathlib.Path(sys.argv[1]).resolve())
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 6
    requests = int(sys.argv[3]) if len(sys.argv) > 3 else 30_000
    rig = harness.build()
    with tempfile.TemporaryDirectory(prefix="anthropic-proxy-state-") as folder, harness.Mock(rig) as mock:
        work = pathlib.Path(folder)
        body = work / "body.json"
        body.write_bytes(subprocess.run([rig, "body", "--bytes", "2048"], capture_output=True, check=True).stdout)
        redis = servers.Single("redis-server", work, password="")
        proxies = {}
        try:
            for name, settings in (("no keys", {}), ("SQLite", {"DATA_DIR": "data"}),
                                   ("Redis", {"DATA_DIR": "data", "STATE_URL": redis.url(), "ACCESS_PEPPER": "a-pepper-of-the-benchmark-of-shared-state"})):
                proxies[name] = Proxy(program, work / name.replace(" ", "-"), mock.port, **settings)
            compare(proxies, body, rounds, requests, redis.server)
        finally:
            for proxy in proxies.values():
                harness.stop(proxy.process)
            redis.end()


def compare(proxies, body, rounds, requests, redis):
    for proxy in proxies.values():
        proxy.load(body, requests // 10)
    figures = {name: [] for name in proxies}
    names = list(proxies)
    for nth in range(rounds):
        for name in names if nth % 2 == 0 else reversed(names):
            micros, rate = proxies[name].load(body, requests)
            figures[name].append(micros)
            print(f"round {nth + 1} {name}: {micros:.1f} us CPU a request, {rate:.0f} requests/s", flush=True)
    medians = {name: statistics.median(values) for name, values in figures.items()}
    print("medians: " + ", ".join(f"{name} {value:.1f} us" for name, value in medians.items()))
    for one, other in (("SQLite", "no keys"), ("Redis", "SQLite")):
        ratios = [ours / theirs for ours, theirs in zip(figures[one], figures[other])]
        print(f"{one} beside {other}: {medians[one] / medians[other]:.3f} of the medians, "
              f"{statistics.median(ratios):.3f} median of the rounds")
    print(f"Redis: {redis.info('total_commands_processed')} commands, {redis.info('used_cpu_user')} s CPU")


if __name__ == "__main__":
    main()
