#!/usr/bin/env python3
"""Keys of the proxy with real clients: what each refusal costs a client, and what a person reads.

    access.py PROXY WORK [--claude PROGRAM]

Keys are made with the proxy's own verbs. Each client asks through a tap that counts: curl once, the Python SDK
as it is (it tries twice more where nothing speaks against it), and Claude Code with -p if PROGRAM is given. It
asserts for curl and the SDK, and prints a line for each case and client.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
SONNET = "claude-sonnet-4-5"
MESSAGE = {"model": SONNET, "max_tokens": 64, "messages": [{"role": "user", "content": "say hi"}]}


class Case:
    """A refusal: how its key is made, what makes it refuse, and what a client gets."""

    def __init__(self, name, arguments, status, kind, label, fields=(), absent=(), sdk_requests=1, text="", uses=0, revoke=False, key=None):
        self.name, self.arguments, self.status, self.kind, self.label = name, arguments, status, kind, label
        self.fields, self.absent, self.sdk_requests, self.text = fields, absent, sdk_requests, text
        self.uses, self.revoke, self.key = uses, revoke, key


FINAL = ("x-should-retry", "false")
CASES = [
    Case("no key", None, 401, "authentication_error", "key_missing", [FINAL], key="sk-ant-none", text="key"),
    Case("mistyped", None, 401, "authentication_error", "key_mistyped", [FINAL], key="ap_mistyped", text="mistyped"),
    Case("revoked", [], 401, "authentication_error", "key_revoked", [FINAL], revoke=True, text="revoked"),
    Case("source", ["--sources", "10.0.0.0/8"], 403, "permission_error", "source_not_allowed", text="127.0.0.1"),
    Case("model", ["--models", "claude-haiku-*"], 400, "invalid_request_error", "model_not_allowed", text="claude-haiku-*"),
    Case("spend", ["--budget", "0.0001/month@Europe/Berlin"], 429, "billing_error", "spend_limit",
         [FINAL, ("anthropic-ratelimit-unified-status", "rejected"),
          ("anthropic-ratelimit-unified-overage-period", "monthly"),
          ("anthropic-ratelimit-unified-overage-disabled-reason", "org_spend_cap_reached")],
         absent=["anthropic-ratelimit-unified-representative-claim", "anthropic-ratelimit-unified-overage-status"],
         text="Spend limit reached", uses=1),
]


class Bench:
    def __init__(self, proxy: str, work: pathlib.Path) -> None:
        self.proxy, self.work = proxy, work
        self.data = work / "data"
        self.running: list[subprocess.Popen] = []

    def verb(self, *arguments: str) -> str:
        environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(self.data)}
        done = subprocess.run([self.proxy, *arguments], env=environment, cwd=self.work, text=True, capture_output=True)
        if done.returncode != 0:
            sys.exit(f"{arguments}: {done.returncode} {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def start(self, command: list[str], pattern: str, environment: dict[str, str], log: str) -> int:
        path = self.work / log
        process = subprocess.Popen(command, env=environment, cwd=self.work, stdin=subprocess.DEVNULL,
                                   stdout=open(path, "wb"), stderr=subprocess.STDOUT)
        self.running.append(process)
        for _ in range(3000):
            if found := re.search(pattern, path.read_text(errors="replace"), re.M):
                return int(found[1])
            if process.poll() is not None:
                break
            time.sleep(0.01)
        sys.exit(f"{command[0]} did not start: {path.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.wait()


class Tap:
    """Counts requests for messages on their way to the proxy."""

    def __init__(self, bench: Bench, port: int, name: str) -> None:
        self.folder = bench.work / "taps" / name
        self.port = bench.start([sys.executable, str(HERE / "tap.py"), str(port), str(self.folder)], r"^(\d+)$",
                                dict(os.environ), f"tap-{name}.log")

    def count(self) -> int:
        octets = b"".join(path.read_bytes() for path in self.folder.glob("*.up"))
        return len(re.findall(rb"POST /v1/messages[? ]", octets))


def curl(port: int, key: str) -> tuple[int, dict[str, str], dict]:
    done = subprocess.run(["curl", "-sS", "-i", "--noproxy", "*", "--max-time", "60", f"http://127.0.0.1:{port}/v1/messages",
                           "-H", f"x-api-key: {key}", "-H", "content-type: application/json", "-d", json.dumps(MESSAGE)],
                          capture_output=True, check=True)
    head, content = done.stdout.split(b"\r\n\r\n", 1)
    lines = head.decode().split("\r\n")
    fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
    return int(lines[0].split(" ")[1]), fields, json.loads(content)


SDK = """
import anthropic, json, os
try:
    anthropic.Anthropic().messages.create(**json.loads(os.environ["MESSAGE"]))
    print(json.dumps({"status": 200}))
except anthropic.APIStatusError as error:
    print(json.dumps({"status": error.status_code, "kind": error.body["error"]["type"], "text": str(error)}))
"""


def sdk(port: int, key: str) -> dict:
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}", "ANTHROPIC_API_KEY": key, "MESSAGE": json.dumps(MESSAGE)}
    done = subprocess.run([sys.executable, "-c", SDK], env=environment, capture_output=True, text=True, check=True, timeout=300)
    return json.loads(done.stdout)


def claude(program: str, port: int, key: str) -> str:
    with tempfile.TemporaryDirectory() as home:
        environment = {"PATH": os.environ["PATH"], "HOME": home, "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}",
                       "ANTHROPIC_API_KEY": key, "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"}
        done = subprocess.run([program, "-p", "say hi", "--model", SONNET, "--output-format", "json"], env=environment, cwd=home,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=400)
        return json.loads(done.stdout)["result"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("proxy")
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--claude")
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(str(pathlib.Path(options.proxy).resolve()), work)
    try:
        run(bench, options.claude)
    finally:
        bench.stop()


def run(bench: Bench, program: str | None) -> None:
    mock = bench.start([sys.executable, str(HERE / "mock.py"), str(bench.work / "captures")], r"^(\d+)$", dict(os.environ), "mock.log")
    keys = {}
    for case in CASES:
        keys[case.name] = case.key or bench.verb("keys", "create", "--quiet", "--name", case.name, *case.arguments)
        if case.revoke:
            bench.verb("keys", "revoke", keys[case.name].split("_")[1], "--reason", "test")
    good = bench.verb("keys", "create", "--quiet", "--name", "good", "--budget", "10/month")
    environment = {"PATH": os.environ["PATH"], "PORT": "0", "API_BASE_URL": f"http://127.0.0.1:{mock}", "DATA_DIR": str(bench.data),
                   "UPSTREAM_API_KEYS": "sk-ant-canary", "LIMITS_CONTACT": "in #claude"}
    port = bench.start([bench.proxy], r"listening on http://127\.0\.0\.1:(\d+)", environment, "proxy.log")

    status, fields, _ = curl(port, good)
    assert status == 200 and fields["anthropic-ratelimit-unified-status"] == "allowed", (status, fields)
    assert "anthropic-ratelimit-requests-limit" not in fields, fields
    answer = sdk(port, good)
    assert answer["status"] == 200, answer
    for case in CASES:
        key = keys[case.name]
        for _ in range(case.uses):
            assert curl(port, key)[0] == 200
        status, fields, content = curl(port, key)
        assert (status, content["error"]["type"], fields["x-proxy-error"]) == (case.status, case.kind, case.label), (case.name, status, fields, content)
        assert content["type"] == "error" and content["request_id"] == fields["request-id"], content
        text = content["error"]["message"]
        assert case.text in text and len(text) <= 200, text
        for name, value in case.fields:
            assert fields.get(name) == value, (case.name, name, fields)
        assert not any(name in fields for name in case.absent), (case.name, fields)
        tap, start = Tap(bench, port, f"sdk-{case.name.replace(' ', '-')}"), time.monotonic()
        answer = sdk(tap.port, key)
        took, count = time.monotonic() - start, tap.count()
        assert answer["status"] == case.status and answer["kind"] == case.kind and text in answer["text"], (case.name, answer)
        assert count == case.sdk_requests, f"{case.name}: the SDK sent {count} requests"
        print(f"  ok {case.name}: curl {status} {case.label}; SDK {count} request(s), {took:.1f} s")
        if program:
            tap, start = Tap(bench, port, f"claude-{case.name.replace(' ', '-')}"), time.monotonic()
            said = claude(program, tap.port, key)
            print(f"     Claude Code: {tap.count()} request(s), {time.monotonic() - start:.1f} s: {said}")


if __name__ == "__main__":
    main()
