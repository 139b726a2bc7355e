"""Redis and Valkey for real: single, with Sentinel, as a Cluster. All on ports that were free, each with a folder of
its own, nothing written to disk.
"""

from __future__ import annotations

import pathlib
import signal
import socket
import subprocess
import time

PATIENCE = 60
"""Seconds until something that does not come counts as a fault; nothing waits for them otherwise."""
PASSWORD = "state-canary-password"
MASTER = "limits"
"""The name of the master that Sentinel watches."""


def until(what: str, holds, patience: float = PATIENCE) -> float:
    """Waits until it holds; returns the seconds that it took."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > patience:
            raise SystemExit(f"waited {patience} s in vain until {what}")
        time.sleep(0.01)
    return time.monotonic() - began


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Refused(Exception):
    """An error that a server answered with."""


class Server:
    """One process of Redis or Valkey."""

    def __init__(self, program: str, folder: pathlib.Path, *options: str, port: int = 0, bind: str = "127.0.0.1",
                 password: str = PASSWORD, sentinel: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.program, self.folder, self.port, self.password = program, folder, port or free_port(), password
        self.command = [program, *([str(self.sentinel_file(sentinel)), "--sentinel"] if sentinel else []),
                        "--port", str(self.port), "--bind", bind, "--dir", str(folder)]
        if not sentinel:
            self.command += ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0", *options]
            self.command += ["--requirepass", password, "--masterauth", password] if password else []
        self.start()

    def sentinel_file(self, text: str) -> pathlib.Path:
        file = self.folder / "sentinel.conf"
        file.write_text(text)
        return file

    def start(self) -> None:
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(f"{self.program} answers", self.answers)

    def answers(self) -> bool:
        if self.process.poll() is not None:
            raise SystemExit(f"{self.program} ended:\n{(self.folder / 'log').read_text()[-2000:]}")
        try:
            return self.ask("PING") == "PONG"
        except OSError:
            return False

    def ask(self, *words: object) -> object:
        """The answer to one command, on a connection of its own."""
        return self.ask_all([words])[0]

    def ask_all(self, commands: list[tuple]) -> list:
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            stream = connection.makefile("rwb")
            if self.password:
                commands = [("AUTH", self.password), *commands]
            for words in commands:
                stream.write(b"*%d\r\n" % len(words))
                for word in words:
                    octets = str(word).encode()
                    stream.write(b"$%d\r\n%s\r\n" % (len(octets), octets))
            stream.flush()
            answers = [self.answer(stream) for _ in commands]
            return answers[1:] if self.password else answers

    def answer(self, stream) -> object:
        line = stream.readline()
        if not line:
            raise ConnectionError("the server closed the connection")
        kind, text = line[:1], line[1:-2].decode()
        if kind == b"-":
            raise Refused(text)
        if kind == b"+":
            return text
        if kind == b":":
            return int(text)
        if kind == b"$":
            return None if text == "-1" else stream.read(int(text) + 2)[:-2].decode()
        return [self.answer(stream) for _ in range(int(text))]

    def info(self, name: str) -> str:
        lines = str(self.ask("INFO", "everything")).splitlines()
        found = [line.split(":", 1)[1] for line in lines if line.startswith(f"{name}:")]
        return found[0] if found else ""

    def stop(self) -> None:
        """Stands still, with its connections open."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def tag(self) -> str:
        return f"127.0.0.1:{self.port}"


class Single:
    """One server."""

    def __init__(self, program: str, folder: pathlib.Path, options: tuple[str, ...] = (), **more) -> None:
        self.server = Server(program, folder / "single", *options, **more)
        self.servers = [self.server]

    def url(self) -> str:
        return f"redis://{self.server.tag()}"

    def end(self) -> None:
        for server in self.servers:
            server.kill()


class Certificates:
    """An authority, and what it signed for the server and for the client: files of PEM."""

    def __init__(self, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.make("ca", "-subj", "/CN=authority", "-addext", "basicConstraints=critical,CA:TRUE")
        for name, of in (("server", "IP:127.0.0.1"), ("client", "DNS:proxy.example")):
            self.make(name, "-subj", f"/CN={name}", "-addext", f"subjectAltName={of}", "-addext", "basicConstraints=CA:FALSE",
                      "-CA", self.path("ca.pem"), "-CAkey", self.path("ca.key"))

    def make(self, name: str, *words: str) -> None:
        made = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                               "2", "-keyout", self.path(f"{name}.key"), "-out", self.path(f"{name}.pem"), *words],
                              capture_output=True, text=True, timeout=PATIENCE, check=False)
        if made.returncode:
            raise SystemExit(f"openssl: {made.stderr}")

    def path(self, name: str) -> str:
        return str(self.folder / name)


class Encrypted(Single):
    """One server that speaks TLS, and wants a certificate of the client; the test itself asks it in clear text."""

    def __init__(self, program: str, folder: pathlib.Path, certificates: Certificates) -> None:
        self.port = free_port()
        super().__init__(program, folder, options=(
            "--tls-port", str(self.port), "--tls-auth-clients", "yes", "--tls-cert-file", certificates.path("server.pem"),
            "--tls-key-file", certificates.path("server.key"), "--tls-ca-cert-file", certificates.path("ca.pem")))

    def url(self) -> str:
        return f"rediss://127.0.0.1:{self.port}"


class Sentinel(Single):
    """A master, a replica, and three sentinels."""

    def __init__(self, program: str, folder: pathlib.Path) -> None:
        self.server = self.master = Server(program, folder / "master")
        self.replica = Server(program, folder / "replica", "--replicaof", f"127.0.0.1 {self.master.port}",
                              "--replica-announce-ip", "127.0.0.1")
        until("the replica follows", lambda: self.replica.info("master_link_status") == "up")
        text = "\n".join((f"sentinel monitor {MASTER} 127.0.0.1 {self.master.port} 2",
                          f"sentinel auth-pass {MASTER} {PASSWORD}",
                          f"sentinel down-after-milliseconds {MASTER} 1000",
                          f"sentinel failover-timeout {MASTER} 4000", ""))
        self.sentinels = [Server(program, folder / f"sentinel{i}", password="", sentinel=text) for i in range(3)]
        self.servers = [self.master, self.replica, *self.sentinels]
        until("the sentinels know each other and the replica", lambda: all(self.sees(each) for each in self.sentinels))

    @staticmethod
    def sees(sentinel: Server) -> bool:
        facts = sentinel.ask("SENTINEL", "MASTER", MASTER)
        facts = dict(zip(facts[::2], facts[1::2]))
        return facts["num-other-sentinels"] == "2" and facts["num-slaves"] == "1"

    def url(self) -> str:
        hosts = ",".join(sentinel.tag() for sentinel in self.sentinels)
        return f"redis-sentinel://{hosts}/{MASTER}"


class Cluster(Single):
    """Three masters that share the slots."""

    def __init__(self, program: str, folder: pathlib.Path) -> None:
        self.servers = [Server(program, folder / f"node{i}", "--cluster-enabled", "yes", "--cluster-port", str(free_port()),
                               "--cluster-node-timeout", "2000", "--cluster-announce-ip", "127.0.0.1") for i in range(3)]
        self.server = self.servers[0]
        self.cli = program.replace("-server", "-cli")
        self.command("create", *(server.tag() for server in self.servers), "--cluster-yes")
        until("the cluster is whole", self.is_whole)

    def is_whole(self) -> bool:
        return all("cluster_state:ok" in str(server.ask("CLUSTER", "INFO")) for server in self.servers)

    def command(self, *words: str) -> None:
        done = subprocess.run([self.cli, "-a", PASSWORD, "--no-auth-warning", "--cluster", *words], text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)
        if done.returncode:
            raise SystemExit(f"{self.cli} --cluster {words[0]}: {done.stdout[-1000:]}{done.stderr[-1000:]}")

    def move(self, key: str) -> int:
        """Moves the slot of a key, and some beside it, to the next server. Returns the number of the new one."""
        slot = self.server.ask("CLUSTER", "KEYSLOT", key)
        owner = next(i for i, server in enumerate(self.servers) if self.owns(server, slot))
        source, target = self.servers[owner], self.servers[(owner + 1) % len(self.servers)]
        self.move_slot(slot, source, target)
        return (owner + 1) % len(self.servers)

    def move_slot(self, slot: int, source: Server, target: Server) -> None:
        """As `redis-cli --cluster reshard` does it, for a slot that is named."""
        ids = {server: server.ask("CLUSTER", "MYID") for server in (source, target)}
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 10):
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "AUTH", PASSWORD, "KEYS", *keys)
        for server in (target, source, *(each for each in self.servers if each not in (source, target))):
            server.ask("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
        # the next target would take an epoch that is this one's, and one of both would lose its slot
        until("the servers agree", self.agree)

    def agree(self) -> bool:
        """All servers tell the same of each: slots, and an epoch of its own."""
        views = []
        for server in self.servers:
            nodes = (line.split() for line in str(server.ask("CLUSTER", "NODES")).splitlines())
            views.append(sorted((node[0], node[6], *node[8:]) for node in nodes))
        epochs = {node[1] for node in views[0]}
        return len(epochs) == len(self.servers) and all(view == views[0] for view in views)

    @staticmethod
    def owns(server: Server, slot: int) -> bool:
        mine = next(line for line in str(server.ask("CLUSTER", "NODES")).splitlines() if "myself" in line)
        for part in mine.split(" ")[8:]:
            if not part.startswith("["):
                low, _, high = part.partition("-")
                if int(low) <= slot <= int(high or low):
                    return True
        return False

    def url(self) -> str:
        return f"redis-cluster://{','.join(server.tag() for server in self.servers)}"
