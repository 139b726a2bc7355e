#!/usr/bin/env python3
"""What the scripts of the shared limits cost Redis, by the number of replicas that report on a subject.

    scripts.py [CALLS]     (default 20,000 of each)

It sends the scripts of src/state/redis as a replica does, pipelined, and prints the CPU time of the whole server
for a call: the constants of tests/bench/scale.rs, and rows of docs/scale.md. Needs redis-server.
"""

from __future__ import annotations

import itertools
import pathlib
import socket
import sys
import tempfile

from servers import Single

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "src/state/redis"
BOOTS = (1, 4, 16, 100)
BATCH = 100
SUBJECTS = 50


def arguments(script: str, boot: int, number: int) -> list[object]:
    """What a replica reports that is in use, and asks for more."""
    name = f"boot{boot:04}"
    if script == "rate":
        return [name, number, 0, number * 1000, (number - 1) * 1000, 0, 1]
    if script == "budget":
        return [name, number, 0, number * 1_800_000, 3_600_000, 10_000_000, 1_800_000, 10**15, 1, 0, 0, 3_000_000]
    return [name, number, 0, 3, 1, 2, 1000, 1, 100, 40 * "a", 0, 0]


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    print("| script | " + " | ".join(f"{boots} replicas" for boots in BOOTS) + " |")
    print("|---|" + "---|" * len(BOOTS))
    with tempfile.TemporaryDirectory() as folder:
        server = Single("redis-server", pathlib.Path(folder), password="").server
        try:
            for script in ("rate", "budget", "slots"):
                print(f"| {script} | " + " | ".join(f"{measure(server, script, boots, calls):.0f} µs" for boots in BOOTS) + " |", flush=True)
        finally:
            server.kill()


def measure(server, script: str, boots: int, calls: int) -> float:
    server.ask("FLUSHALL")
    digest = server.ask("SCRIPT", "LOAD", (SCRIPTS / f"{script}.lua").read_text())
    sequence = itertools.count(1)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        stream = connection.makefile("rwb")

        def send(count: int) -> None:
            for start in range(0, count, BATCH):
                for at in range(start, start + BATCH):
                    words = ["EVALSHA", digest, 1, f"ap:{{key:{at % SUBJECTS}}}:x",
                             *arguments(script, at // SUBJECTS % boots, next(sequence))]
                    stream.write(b"*%d\r\n" % len(words))
                    for word in words:
                        octets = str(word).encode()
                        stream.write(b"$%d\r\n%s\r\n" % (len(octets), octets))
                stream.flush()
                for _ in range(BATCH):
                    server.answer(stream)

        send(max(2 * boots * SUBJECTS, BATCH))
        before = cpu(server)
        send(calls)
        return (cpu(server) - before) * 1e6 / calls


def cpu(server) -> float:
    return float(server.info("used_cpu_user")) + float(server.info("used_cpu_sys"))


if __name__ == "__main__":
    main()
