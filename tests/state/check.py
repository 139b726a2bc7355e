#!/usr/bin/env python3
"""Replicas of the proxy on a Redis that fails: requests are as fast as ever, and limits hold.

    unshare --net --mount check.py PROGRAM [PART[:SCENARIO]…]

Servers are real: Redis alone, with Sentinel, as a Cluster, behind a network that loses packets, and Valkey. Each
fault comes while four replicas are under load, in a namespace of networks of its own. It prints a line for each
scenario, and ends with 1 if one of them did what it must not.

    REDIS    the program redis-server (default: from PATH)
    VALKEY   the program valkey-server; without it, its scenarios are left out
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
import time

import run
from fleet import Fleet, Replica, Upstream
from run import Expected, scenario
from servers import PASSWORD, Certificates, Cluster, Encrypted, Sentinel, Single, until

REDIS = os.environ.get("REDIS", "redis-server")
VALKEY = os.environ.get("VALKEY", "")
REPLICAS = int(os.environ.get("N", 4))
HERE, THERE, SERVER = "192.0.2.1", "192.0.2.10", "192.0.2.2"
"""Addresses on both ends of a cable between two namespaces, and that of the server on the first one."""
FAR = "far"

failed: list[str] = []
wanted: list[str] = []


class Site:
    """Servers, an upstream and replicas, and the scenarios they are for."""

    def __init__(self, program: str, folder: pathlib.Path, servers: Single, where=lambda number: {}) -> None:
        self.servers, self.upstream = servers, Upstream("0.0.0.0")
        self.replicas: list[Replica] = []
        try:
            for number in range(REPLICAS):
                options = {"state_url": servers.url(), "upstream": "127.0.0.1", "REPLICAS": str(REPLICAS), **where(number)}
                options["upstream"] = f"http://{options['upstream']}:{self.upstream.port}"
                self.replicas.append(Replica(program, folder / f"replica{number}", **options))
        except BaseException:
            self.end()
            raise
        self.fleet = Fleet(self.replicas, self.upstream)

    def end(self) -> None:
        for replica in self.replicas:
            replica.kill()
        self.upstream.end()
        self.servers.end()

    def run(self, name: str, fault, expected: Expected = Expected()) -> None:
        if wanted and not any(word.partition(":")[2] in name for word in wanted):
            return
        outcome = scenario(self.fleet, name, fault, expected)
        print(outcome.line(), flush=True)
        for each in outcome.faults:
            print(f"  FAULT: {each}", flush=True)
            failed.append(f"{name}: {each}")


def single(program: str, folder: pathlib.Path, server: str = REDIS, label: str = "") -> None:
    site = Site(program, folder, Single(server, folder))
    redis = site.servers.server
    stale = Expected(stale=REPLICAS)

    def scripts() -> None:
        for _ in range(5):
            redis.ask("SCRIPT", "FLUSH")
            time.sleep(0.4)

    def slow() -> None:
        redis.ask("CLIENT", "PAUSE", 3000, "ALL")
        time.sleep(3)

    def stopped() -> None:
        redis.stop()
        time.sleep(10)
        redis.go_on()

    def revoked() -> None:
        redis.ask_all([("ACL", "SETUSER", "default", "-@all", "+acl|setuser", "+auth")])
        time.sleep(3)
        redis.ask("ACL", "SETUSER", "default", "+@all")

    def read_only() -> None:
        redis.ask("REPLICAOF", "127.0.0.1", 1)
        time.sleep(3)
        redis.ask("REPLICAOF", "NO", "ONE")

    def flushed() -> None:
        for _ in range(2):
            redis.ask("FLUSHALL")
            time.sleep(1)

    def killed() -> None:
        redis.kill()
        time.sleep(3)
        redis.start()

    def set_back() -> None:
        # as after a failover with lag: what it took in the last second is gone
        redis.ask("SAVE")
        time.sleep(1)
        redis.kill()
        redis.start()

    try:
        site.run(f"{label}no fault", lambda: time.sleep(5))
        site.run(f"{label}scripts flushed", scripts)
        if not label:
            site.run("paused", slow, stale)
            site.run("stopped", stopped, stale)
            site.run("rights revoked", revoked, stale)
            site.run("read-only", read_only, stale)
        site.run(f"{label}data flushed", flushed, stale)
        site.run(f"{label}killed", killed, stale)
        site.run(f"{label}set back by a second", set_back, stale)
    finally:
        site.end()


def sentinel(program: str, folder: pathlib.Path) -> None:
    servers = Sentinel(REDIS, folder)
    site = Site(program, folder, servers)

    def is_master() -> bool:
        try:
            return servers.replica.info("role") == "master"
        except OSError:
            # it closes its connections when it takes over
            return False

    def fail_over() -> None:
        # it lags: what the master takes now, the replica does not have when it takes over
        servers.replica.ask("CONFIG", "SET", "masterauth", "wrong")
        servers.master.ask("CLIENT", "KILL", "TYPE", "replica")
        time.sleep(1)
        servers.master.kill()
        until("the replica is the master", is_master)
        servers.replica.ask("CONFIG", "SET", "masterauth", PASSWORD)

    def come_back() -> None:
        servers.master.start()
        until("the old master follows", lambda: servers.master.info("master_link_status") == "up")

    try:
        site.run("Sentinel: failover", fail_over, Expected(stale=REPLICAS))
        site.run("Sentinel: old master", come_back)
    finally:
        site.end()


def cluster(program: str, folder: pathlib.Path) -> None:
    servers = Cluster(REDIS, folder)
    site = Site(program, folder, servers)

    def reshard() -> None:
        ids = [server.ask("CLUSTER", "MYID") for server in servers.servers]
        for number in range(3):
            for key in (key for server in servers.servers for key in server.ask("KEYS", "ap:{key:*")):
                servers.move(key)
            servers.command("reshard", servers.server.tag(), "--cluster-from", ids[number], "--cluster-to", ids[(number + 1) % 3],
                            "--cluster-slots", "500", "--cluster-yes")
            time.sleep(0.5)

    try:
        site.run("Cluster: no fault", lambda: time.sleep(3))
        site.run("Cluster: resharded", reshard)
    finally:
        site.end()


def partition(program: str, folder: pathlib.Path) -> None:
    """Two replicas are elsewhere, and the network between them and the server loses every packet."""
    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    # the name is a file, which outlives the namespace of mounts
    subprocess.run(["ip", "netns", "del", FAR], stderr=subprocess.DEVNULL, check=False)
    ip("netns", "add", FAR)
    ip("link", "add", "near0", "type", "veth", "peer", "name", "far0", "netns", FAR)
    for words in (["addr", "add", f"{HERE}/24", "dev", "near0"], ["link", "set", "near0", "up"]):
        ip(*words)
    ip("addr", "add", f"{SERVER}/32", "dev", "near0")
    for words in (["addr", "add", f"{THERE}/24", "dev", "far0"], ["link", "set", "far0", "up"], ["link", "set", "lo", "up"]):
        ip("-n", FAR, *words)
    servers = Single(REDIS, folder, bind="0.0.0.0")

    def where(number: int) -> dict:
        if number < REPLICAS / 2:
            return {}
        return {"host": THERE, "prefix": ("ip", "netns", "exec", FAR), "upstream": HERE,
                "state_url": servers.url().replace("127.0.0.1", SERVER)}

    site = Site(program, folder, servers, where)

    def parted() -> None:
        ip("addr", "del", f"{SERVER}/32", "dev", "near0")
        time.sleep(5)
        ip("addr", "add", f"{SERVER}/32", "dev", "near0")

    try:
        site.run("partition", parted, Expected(stale=2))
    finally:
        site.end()


def absent(program: str, folder: pathlib.Path) -> None:
    """Replicas that start while their Redis is down, with their copies of it, and get it later."""
    site = Site(program, folder, Single(REDIS, folder))
    try:
        keys = {
            "rate": site.fleet.key("absent: rate", {"kind": "requests_per_minute", "amount": 10**6}),
            "open": site.fleet.key("absent: open", {**run.spend(10**6), "unreachable": "open"}),
            "closed": site.fleet.key("absent: closed", run.spend(10**6)),
            "closed rate": site.fleet.key("absent: closed rate", {"kind": "requests_per_minute", "amount": 10**6,
                                                                  "unreachable": "closed"}),
        }
        site.fleet.end()
        site.servers.server.ask("SAVE")  # this time it knows everything when it is back
        site.servers.server.kill()
        began = time.monotonic()
        for replica in site.replicas:
            replica.start()
        print(f"absent: four replicas start without Redis in {time.monotonic() - began:.1f} s", flush=True)
        for number, replica in enumerate(site.replicas):
            if (status := replica.status("/readyz")) != 200:
                failed.append(f"absent: /readyz of replica {number} is {status}")
            if replica.metrics().get("anthropic_proxy_state_copy_in_use") != 1:
                failed.append(f"absent: replica {number} does not go by its copy")
            for name, key in keys.items():
                answer = replica.message(key)
                # as each limit says; a client is not told to give up its key
                expected = (429, "billing_error") if name.startswith("closed") else (200, "")
                if (answer.status, answer.kind) != expected or answer.seconds > 0.5:
                    failed.append(f"absent: {name} at replica {number}: {answer}")
                if answer.status == 429 and answer.fields.get("x-should-retry") != "false":
                    failed.append(f"absent: {name} at replica {number}: {answer}")
        site.servers.server.start()
        took = until("all limits are back", lambda: all(replica.message(key).status == 200 for replica in site.replicas
                                                        for key in keys.values()), 10)
        print(f"absent: all limits are back {took:.1f} s after Redis", flush=True)
        site.run("after absence", lambda: time.sleep(2))
    finally:
        site.end()


def tls(program: str, folder: pathlib.Path) -> None:
    """TLS with a certificate of the client, under load and over a restart of the server."""
    certificates = Certificates(folder / "certificates")
    settings = {"STATE_CA_FILE": certificates.path("ca.pem"), "STATE_CERT_FILE": certificates.path("client.pem"),
                "STATE_KEY_FILE": certificates.path("client.key")}
    servers = Encrypted(REDIS, folder, certificates)
    site = Site(program, folder, servers, lambda number: settings)

    def killed() -> None:
        servers.server.kill()
        time.sleep(3)
        servers.server.start()

    try:
        site.run("TLS: no fault", lambda: time.sleep(3))
        site.run("TLS: killed", killed, Expected(stale=REPLICAS))
    finally:
        site.end()


def valkey(program: str, folder: pathlib.Path) -> None:
    if VALKEY:
        single(program, folder, VALKEY, "Valkey: ")
    else:
        print("no valkey-server: its scenarios are left out")


def main() -> None:
    program = os.path.abspath(sys.argv[1])
    wanted.extend(sys.argv[2:])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    began = time.monotonic()
    print(run.HEAD)
    with tempfile.TemporaryDirectory() as folder:
        for part in (single, sentinel, cluster, partition, absent, tls, valkey):
            if not wanted or any(word.partition(":")[0] == part.__name__ for word in wanted):
                part(program, pathlib.Path(folder, part.__name__))
    print(f"state: {time.monotonic() - began:.0f} s")
    if failed:
        raise SystemExit("state: failed:\n" + "\n".join(failed))
    print("state: all passed")


if __name__ == "__main__":
    main()
