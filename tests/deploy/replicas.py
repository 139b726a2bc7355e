#!/usr/bin/env python3
"""static/deploy/compose for real, without a container engine: haproxy with the file as it is, three replicas with
the environment of compose.yaml, and a name server in Docker's place.

    unshare --net python3 replicas.py PROGRAM

Holds that every event arrives before the upstream sends the next, that all replicas serve, that a session stays
with one of them, that a client cannot say who it is, and that a replica which is told to end loses nothing: no
request fails, and a stream that runs over it runs to its end.

Needs haproxy, iproute2 and a network namespace of its own, since the ports are those of the files.
"""

from __future__ import annotations

import collections
import http.client
import http.server
import os
import pathlib
import re
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time

import yaml

COMPOSE = pathlib.Path(__file__).resolve().parent.parent.parent / "static/deploy/compose"
ADDRESSES = ["127.0.1.1", "127.0.1.2", "127.0.1.3"]
BALANCER = ("127.0.0.1", 8088)
UPSTREAM = ("127.0.0.1", 9000)
EVENTS = 5
PATIENCE = 60
"""Seconds until something that does not come counts as a fault; nothing waits for them otherwise."""

names: list[str] = []
"""Names that were asked for."""
seen: collections.Counter[str] = collections.Counter()
"""Requests at the upstream, by replica."""
heads: list[http.client.HTTPMessage] = []
received = threading.Semaphore(0)
"""Events that the client has read: the upstream sends the next one only then."""


class Names(socketserver.BaseRequestHandler):
    """Answers every question for an IPv4 address with those of the replicas, as Docker does for a service."""

    def handle(self) -> None:
        data, answer_to = self.request
        end = 12
        labels = []
        while data[end]:
            labels.append(data[end + 1:end + 1 + data[end]].decode())
            end += data[end] + 1
        names.append(".".join(labels))
        question = data[12:end + 5]
        is_ipv4 = question[-4:-2] == b"\0\1"
        records = [b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton(address) for address in ADDRESSES if is_ipv4]
        head = data[:2] + b"\x81\x80\0\1" + len(records).to_bytes(2, "big") + b"\0\0\0\0"
        answer_to.sendto(head + question + b"".join(records), self.client_address)


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Connections that end with the replicas are no news."""


class Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        heads.append(self.headers)
        seen[self.headers["x-replica"]] += 1
        self.send_response(200)
        if self.path != "/v1/messages":
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")
            return
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number in range(EVENTS):
            event = f"event: ping\ndata: {number}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            if not received.acquire(timeout=PATIENCE):
                raise SystemExit(f"event {number} did not reach the client before the next one: it was buffered")
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    program = os.path.abspath(sys.argv[1])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    server = Server(UPSTREAM, Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    resolver = socketserver.UDPServer(("127.0.0.11", 53), Names)
    threading.Thread(target=resolver.serve_forever, daemon=True).start()
    running: list[subprocess.Popen] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            replicas = [replica(program, pathlib.Path(folder, address), address) for address in ADDRESSES]
            running += replicas
            running.append(balancer(pathlib.Path(folder)))
            checks(replicas, running)
        except BaseException:
            for log in sorted(pathlib.Path(folder).rglob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-2000:]}", file=sys.stderr)
            raise
        finally:
            for process in running:
                process.kill()
                process.wait()
    print("deploy: three replicas behind haproxy: all passed")


def replica(program: str, folder: pathlib.Path, address: str) -> subprocess.Popen:
    service = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]["anthropic-proxy"]
    (folder / "env").mkdir(parents=True)
    (folder / "env/.env").write_text("API_BASE_URL=http://%s:%d\n" % UPSTREAM)
    (folder / "env/.env.headers.json").write_text('{"x-replica": "%s"}' % address)
    with open(folder / f"{address}.log", "w") as log:
        # the image says HOST=0.0.0.0: here, all replicas share one machine
        return subprocess.Popen([program], cwd=folder, env={**service["environment"], "HOST": address},
                                stdout=log, stderr=log)


def balancer(folder: pathlib.Path) -> subprocess.Popen:
    text = (COMPOSE / "haproxy.cfg").read_text()
    # one machine again: the replicas have the same port at other addresses
    changed, count = re.subn(r"^    bind :8088$", f"    bind {BALANCER[0]}:8088", text, flags=re.M)
    assert count == 1, "haproxy.cfg does not bind :8088"
    file = folder / "haproxy.cfg"
    file.write_text(changed)
    checked = subprocess.run(["haproxy", "-c", "-f", file], capture_output=True, text=True, check=False)
    if checked.returncode or "WARNING" in checked.stderr:
        raise SystemExit(f"haproxy.cfg: {checked.stdout}{checked.stderr}")
    with open(folder / "haproxy.log", "w") as log:
        # as many connections as this machine's limit on open files has room for
        return subprocess.Popen(["haproxy", "-db", "-n", "1000", "-f", file], stdout=log, stderr=log)


def checks(replicas: list[subprocess.Popen], running: list[subprocess.Popen]) -> None:
    def serve() -> bool:
        assert all(process.poll() is None for process in running), "one of them ended"
        return bool(ask()) and len(seen) == len(ADDRESSES)

    until("all replicas serve", serve)
    assert set(names) == {"anthropic-proxy"}, names

    before = seen.copy()
    for _ in range(9):
        assert ask({"X-Claude-Code-Session-Id": "1f0c8f5e", "X-Forwarded-For": "6.6.6.6"}) == 200
    assert len(seen - before) == 1, f"a session was served by {seen - before}"
    told = heads[-1].get_all("x-forwarded-for")
    assert told == ["127.0.0.1, 127.0.0.1"], f"x-forwarded-for is {told}: the client, then haproxy"
    assert heads[-1]["x-forwarded-proto"] == "http", heads[-1]

    # its last event is held back until the replica that serves it has stopped to listen
    before = seen.copy()
    connection, stream = begin_stream()
    for _ in range(EVENTS - 1):
        read_event(stream)
        received.release()
    [address] = seen - before
    position = ADDRESSES.index(address)
    replicas[position].send_signal(signal.SIGTERM)
    statuses: collections.Counter[object] = collections.Counter()
    spared = 0

    def stopped() -> bool:
        nonlocal spared
        served = seen[address]
        statuses.update([ask()])
        spared = spared + 1 if seen[address] == served else 0
        return not listens(address)

    until(f"{address} stops listening", stopped)
    assert spared >= 10, f"{address} was still sent requests when it stopped listening: only {spared} passed it over"
    for _ in range(50):
        statuses.update([ask()])
    assert set(statuses) == {200}, f"while a replica ended: {statuses}"
    read_event(stream)
    received.release()
    assert stream.read() == b"", "something follows the last event"
    connection.close()
    assert replicas[position].wait(PATIENCE) == 0, f"{address} did not end well"
    print(f"deploy: a replica ended under load: {statuses[200]} requests, 0 failed, and its stream ran to the end")


def begin_stream() -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(*BALANCER, timeout=PATIENCE)
    connection.request("POST", "/v1/messages", b'{"stream":true}', {"content-type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200, response.status
    return connection, response


def read_event(stream: http.client.HTTPResponse) -> None:
    lines = [stream.readline() for _ in range(3)]
    assert lines[0] == b"event: ping\n" and lines[2] == b"\n", lines


def ask(fields: dict[str, str] | None = None) -> object:
    """Status of a request on a connection of its own; what went wrong where there was none."""
    connection = http.client.HTTPConnection(*BALANCER, timeout=PATIENCE)
    try:
        connection.request("POST", "/v1/messages/count_tokens", b"{}", fields or {})
        return connection.getresponse().status
    except OSError as error:
        return type(error).__name__
    finally:
        connection.close()


def listens(address: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, 8088)) == 0


def until(what: str, holds) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"waited {PATIENCE} s in vain until {what}: {seen}")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
