#!/usr/bin/env python3
"""An upstream that counts: what it serves of each key, and how much of it at once.

    upstream.py HOST

It prints its port. A request names itself by the fields `x-test-name` and `x-test-hold`, which the proxy passes
on: its response is JSON, or as a stream it lasts for so many seconds. `GET /counts` gives what was served.
Times are those of the monotonic clock, which is one for all processes of a machine.
"""

from __future__ import annotations

import asyncio
import collections
import json
import sys
import time

INPUT, OUTPUT = 100, 100
"""Tokens of each response."""
COST = INPUT * 3_000 + OUTPUT * 15_000
"""Their price for claude-sonnet-4-5, in billionths of a US dollar."""
MODEL = "claude-sonnet-4-5"

USAGE = '{"input_tokens":%d,"output_tokens":%d}' % (INPUT, OUTPUT)
JSON = ('{"id":"msg_1","type":"message","role":"assistant","model":"%s","content":[{"type":"text","text":"hi"}],'
        '"stop_reason":"end_turn","usage":%s}' % (MODEL, USAGE)).encode()
JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(JSON), JSON)


def chunk(event: str, data: str) -> bytes:
    text = f"event: {event}\ndata: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(text), text)


BEGIN = (b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
         + chunk("message_start", '{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant",'
                 '"model":"%s","content":[],"usage":{"input_tokens":%d,"output_tokens":1}}}' % (MODEL, INPUT)))
END = (chunk("message_delta", '{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":%d}}' % OUTPUT)
       + chunk("message_stop", '{"type":"message_stop"}') + b"0\r\n\r\n")


class Count:
    def __init__(self) -> None:
        self.arrivals: list[float] = []
        self.running = self.peak = self.done = 0


counts: collections.defaultdict[str, Count] = collections.defaultdict(Count)


class Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.octets = b""
        self.need = 0
        self.running: Count | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        if self.running:
            self.running.running -= 1
            self.running = None

    def data_received(self, octets: bytes) -> None:
        self.octets += octets
        while self.running is None:
            end = self.octets.find(b"\r\n\r\n")
            if end < 0:
                return
            lines = self.octets[:end].decode("latin-1").split("\r\n")
            fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
            whole = end + 4 + int(fields.get("content-length", 0))
            if len(self.octets) < whole:
                return
            self.octets = self.octets[whole:]
            self.answer(lines[0], fields)

    def answer(self, line: str, fields: dict[str, str]) -> None:
        if line.startswith("GET /counts"):
            content = json.dumps({name: vars(count) for name, count in counts.items()}).encode()
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(content), content))
            return
        count = counts[fields.get("x-test-name", "")]
        count.arrivals.append(time.monotonic())
        count.running += 1
        count.peak = max(count.peak, count.running)
        self.running = count
        if hold := float(fields.get("x-test-hold", 0)):
            self.transport.write(BEGIN)
            asyncio.get_running_loop().call_later(hold, self.end, END)
        else:
            self.end(JSON)

    def end(self, octets: bytes) -> None:
        """Counts the response out before the proxy can see its end: the proxy never runs less than is counted here."""
        if self.running is None:
            return
        self.running.running -= 1
        self.running.done += 1
        self.running = None
        self.transport.write(octets)
        self.data_received(b"")


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Connection, sys.argv[1], 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
