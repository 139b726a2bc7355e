#!/usr/bin/env python3
"""A wire tap: relays TCP octets between a client and a port of this machine and writes them down.

    tap.py PORT DIRECTORY

Prints its own port. For connection N it writes N.up (client's octets), N.down (octets towards the
client) and N.times (`offset nanoseconds` for each piece towards the client). It understands
nothing of what it relays, so it cannot repair it.
"""

from __future__ import annotations

import asyncio
import pathlib
import sys
import time


class Tap:
    def __init__(self, port: int, directory: pathlib.Path) -> None:
        self.port, self.directory, self.count = port, directory, 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        name = self.directory / f"{self.count:04}"
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            writer.close()
            return
        with open(f"{name}.up", "wb", 0) as up, open(f"{name}.down", "wb", 0) as down, open(f"{name}.times", "w") as times:

            def stamp(offset: int) -> None:
                times.write(f"{offset} {time.monotonic_ns()}\n")
                times.flush()

            both = (relay(reader, up_writer, up, lambda _: None), relay(up_reader, writer, down, stamp))
            done, running = await asyncio.wait([asyncio.ensure_future(one) for one in both], return_when=asyncio.FIRST_COMPLETED)
            if any(task.result() is False for task in done):  # a reset: pass it on at once
                for side in (writer, up_writer):
                    side.transport.abort()
            await asyncio.wait(running)


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, log, stamp) -> bool:
    """Returns whether the side that sends ended its stream cleanly."""
    offset = 0
    try:
        while piece := await reader.read(1 << 16):
            stamp(offset)
            log.write(piece)
            offset += len(piece)
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        return True
    except OSError:
        return False


async def main() -> None:
    port, directory = int(sys.argv[1]), pathlib.Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    server = await asyncio.start_server(Tap(port, directory).serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
