#!/usr/bin/env python3
"""Latency of small requests beside bulk downloads: this program, nginx and haproxy in turn, each on
one core (one worker, one thread), the clients and the upstream on another.

    tests/bench/beside_bulk.py target/release/anthropic-proxy [other=path/to/another] nginx haproxy direct

Needs `nginx` and `haproxy` only if they are named. The figures are for comparison within one run: p50 and
p99 of a small POST (four clients, one request at a time each), and the octets that all downloads move.
"""
import argparse, os, multiprocessing, selectors, shutil, signal, socket, statistics, subprocess, sys, tempfile, threading, time

SMALL = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
BULK = 1 << 40  # no download ends while it is measured


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def upstream(listener):
    """One process: small requests are answered before the next piece of a download is sent."""
    content = os.memfd_create("content")
    os.truncate(content, 1 << 20)
    poll, writing = selectors.EpollSelector(), []
    listener.setblocking(False)
    poll.register(listener, selectors.EVENT_READ)
    received = {}
    while True:
        for key, _ in poll.select(0 if writing else None):
            s = key.fileobj
            if s is listener:
                s, _ = listener.accept()
                s.setblocking(False)
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                received[s] = b""
                poll.register(s, selectors.EVENT_READ)
                continue
            try:
                data = s.recv(65536)
            except OSError:
                data = b""
            if not data:
                poll.unregister(s)
                received.pop(s)
                if s in writing:
                    writing.remove(s)
                s.close()
                continue
            received[s] += data
            while b"\r\n\r\n" in received[s]:
                head, rest = received[s].split(b"\r\n\r\n", 1)
                length = next((int(l.split(b":")[1]) for l in head.split(b"\r\n") if l.lower().startswith(b"content-length")), 0)
                if len(rest) < length:
                    break
                received[s] = rest[length:]
                if head.startswith(b"GET /bulk"):
                    s.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % BULK)
                    writing.append(s)
                else:
                    s.send(SMALL)
        blocked = 0
        for _ in range(min(4, len(writing))):
            s = writing.pop(0)
            writing.append(s)
            try:
                os.sendfile(s.fileno(), content, 0, 131072)
            except BlockingIOError:
                blocked += 1
            except OSError:
                pass  # its end is read above
        if blocked == 4:
            time.sleep(0.0002)


def reader(port, downloads, moved):
    """One process: reads all downloads, and throws away without a copy what they bring."""
    poll = selectors.EpollSelector()
    for _ in range(downloads):
        s = socket.create_connection(("127.0.0.1", port))
        s.sendall(b"GET /bulk HTTP/1.1\r\nhost: x\r\n\r\n")
        s.setblocking(False)
        poll.register(s, selectors.EVENT_READ)
    while True:
        for key, _ in poll.select():
            try:
                count = key.fileobj.recv_into(BUFFER, 262144, socket.MSG_TRUNC)
            except OSError:
                continue
            moved.value += count
            if count == 0:
                poll.unregister(key.fileobj)


BUFFER = bytearray(262144)
BODY = b'{"model":"m","max_tokens":1,"messages":[]}' + b" " * 2000
REQUEST = b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY


def small(port, until, times):
    s = socket.create_connection(("127.0.0.1", port))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while time.perf_counter() < until:
        began = time.perf_counter()
        s.sendall(REQUEST)
        answer = b""
        while not answer.endswith(b"{}"):
            data = s.recv(65536)
            if not data:
                raise RuntimeError(f"closed after {answer!r}")
            answer += data
        times.append(time.perf_counter() - began)


def command(kind, path, port, origin, work):
    if kind == "nginx":
        conf = f"""worker_processes 1; daemon off; pid {work}/pid; error_log {work}/err warn;
events {{ worker_connections 4096; }}
http {{ access_log off; tcp_nodelay on; keepalive_requests 1000000;
  client_body_temp_path {work}/b; proxy_temp_path {work}/p; fastcgi_temp_path {work}/f; uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;
  upstream up {{ server 127.0.0.1:{origin}; keepalive 256; keepalive_requests 1000000; }}
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_buffering off; proxy_request_buffering off; }} }} }}"""
        open(f"{work}/nginx.conf", "w").write(conf)
        return [shutil.which("nginx") or "/usr/sbin/nginx", "-p", work, "-c", f"{work}/nginx.conf"], {}
    if kind == "haproxy":
        conf = f"""global
  nbthread 1
defaults
  mode http
  option http-keep-alive
  option http-no-delay
  http-reuse always
  timeout connect 5s
  timeout client 600s
  timeout server 600s
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  server s 127.0.0.1:{origin}
"""
        open(f"{work}/haproxy.cfg", "w").write(conf)
        return [shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", f"{work}/haproxy.cfg"], {}
    env = {"PORT": str(port), "HOST": "127.0.0.1", "API_BASE_URL": f"http://127.0.0.1:{origin}", "WORKERS": "1"}
    return [os.path.abspath(path), "--env-file", "/dev/null"], env


def measure(kind, path, options):
    work = tempfile.mkdtemp()
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    origin, port = listener.getsockname()[1], free_port()
    started = [multiprocessing.Process(target=upstream, args=(listener,), daemon=True)]
    started[0].start()
    proxy = None
    try:
        if kind == "direct":
            port = origin
        else:
            argv, env = command(kind, path, port, origin, work)
            pin = ["taskset", "-c", options.proxy_core] if options.proxy_core else []
            log = open(f"{work}/log", "wb")
            proxy = subprocess.Popen(pin + argv, env={"PATH": os.environ["PATH"], **env}, cwd=work, stdout=log, stderr=log, start_new_session=True)
            for _ in range(400):
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if proxy.poll() is not None:
                        sys.exit(f"{kind} ended: {open(f'{work}/log').read()}")
                    time.sleep(0.05)
        moved = multiprocessing.Value("Q", 0, lock=False)
        started.append(multiprocessing.Process(target=reader, args=(port, options.downloads, moved), daemon=True))
        started[1].start()
        time.sleep(2)
        times = []
        cpu = lambda: sum(int(x) for x in open(f"/proc/{proxy.pid}/stat").read().rsplit(")", 1)[1].split()[11:13]) if proxy and kind != "nginx" else 0
        before, busy, began = moved.value, cpu(), time.perf_counter()
        clients = [threading.Thread(target=small, args=(port, began + options.seconds, times)) for _ in range(4)]
        [client.start() for client in clients]
        [client.join() for client in clients]
        took, octets, busy = time.perf_counter() - began, moved.value - before, cpu() - busy
    finally:
        for process in started:
            process.kill()
        if proxy:
            os.killpg(proxy.pid, signal.SIGTERM)
            proxy.wait()
        listener.close()
        shutil.rmtree(work, ignore_errors=True)
    times.sort()
    gigabytes = octets / 1e9
    return {
        "p50 ms": statistics.median(times) * 1e3,
        "p99 ms": times[int(len(times) * 0.99)] * 1e3,
        "small/s": len(times) / took,
        "bulk MB/s": octets / 1e6 / took,
        "cpu s/GB": busy / os.sysconf("SC_CLK_TCK") / gigabytes if gigabytes else 0,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="+")
    parser.add_argument("--downloads", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--proxy-core", default="0", help="core of the proxy; empty: any")
    parser.add_argument("--other-cores", default="1", help="cores of everything else; empty: any")
    options = parser.parse_args()
    if options.other_cores:
        os.sched_setaffinity(0, {int(core) for core in options.other_cores.split(",")})
    results = {}
    for rep in range(options.reps):
        for peer in options.peers:
            name, _, path = peer.partition("=")
            if not path and os.path.exists(name) and name not in ("nginx", "haproxy"):
                name, path = "ours", name
            result = measure(name, path, options)
            results.setdefault(name, []).append(result)
            print(rep, f"{name:10}", "  ".join(f"{key} {value:9.2f}" for key, value in result.items()), flush=True)
    print("\nmedians")
    for name, all_of_it in results.items():
        medians = {key: statistics.median(result[key] for result in all_of_it) for key in all_of_it[0]}
        print(f"  {name:10}", "  ".join(f"{key} {value:9.2f}" for key, value in medians.items()))


main()
