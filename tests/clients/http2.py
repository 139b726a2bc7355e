#!/usr/bin/env python3
"""Python's httpx over HTTP/2 in clear: answers, a stream of events, an upload, many at once.

    http2.py BASE RUN

Holds what it sent and got against the captures that the mock writes to RUN/captures, which it finds
by the `request-id` of the answer.
"""

from __future__ import annotations

import asyncio
import pathlib
import sys

import httpx


class Captures:
    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory

    def check(self, response: httpx.Response, sent: bytes, got: bytes) -> None:
        number = response.headers["request-id"].removeprefix("req_mock_")
        assert response.http_version == "HTTP/2", response.http_version
        assert (self.directory / f"{number}.body").read_bytes() == sent, number
        assert (self.directory / f"{number}.reply").read_bytes() == got, number


async def main() -> None:
    base, run = sys.argv[1], pathlib.Path(sys.argv[2])
    captures = Captures(run / "captures")
    message, upload = (run / "message").read_bytes(), (run / "upload").read_bytes()
    headers = {"x-api-key": "sk-ant-canary-5", "accept-encoding": "identity"}
    async with httpx.AsyncClient(http1=False, http2=True, base_url=base, headers=headers, timeout=30) as client:
        response = await client.get("/v1/models")
        assert response.status_code == 200
        captures.check(response, b"", response.content)

        async with client.stream("POST", "/v1/messages", content=message) as response:
            chunks = [chunk async for chunk in response.aiter_raw()]
        assert response.headers.get_list("set-cookie") == ["a=1; Path=/", "b=2; Path=/"], response.headers
        assert len(chunks) > 10, f"{len(chunks)} chunks: events were gathered"
        stream = response

        response = await client.post("/v1/files", content=upload)
        assert response.status_code == 404
        captures.check(response, upload, response.content)

        async def one(number: int) -> None:
            sent = upload[: number * 997]
            response = await client.post(f"/v1/files?{number}", content=sent)
            captures.check(response, sent, response.content)

        await asyncio.gather(*(one(number) for number in range(90)))

        # streams that are left early, and the connection goes on
        for _ in range(20):
            async with client.stream("POST", "/v1/messages", content=message) as response:
                await anext(response.aiter_raw())
        assert (await client.get("/health")).json()["status"] == "healthy"
        # only now: the mock writes what it streamed when it has ended
        captures.check(stream, message, b"".join(chunks))


asyncio.run(main())
