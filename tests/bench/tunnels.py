#!/usr/bin/env python3
"""Memory per tunnel: the proxy beside nginx, each with N idle WebSocket-style tunnels to an echo server.

    tests/bench/tunnels.py [N] [PROGRAM]      (default: 5000 target/release/anthropic-proxy)

Opens N tunnels, sends a message of 64 octets through each and reads it back, lets them idle for two
seconds, and reads the resident memory of the peer's processes: before the first and after the last.
Both have two workers; nginx (Debian's, if it is there) runs with access_log off. Each tunnel costs two
descriptors in the peer and two in here: the hard limit of this shell must allow 2 N + 100.
"""

import asyncio
import os
import pathlib
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
ASK = b"GET /t HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
AGREED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
MESSAGE = b"m" * 64
AT_ONCE = 100
IDLE = 2
NGINX = """
daemon off; pid {folder}/pid; error_log stderr warn; worker_processes 2; worker_rlimit_nofile {files};
events {{ worker_connections {files}; }}
http {{
    access_log off;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_read_timeout 1h; proxy_send_timeout 1h;
        }}
    }}
}}
"""


async def echo(reader, writer):
    try:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(AGREED)
        while octets := await reader.read(4096):
            writer.write(octets)
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def open_one(port, gate):
    async with gate:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ASK)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        writer.write(MESSAGE)
        assert await reader.readexactly(len(MESSAGE)) == MESSAGE
        return writer


def resident(pid):
    """KiB of a process and its children."""
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    own = int(re.search(r"VmRSS:\s+(\d+)", status)[1])
    return own + sum(resident(child) for child in children)


async def listening(port, process):
    for _ in range(500):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            return writer.close()
        except OSError:
            if process.poll() is not None:
                sys.exit(f"{process.args[0]} ended with {process.returncode}")
            await asyncio.sleep(0.02)
    sys.exit(f"{process.args[0]} does not listen")


async def measure(name, process, port, count):
    try:
        await listening(port, process)
        before = resident(process.pid)
        gate, start = asyncio.Semaphore(AT_ONCE), time.monotonic()
        writers = await asyncio.gather(*(open_one(port, gate) for _ in range(count)))
        took = time.monotonic() - start
        await asyncio.sleep(IDLE)
        after = resident(process.pid)
        print(f"{name:16} {before:7} KiB, with {count} tunnels {after:7} KiB: "
              f"{(after - before) / count:6.2f} KiB a tunnel ({took:.1f} s to open)", flush=True)
        for writer in writers:
            writer.transport.abort()
    finally:
        process.terminate()
        process.wait(60)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    program = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else ROOT / "target/release/anthropic-proxy").resolve()
    files = 2 * count + 100
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < files:
        sys.exit(f"{files} descriptors are needed, {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    server = await asyncio.start_server(echo, "127.0.0.1", 0, backlog=4096)
    upstream = server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        environment = {"PORT": str(port), "API_BASE_URL": f"http://127.0.0.1:{upstream}", "WORKERS": "2", "RUST_LOG": "warn"}
        ours = subprocess.Popen([program], env=environment, cwd=folder, stderr=subprocess.DEVNULL)
        await measure("anthropic-proxy", ours, port, count)
        if nginx := shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin"):
            port = free_port()
            conf = pathlib.Path(folder) / "nginx.conf"
            conf.write_text(NGINX.format(folder=folder, port=port, upstream=upstream, files=2 * files))
            process = subprocess.Popen([nginx, "-c", conf], stderr=subprocess.DEVNULL)
            await measure("nginx", process, port, count)


if __name__ == "__main__":
    asyncio.run(asyncio.wait_for(main(), 300))
