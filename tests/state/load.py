#!/usr/bin/env python3
"""Load on several replicas, as a list of what became of each request.

    load.py SECONDS > RESULT

It ends when its standard input does, or after so many seconds. The first line of it is the specification, in JSON:

- `replicas`, a list of [host, port];
- `paced`, a list of requests that go to each replica so many times a second, whatever becomes of those before
  (`keys`, `rate`);
- `clients`, a list of clients of each replica that ask for one stream after the other (`keys`, `count`, `hold` in
  seconds);
- `direct`, requests that go straight to the upstream (`port`, `rate`), as replica -1.

`keys` is a list of [name, key]; where there are several, the one at position n is shown 1/(n+1) times as often as
the first (Zipf's law). The result is a list of [name, replica, time, seconds until the response was whole, status,
cause]: a status of 0 is a request without a response.
"""

from __future__ import annotations

import asyncio
import collections
import gc
import itertools
import json
import random
import sys
import time

from upstream import MODEL, OUTPUT

DIRECT = "direct"
"""The name of requests that go straight to the upstream."""
PATIENCE = 20
"""Seconds until a request counts as lost."""
MOST = 200
"""Connections to a replica for one kind of request."""
PAUSE = 0.05
"""Seconds that a client waits after it was refused."""
WORDS = "word " * 380
"""2 KB of content, as the benchmarks have it."""

results: list[list] = []


class Client(asyncio.Protocol):
    """A connection that carries one exchange at a time."""

    def __init__(self) -> None:
        self.octets = b""
        self.waiter: asyncio.Future | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self.waiter and not self.waiter.done():
            self.waiter.set_result((0, f"cut: {error}"))

    def data_received(self, octets: bytes) -> None:
        self.octets += octets
        end = self.octets.find(b"\r\n\r\n")
        if end < 0 or not self.waiter or self.waiter.done():
            return
        head = self.octets[:end].lower()
        if b"\r\ntransfer-encoding: chunked" in head:
            if not self.octets.endswith(b"0\r\n\r\n"):
                return
        else:
            length = int(head.split(b"\r\ncontent-length: ", 1)[1].split(b"\r\n", 1)[0])
            if len(self.octets) < end + 4 + length:
                return
        cause = head.split(b"\r\nx-proxy-error: ", 1)
        cause = cause[1].split(b"\r\n", 1)[0].decode() if len(cause) == 2 else ""
        self.octets = b""
        self.waiter.set_result((int(head[9:12]), cause))

    async def ask(self, request: bytes) -> tuple[int, str]:
        self.waiter = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        try:
            return await asyncio.wait_for(self.waiter, PATIENCE)
        except asyncio.TimeoutError:
            self.transport.abort()
            return 0, "no response"


class Pool:
    """Connections to one replica."""

    def __init__(self, address: list, keys: list[list[str]], hold: float) -> None:
        self.address = address
        self.idle: collections.deque[Client] = collections.deque()
        self.count = 0
        content = json.dumps({"model": MODEL, "max_tokens": OUTPUT, "stream": bool(hold),
                              "messages": [{"role": "user", "content": WORDS}]})
        self.requests = [(name, (
            f"POST /v1/messages HTTP/1.1\r\nhost: proxy\r\nx-api-key: {key}\r\nx-test-name: {name}\r\nx-test-hold: {hold}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n{content}").encode()) for name, key in keys]
        self.weights = list(itertools.accumulate(1 / (position + 1) for position in range(len(keys))))

    async def once(self) -> int:
        [(name, request)] = random.choices(self.requests, cum_weights=self.weights)
        began = time.monotonic()
        if self.count >= MOST:
            results.append([name, self.address[2], began, 0, 0, "too many requests are on their way"])
            return 0
        self.count += 1
        try:
            while self.idle and self.idle[-1].transport.is_closing():
                self.idle.pop()
            if self.idle:
                client = self.idle.pop()
            else:
                _, client = await asyncio.get_running_loop().create_connection(Client, *self.address[:2])
            began = time.monotonic()
            status, cause = await client.ask(request)
            if status:
                self.idle.append(client)
        except OSError as error:
            status, cause = 0, f"no connection: {error}"
        finally:
            self.count -= 1
        results.append([name, self.address[2], began, time.monotonic() - began, status, cause])
        return status


async def paced(pool: Pool, rate: float, offset: float, over: asyncio.Event) -> None:
    at = time.monotonic() + offset / rate
    tasks = set()
    while not over.is_set():
        await asyncio.sleep(max(0, at - time.monotonic()))
        task = asyncio.ensure_future(pool.once())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        at += 1 / rate
    if tasks:
        await asyncio.wait(tasks)


async def one_after_the_other(pool: Pool, over: asyncio.Event) -> None:
    while not over.is_set():
        if await pool.once() != 200:
            await asyncio.sleep(PAUSE)


async def main() -> None:
    spec = json.loads(sys.stdin.readline())
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, over.set)
    loop.call_later(float(sys.argv[1]), over.set)
    ways = []
    replicas = [[*address, number] for number, address in enumerate(spec["replicas"])]
    for address in replicas:
        for number, each in enumerate(spec.get("paced", [])):
            # spread, so that the replicas are not asked all at once
            offset = (address[2] + number / 7) / len(replicas)
            ways.append(paced(Pool(address, each["keys"], 0), each["rate"], offset, over))
        for each in spec.get("clients", []):
            pool = Pool(address, each["keys"], each["hold"])
            ways += [one_after_the_other(pool, over) for _ in range(each["count"])]
    if direct := spec.get("direct"):
        pool = Pool(["127.0.0.1", direct["port"], -1], [[DIRECT, "sk-ant"]], 0)
        ways.append(paced(pool, direct["rate"], 0.5, over))
    gc.disable()  # its pauses are not the proxy's
    ways = asyncio.gather(*ways)
    await over.wait()
    loop.remove_reader(sys.stdin)
    await ways
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
