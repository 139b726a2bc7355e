#!/usr/bin/env python3
"""WebSocket through the proxy, with the `websockets` library on both sides: what a user would see.

`serve` is the upstream and prints its port; `drive PORT` is the client. tests/clients/websocket.sh starts both.
It looks at results only; the octets are the business of tests/it/tunnel.rs.
"""

import asyncio
import hashlib
import os
import struct
import sys
from socket import SO_LINGER, SOL_SOCKET

import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

MAX = 16 * 2**20
CONNECTIONS = 200


async def echo(connection):
    """Echoes, but for a few words that it takes as orders."""
    async for message in connection:
        match message:
            case "close 1000" | "close 1001" | "close 4001":
                return await connection.close(int(message[6:]), f"as asked: {message}")
            case "abort":
                # a reset, not an end
                socket = connection.transport.get_extra_info("socket")
                socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                return connection.transport.abort()
            case "ping":
                await (await connection.ping(b"from the server"))
                await connection.send("ponged")
            case _:
                await connection.send(message)


def choose(_connection, offered):
    return next((name for name in offered if name in ("chat", "other")), None)


async def refuse(connection, request):
    if request.path == "/refused":
        return connection.respond(403, "not you\n")


async def upstream():
    async with serve(echo, "127.0.0.1", 0, max_size=MAX, select_subprotocol=choose, process_request=refuse) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


async def closed(connection):
    try:
        await connection.recv()
    except ConnectionClosed as cause:
        return cause
    raise AssertionError("still open")


async def drive(port):
    url = f"ws://127.0.0.1:{port}"

    def through(path="/", **more):
        return connect(url + path, max_size=MAX, proxy=None, **more)

    async with through(subprotocols=["none", "other", "chat"]) as connection:
        assert connection.subprotocol == "other", connection.subprotocol
        names = [extension.name for extension in connection.protocol.extensions]
        assert names == ["permessage-deflate"], names
        await connection.send("text ü 🙂 " * 1000)
        assert await connection.recv() == "text ü 🙂 " * 1000
    print("  ok subprotocol, permessage-deflate end to end")

    noise = os.urandom(5_000_000)
    for compression in ("deflate", None):
        async with through(compression=compression) as connection:
            sending = asyncio.create_task(connection.send(noise))
            assert hashlib.sha256(await connection.recv()).digest() == hashlib.sha256(noise).digest()
            await sending
            # in fragments
            await connection.send(noise[at:at + 77_777] for at in range(0, len(noise), 77_777))
            assert await connection.recv() == noise
    print("  ok 5 MB binary both ways, whole and in fragments, compressed and not")

    async with through() as connection:
        await (await connection.ping(b"from the client"))
        await connection.send("ping")
        assert await connection.recv() == "ponged"
    print("  ok ping and pong from both sides")

    for code in (1000, 1001, 4001):
        async with through() as connection:
            await connection.send(f"close {code}")
            cause = await closed(connection)
            assert cause.rcvd.code == code and cause.rcvd.reason == f"as asked: close {code}" and cause.rcvd_then_sent, cause
        connection = await through()
        await connection.close(code, "by the client")
        cause = await closed(connection)
        assert cause.sent.code == code and cause.rcvd.code == code and not cause.rcvd_then_sent, cause
        await connection.wait_closed()
    print("  ok close codes 1000, 1001, 4001 from both sides")

    async with through() as connection:
        await connection.send("abort")
        cause = await closed(connection)
        assert cause.rcvd is None and connection.close_code == 1006, cause
    print("  ok an abort of the server is an abnormal closure (1006)")

    try:
        await through("/refused")
        raise AssertionError("not refused")
    except InvalidStatus as refusal:
        assert refusal.response.status_code == 403 and refusal.response.body == b"not you\n", refusal.response
    print("  ok a refusal is the server's")

    async def one(number):
        async with through() as connection:
            for turn in range(5):
                text = f"{number} {turn} " * 100
                await connection.send(text)
                assert await connection.recv() == text
            await together.wait()
            await connection.send("last")
            assert await connection.recv() == "last"

    together = asyncio.Barrier(CONNECTIONS)
    await asyncio.gather(*(one(number) for number in range(CONNECTIONS)))
    print(f"  ok {CONNECTIONS} connections at once")


if __name__ == "__main__":
    print(f"websockets {websockets.__version__}", file=sys.stderr)
    if sys.argv[1] == "serve":
        asyncio.run(upstream())
    else:
        asyncio.run(asyncio.wait_for(drive(int(sys.argv[2])), 120))
