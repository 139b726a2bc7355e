#!/usr/bin/env python3
"""static/deploy/compose for real, without a container engine: haproxy with the file as it is, three replicas with
the environment of compose.yaml, the command of its Valkey, and a name server in Docker's place.

    unshare --net python3 replicas.py PROGRAM

Holds that every event arrives before the upstream sends the next, that all replicas serve, that a session stays
with one of them, that a client cannot say who it is, that a key and its limit are known to all replicas, with the
Valkey of the compose file and with the rights that the chart's Valkey gives, and that a replica which is told to
end loses nothing: no request fails, and a stream that runs over it runs to its end.

Needs haproxy, valkey-server or redis-server, iproute2 and a network namespace of its own, since the ports are those
of the files. With HELM, the command of the chart's Valkey runs, too.
"""

from __future__ import annotations

import collections
import http.client
import http.server
import os
import pathlib
import re
import shutil
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
CHART = COMPOSE.parent / "chart"
ADDRESSES = ["127.0.1.1", "127.0.1.2", "127.0.1.3"]
BALANCER = ("127.0.0.1", 8088)
UPSTREAM = ("127.0.0.1", 9000)
STATE = ("127.0.0.1", 6379)
PASSWORD = "a-password.of_Valkey~1"
PEPPER = "0123456789abcdef-0123456789abcdef"
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
    content = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        try:
            running.append(valkey(folder / "valkey", content["valkey"]["command"]))
            services = [service for each, service in content.items() if each.startswith("anthropic-proxy-")]
            assert len(services) == len(ADDRESSES), "compose.yaml has another number of replicas"
            replicas = [replica(program, folder / address, address, service)
                        for address, service in zip(ADDRESSES, services)]
            running += replicas
            running.append(balancer(folder))
            checks(replicas, running)
            keys(program, folder, services)
            if os.environ.get("HELM"):
                chart(program, folder, services)
        except BaseException:
            for log in sorted(folder.rglob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-2000:]}", file=sys.stderr)
            raise
        finally:
            for process in running:
                process.kill()
                process.wait()
    print("deploy: three replicas behind haproxy: all passed")


def valkey(folder: pathlib.Path, command: list[str]) -> subprocess.Popen:
    """A Valkey (or a Redis) by its command, with its folders below one."""
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    assert program, "neither valkey-server nor redis-server is here"
    for each in ("bin", "conf", "data", "secrets"):
        (folder / each).mkdir(parents=True)
    (folder / "bin/valkey-server").symlink_to(program)
    (folder / "secrets/valkey-password").write_text(PASSWORD + "\n")
    # as Compose does before it hands it over
    script = command[-1].replace("$$", "$")
    for path in ("/conf", "/data", "/run/secrets"):
        assert path in script or path == "/run/secrets", f"{path} is not in {script}"
        script = script.replace(path, str(folder / pathlib.Path(path).name))
    log = open(folder / "valkey.log", "w")
    process = subprocess.Popen([*command[:-1], script], cwd=folder, stdout=log, stderr=log,
                               env={"PATH": f"{folder}/bin:{os.environ['PATH']}", "PASSWORD": PASSWORD})
    until("Valkey listens", lambda: process.poll() is None and listens(STATE))
    with open(f"/proc/{process.pid}/cmdline") as line:
        said = line.read()
    assert "-server" in said, f"the process that is told to end is not the server: {said}"
    assert PASSWORD not in said, "the password is in the list of processes"
    return process


def environment(service: dict, folder: pathlib.Path, address: str, user: str = "") -> dict[str, str]:
    """That of a replica, with the places of this machine."""
    given = dict(service["environment"])
    assert given["STATE_URL"] == "redis://valkey:6379", given
    password = folder / "valkey-password"
    password.write_text(PASSWORD + "\n")
    # the image says HOST=0.0.0.0: here, all replicas share one machine
    return {**given, "HOST": address, "DATA_DIR": str(folder / "data"), "STATE_URL": f"redis://{user}%s:%d" % STATE,
            "STATE_PASSWORD_FILE": str(password)}


def replica(program: str, folder: pathlib.Path, address: str, service: dict) -> subprocess.Popen:
    (folder / "env").mkdir(parents=True)
    (folder / "env/.env").write_text("API_BASE_URL=http://%s:%d\nACCESS_PEPPER=%s\n" % (*UPSTREAM, PEPPER))
    (folder / "env/.env.headers.json").write_text('{"x-replica": "%s"}' % address)
    with open(folder / f"{address}.log", "w") as log:
        return subprocess.Popen([program], cwd=folder, env=environment(service, folder, address), stdout=log, stderr=log)


def verb(program: str, folder: pathlib.Path, service: dict, *words: str, user: str = "") -> str:
    made = subprocess.run([program, *words], cwd=folder, env=environment(service, folder, "127.0.0.1", user),
                          capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert made.returncode == 0, made
    return made.stdout.strip()


def keys(program: str, folder: pathlib.Path, services: list[dict]) -> None:
    """A key that one replica is told of is known to all, and its limit is one for all."""
    # the first replica has ended, the second one asks the store through its server
    place, service = folder / ADDRESSES[1], services[1]
    key = verb(program, place, service, "keys", "create", "--name", "shared", "--rpm", "9", "--quiet")
    statuses: collections.Counter[object] = collections.Counter()

    def known() -> bool:
        statuses.update([ask({"x-api-key": key})])
        # on a busy machine a replica may refuse one early, which another one would still have admitted
        return statuses[429] > 0 and statuses[200] >= 9

    until("the limit is reached", known)
    # 9 a minute, and what a replica admits that has no answer yet
    assert 9 <= statuses[200] <= 9 + 3 + 3, f"a limit of 9 a minute over the replicas: {statuses}"
    assert ask({"x-api-key": key[:-1] + ("a" if key[-1] != "a" else "b")}) == 401
    print(f"deploy: a limit of 9 a minute over the replicas of the compose file: {statuses[200]} passed")


def chart(program: str, folder: pathlib.Path, services: list[dict]) -> None:
    """The command of the chart's Valkey gives its user what the proxy needs, and no one else anything."""
    made = subprocess.run([os.environ["HELM"], "template", "test", CHART, "--set", "settings.API_BASE_URL=https://a.example",
                           "--set", f"secrets.ACCESS_PEPPER={PEPPER}", "--set", "valkey.enabled=true",
                           "--set", f"valkey.password={PASSWORD}"], capture_output=True, text=True, check=True)
    [pod] = [item["spec"]["template"]["spec"] for item in yaml.safe_load_all(made.stdout)
             if item and item["kind"] == "StatefulSet" and item["metadata"]["name"].endswith("-valkey")]
    script = pod["containers"][0]["command"]
    # the port is the other one's: this one has its own
    script = [*script[:-1], script[-1].replace("port 6379", "port 6380")]
    global STATE
    STATE = (STATE[0], 6380)
    server = valkey(folder / "valkey-of-the-chart", script)
    place = folder / "of-the-chart"
    (place / "env").mkdir(parents=True)
    (place / "env/.env").write_text(f"ACCESS_PEPPER={PEPPER}\nAPI_BASE_URL=https://a.example\n")
    try:
        key = verb(program, place, services[0], "keys", "create", "--name", "shared", "--budget", "$5/day", "--quiet",
                   user="proxy@")
        assert key.startswith("ap_"), key
        assert "shared" in verb(program, place, services[0], "keys", "list", user="proxy@")
        refused = subprocess.run([program, "keys", "list"], cwd=place, env=environment(services[0], place, "127.0.0.1"),
                                 capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert refused.returncode == 1 and "refuses user or password" in refused.stderr, refused
    finally:
        server.kill()
        server.wait()
    print("deploy: the chart's Valkey gives its user what the proxy needs")


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
        return not listens((address, 8088))

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


def listens(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


def until(what: str, holds) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"waited {PATIENCE} s in vain until {what}: {seen}")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
