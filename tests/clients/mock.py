#!/usr/bin/env python3
"""A faithful mock of an Anthropic-compatible API: what real clients ask for, answered in its shapes.

    mock.py CAPTURES [--tls CERT KEY]

Prints its port, then writes each request and its answer to the directory CAPTURES:
NNNN.head and NNNN.body (octets as they came, without transfer coding), NNNN.reply (content of the
answer) and NNNN.json (status, fields, when the first and the last octets left). The answer
carries `request-id: req_mock_NNNN`, so that whoever sees only the answer can find the capture.

What a prompt says chooses the answer: "use a tool" asks for a tool call, `mock status 529` for
that error. It keeps no state between requests and knows no client by name.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import pathlib
import re
import ssl
import sys
import time

import wire

PACE = 0.02
"""Seconds between two events: 12 words make a stream of 0.24 s, long enough to tell it from a lump."""

WORDS = "Hello from the mock upstream: every event of this answer leaves alone.".split(" ")

ERRORS = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error",
          429: "rate_limit_error", 500: "api_error", 529: "overloaded_error"}


class Mock:
    def __init__(self, captures: pathlib.Path) -> None:
        self.captures = captures
        self.count = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self.exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the peer went away
        finally:
            writer.close()

    async def exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        start, fields = wire.parse_head(head)
        request = wire.Message(start, fields, b"", 0, len(head), len(head))
        if (request.value("expect") or "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.content = await read_content(request, reader)
        self.count += 1
        number = f"{self.count:04}"
        (self.captures / f"{number}.head").write_bytes(head)
        (self.captures / f"{number}.body").write_bytes(request.content)
        await Answer(self.captures, number, request, writer).send()
        return (request.value("connection") or "").lower() != "close"


class Answer:
    """One answer, on its way out."""

    def __init__(self, captures: pathlib.Path, number: str, request: wire.Message, writer: asyncio.StreamWriter) -> None:
        self.captures, self.number, self.request, self.writer = captures, number, request, writer
        self.id = f"req_mock_{number}"
        self.record: dict[str, object] = {}
        self.sent: list[bytes] = []

    async def send(self) -> None:
        path = self.request.target.split("?")[0]
        method = self.request.method
        if method == "HEAD" and path in ("/", "/api/hello"):
            await self.json(200, {})
        elif method == "POST" and path.startswith("/api/event_logging"):
            await self.json(200, {"accepted_count": 0, "rejected_count": 0})
        elif not (self.request.value("x-api-key") or self.request.value("authorization")):
            await self.error(401, "x-api-key header is required")
        elif method == "GET" and path == "/v1/models":
            model = {"type": "model", "id": "claude-mock-1", "display_name": "Mock", "created_at": "2026-01-01T00:00:00Z"}
            await self.json(200, {"data": [model], "has_more": False, "first_id": model["id"], "last_id": model["id"]})
        elif method == "POST" and path == "/v1/messages/count_tokens":
            await self.json(200, {"input_tokens": len(self.request.content) // 4})
        elif method == "POST" and path == "/v1/messages":
            await self.messages()
        else:
            await self.error(404, f"Not found: {method} {path}")

    async def messages(self) -> None:
        content = self.request.content
        if self.request.value("content-encoding") == "gzip":
            content = gzip.decompress(content)
        try:
            body = json.loads(content)
        except ValueError:
            await self.error(400, "The request body is not valid JSON.")
            return
        texts = list(said(body))
        status = next((int(found[1]) for text in texts if (found := re.search(r"mock status (\d{3})", text))), None)
        if status is not None:
            await self.error(status, "Overloaded")
            return
        blocks, stop_reason = answer_blocks(body, texts)
        message = {"id": f"msg_mock_{self.number}", "type": "message", "role": "assistant", "model": body["model"],
                   "content": blocks, "stop_reason": stop_reason, "stop_sequence": None,
                   "usage": {"input_tokens": len(content) // 4, "cache_creation_input_tokens": 0,
                             "cache_read_input_tokens": 0, "output_tokens": 25, "service_tier": "standard"}}
        if body.get("stream"):
            await self.stream(message)
        else:
            await self.json(200, message)

    async def stream(self, message: dict) -> None:
        self.head(200, [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache"),
                        ("transfer-encoding", "chunked")])
        for event in events(message):
            data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
            self.sent.append(data)
            self.stamp()
            self.writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await self.writer.drain()
            await asyncio.sleep(PACE)
        self.writer.write(b"0\r\n\r\n")
        await self.close()

    async def error(self, status: int, message: str) -> None:
        kind = ERRORS.get(status, "api_error")
        await self.json(status, {"type": "error", "error": {"type": kind, "message": message}, "request_id": self.id})

    async def json(self, status: int, value: object) -> None:
        content = json.dumps(value).encode()
        fields = [("content-type", "application/json")]
        if "gzip" in (self.request.value("accept-encoding") or ""):
            content = gzip.compress(content, mtime=0)
            fields += [("content-encoding", "gzip"), ("vary", "Accept-Encoding")]
        self.head(status, [*fields, ("content-length", str(len(content)))])
        self.stamp()
        if self.request.method != "HEAD":
            self.sent.append(content)
            self.writer.write(content)
        await self.close()

    def head(self, status: int, fields: list[tuple[str, str]]) -> None:
        fields = [("Date", "Mon, 23 Nov 2026 00:00:00 GMT"), *fields, ("Connection", "keep-alive"), ("Server", "cloudflare"),
                  ("request-id", self.id), ("anthropic-organization-id", "00000000-0000-4000-8000-000000000000"),
                  ("anthropic-ratelimit-requests-limit", "50"), ("anthropic-ratelimit-requests-remaining", "49"),
                  ("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2; Path=/"), ("CF-RAY", "0000000000000000-FRA")]
        self.record = {"status": status, "fields": fields}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        self.writer.write(f"HTTP/1.1 {status} Mocked\r\n{lines}\r\n".encode("latin-1"))

    def stamp(self) -> None:
        """CLOCK_MONOTONIC is one clock for all processes of a machine: the tap reads it, too."""
        self.record.setdefault("first_sent", time.monotonic_ns())
        self.record["last_sent"] = time.monotonic_ns()

    async def close(self) -> None:
        # on disk before the client can see the end of its answer
        (self.captures / f"{self.number}.reply").write_bytes(b"".join(self.sent))
        (self.captures / f"{self.number}.json").write_text(json.dumps(self.record))
        await self.writer.drain()


async def read_content(request: wire.Message, reader: asyncio.StreamReader) -> bytes:
    if (request.value("transfer-encoding") or "").lower() == "chunked":
        parts = []
        while size := int((await reader.readline()).split(b";")[0], 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        while (await reader.readline()).strip():
            pass  # trailer fields
        return b"".join(parts)
    return await reader.readexactly(int(request.value("content-length") or 0))


def said(body: dict):
    """All texts of the user."""
    for message in body.get("messages", []):
        if message["role"] != "user":
            continue
        content = message["content"]
        if isinstance(content, str):
            yield content
            continue
        yield from (block["text"] for block in content if block["type"] == "text")


def answer_blocks(body: dict, texts: list[str]) -> tuple[list[dict], str]:
    """What the model says, and why it stops."""
    results = [block for message in body["messages"] if isinstance(message["content"], list)
               for block in message["content"] if block["type"] == "tool_result"]
    if results:
        content = results[-1]["content"]
        text = content if isinstance(content, str) else " ".join(block.get("text", "") for block in content)
        return [{"type": "text", "text": f"The tool said: {text.strip()}"}], "end_turn"
    tools = {tool["name"] for tool in body.get("tools", [])}
    if tools and any("use a tool" in text for text in texts):
        if "Bash" in tools:
            name, arguments = "Bash", {"command": "echo marker-$((40+2))", "description": "Echo a marker"}
        else:
            name, arguments = sorted(tools)[0], {"city": "Zürich", "note": "a \"quoted\" word"}
        return [{"type": "text", "text": "I will use a tool."},
                {"type": "tool_use", "id": "toolu_mock_1", "name": name, "input": arguments}], "tool_use"
    return [{"type": "text", "text": " ".join(WORDS)}], "end_turn"


def events(message: dict):
    """The message as the API streams it."""
    usage = {**message["usage"], "output_tokens": 1}
    yield {"type": "message_start", "message": {**message, "content": [], "stop_reason": None, "usage": usage}}
    for index, block in enumerate(message["content"]):
        if block["type"] == "text":
            empty, pieces = {"type": "text", "text": ""}, re.findall(r"\S+\s*", block["text"])
            deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
        else:
            text = json.dumps(block["input"], ensure_ascii=False)
            empty = {**block, "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": text[at : at + 7]} for at in range(0, len(text), 7)]
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        if index == 0:
            yield {"type": "ping"}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    yield {"type": "message_delta", "delta": {"stop_reason": message["stop_reason"], "stop_sequence": None},
           "usage": {"output_tokens": message["usage"]["output_tokens"]}}
    yield {"type": "message_stop"}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captures", type=pathlib.Path)
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
    options = parser.parse_args()
    options.captures.mkdir(parents=True, exist_ok=True)
    context = None
    if options.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*options.tls)
    server = await asyncio.start_server(Mock(options.captures).serve, "127.0.0.1", 0, ssl=context, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(0)
