"""Replicas of the proxy on one shared state, their keys, and what they say about themselves."""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from typing import NamedTuple

from servers import PASSWORD, until
from upstream import MODEL, OUTPUT

HERE = pathlib.Path(__file__).resolve().parent
ADMIN_KEY = "key-of-the-state-tests"
PEPPER = secrets.token_hex(32)


class Answer(NamedTuple):
    """An answer to a request for a message."""

    status: int
    kind: str
    fields: dict[str, str]
    seconds: float


class Upstream:
    """upstream.py, as a process."""

    def __init__(self, host: str) -> None:
        self.process = subprocess.Popen([sys.executable, str(HERE / "upstream.py"), host], stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def counts(self) -> dict[str, dict]:
        return get_json("127.0.0.1", self.port, "/counts")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


class Replica:
    """One process of the proxy."""

    def __init__(self, program: str, folder: pathlib.Path, state_url: str, upstream: str, *, host: str = "127.0.0.1",
                 prefix: tuple[str, ...] = (), **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o600)
        self.host, self.folder, self.command = host, folder, [*prefix, program]
        self.environment = {
            "PATH": os.environ["PATH"], "HOST": host, "PORT": "0", "RUST_LOG": "info", "API_BASE_URL": upstream,
            "DATA_DIR": str(folder / "data"), "STATE_URL": state_url, "STATE_PASSWORD_FILE": str(password),
            "ACCESS_PEPPER": PEPPER, "UPSTREAM_API_KEYS": "sk-ant-of-the-operator", "DASHBOARD_API_KEY": ADMIN_KEY,
            "METRICS_PUBLIC": "true", "ACCESS": "required", "ENABLE_DASHBOARD": "true", "SHUTDOWN_TIMEOUT": "5s", **settings}
        self.start()

    def start(self) -> None:
        with open(self.folder / "log", "ab") as log:
            before = log.tell()
            self.process = subprocess.Popen(self.command, env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)

        def listens() -> bool:
            found = re.search(r"listening on http://\S*:(\d+)", self.log()[before:])
            if self.process.poll() is not None:
                raise SystemExit(f"the proxy ended with {self.process.returncode}:\n{self.log()[-3000:]}")
            self.port = int(found[1]) if found else 0
            return bool(found)

        until("the proxy listens", listens)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def api(self, method: str, path: str, content: object = None) -> dict:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        body = None if content is None else json.dumps(content)
        connection.request(method, f"/admin/api/v1{path}", body,
                           {"authorization": f"Bearer {ADMIN_KEY}", "content-type": "application/json"})
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        if response.status != 200:
            raise RuntimeError(f"{method} {path}: {response.status} {text[:500]}")
        return json.loads(text)

    def limit(self, key: Key, kind: str) -> dict:
        """A limit of a key, as this replica sees it."""
        return next(limit for limit in self.api("GET", f"/limits/key:{key.id}")["limits"] if limit["kind"] == kind)

    def message(self, key: Key) -> Answer:
        """One request for a message, outside of all load."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        began = time.monotonic()
        connection.request("POST", "/v1/messages", json.dumps({"model": MODEL, "max_tokens": OUTPUT, "messages": []}),
                           {"x-api-key": key.text, "x-test-name": key.name, "content-type": "application/json"})
        response = connection.getresponse()
        content = json.loads(response.read())
        connection.close()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, content.get("error", {}).get("type", ""), fields, time.monotonic() - began)

    def status(self, path: str) -> int:
        return get(self.host, self.port, path)[0]

    def metrics(self) -> dict[str, float]:
        """The samples, by name and labels."""
        lines = get(self.host, self.port, "/metrics")[1].splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Key:
    """A key, with the name by which the upstream counts it."""

    def __init__(self, name: str, answer: dict) -> None:
        self.name, self.id, self.text = name, answer["id"], answer["key"]


class Fleet:
    """Replicas on one shared state."""

    def __init__(self, replicas: list[Replica], upstream: Upstream) -> None:
        self.replicas, self.upstream = replicas, upstream

    def key(self, name: str, *limits: dict) -> Key:
        """A key that every replica knows. It is made at the first one."""
        key = Key(name, self.replicas[0].api("POST", "/keys", {"name": name, "limits": list(limits)}))
        until(f"every replica knows the key {name}", lambda: all(self.knows(each, key) for each in self.replicas), 10)
        return key

    def revoke(self, key: Key) -> float:
        """Revokes a key at the last replica. Returns the seconds until every replica refuses it."""
        self.replicas[-1].api("POST", f"/keys/{key.id}/revoke", {"reason": "the test ends"})
        return until("every replica refuses a revoked key", lambda: not any(self.knows(each, key) for each in self.replicas), 10)

    @staticmethod
    def knows(replica: Replica, key: Key) -> bool:
        connection = http.client.HTTPConnection(replica.host, replica.port, timeout=30)
        connection.request("GET", "/v1/nothing", headers={"x-api-key": key.text})
        status = connection.getresponse().status
        connection.close()
        return status == 501  # a key may not be used for such a path

    def end(self) -> None:
        for replica in self.replicas:
            replica.end()
        for replica in self.replicas:
            code = replica.process.wait(30)
            if code:
                raise SystemExit(f"a replica ended with {code}:\n{replica.log()[-3000:]}")


class Watch(threading.Thread):
    """Looks at readiness and metrics of each replica all the time, as a load balancer and Prometheus do."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(daemon=True)
        self.fleet, self.is_over = fleet, threading.Event()
        self.not_ready: list[str] = []
        self.samples: list[tuple[float, int, dict[str, float]]] = []

    def run(self) -> None:
        while not self.is_over.wait(0.25):
            for number, replica in enumerate(self.fleet.replicas):
                began = time.monotonic()
                try:
                    status: object = replica.status("/readyz")
                    self.samples.append((began, number, replica.metrics()))
                except OSError as error:
                    status = repr(error)
                if status != 200:
                    self.not_ready.append(f"replica {number}: {status}")

    def finish(self) -> None:
        self.is_over.set()
        self.join()


def get(host: str, port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def get_json(host: str, port: int, path: str) -> dict:
    return json.loads(get(host, port, path)[1])
