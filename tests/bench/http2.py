#!/usr/bin/env python3
"""HTTP/2 with TLS in and HTTP/1.1 out, beside nginx: CPU time of the proxy for a request.

    tests/bench/http2.py PROGRAM [ROUNDS] [REQUESTS]     (default 3 rounds of 20,000)

The mock of tests/bench/rig answers; h2load asks: 16 connections of 16 streams each, a 2 KB POST
/v1/messages. Each proxy runs in turn, in every round.
Prints a line for each try and the medians. Needs nginx, h2load (nghttp2-client), openssl, cargo.
"""

import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import harness

CONNECTIONS, STREAMS = 16, 16

NGINX = """
worker_processes 2; worker_rlimit_nofile 20000; daemon off;
pid {work}/nginx.pid; error_log {work}/nginx.err warn;
events {{ worker_connections 12000; }}
http {{
  access_log off; tcp_nodelay on; keepalive_requests 100000000; client_max_body_size 64m;
  client_body_temp_path {work}/b; proxy_temp_path {work}/p; fastcgi_temp_path {work}/f;
  uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;
  upstream up {{ server 127.0.0.1:{mock}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} ssl http2 reuseport backlog=4096;
    ssl_certificate {work}/cert.pem; ssl_certificate_key {work}/key.pem;
    location / {{
      proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
"""


def started(command, port, **options):
    process = subprocess.Popen(command, **options)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"{command[0]} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process
        except OSError:
            time.sleep(0.05)
    process.kill()
    sys.exit(f"{command[0]} does not listen")


def load(port, body, requests):
    out = subprocess.run(
        ["h2load", "-n", str(requests), "-c", str(CONNECTIONS), "-m", str(STREAMS), "-d", body,
         "-H", "content-type: application/json", f"https://127.0.0.1:{port}/v1/messages"],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout
    good = int(re.search(r"status codes: (\d+) 2xx", out)[1])
    if good != requests or "Application protocol: h2" not in out:
        sys.exit(f"not all answers are good:\n{out}")
    return float(re.search(r"finished in .*?, ([\d.]+) req/s", out)[1])


def main():
    program = str(pathlib.Path(sys.argv[1]).resolve())
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    requests = int(sys.argv[3]) if len(sys.argv) > 3 else 20_000
    work = pathlib.Path(tempfile.mkdtemp(prefix="anthropic-proxy-h2-"))
    rig = harness.build()
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-subj", "/CN=localhost", "-keyout", work / "key.pem", "-out", work / "cert.pem"],
                   check=True, capture_output=True)
    body = work / "body.json"
    body.write_bytes(subprocess.run([rig, "body", "--bytes", "2048"], capture_output=True, check=True).stdout)
    figures = {"nginx": [], "ours": []}
    with harness.Mock(rig) as mock:
        compare(figures, program, rounds, requests, work, mock.port, body)
    medians = {name: statistics.median(values) for name, values in figures.items()}
    ratio = medians["ours"] / medians["nginx"]
    print(f"medians: ours {medians['ours']:.1f} us, nginx {medians['nginx']:.1f} us, ratio {ratio:.2f}")


def compare(figures, program, rounds, requests, work, mock_port, body):
    def nginx(port):
        conf = work / "nginx.conf"
        conf.write_text(NGINX.format(work=work, mock=mock_port, port=port))
        return [harness.found("nginx"), "-c", str(conf)], {}

    def ours(port):
        env = {"PORT": str(port), "TLS_CERT_FILE": str(work / "cert.pem"), "TLS_KEY_FILE": str(work / "key.pem"),
               "API_BASE_URL": f"http://127.0.0.1:{mock_port}", "RUST_LOG": "warn", "WORKERS": "2"}
        return [program], {"env": env, "cwd": work}

    for nth in range(rounds):
        for name, peer in (("nginx", nginx), ("ours", ours)):
            port = harness.free_port()
            command, options = peer(port)
            process = started(command, port, stderr=subprocess.DEVNULL, **options)
            try:
                load(port, body, requests // 10)
                before = harness.cpu(process.pid)
                rate = load(port, body, requests)
                micros = (harness.cpu(process.pid) - before) * 1e6 / requests
            finally:
                harness.stop(process)
            figures[name].append(micros)
            print(f"round {nth + 1} {name}: {micros:.1f} us CPU a request, {rate:.0f} requests/s", flush=True)


if __name__ == "__main__":
    main()
