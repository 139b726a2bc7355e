"""The parts that the benchmarks share: the rig, the peers, and what processes have used.

The rig (`rig/`) is a mock upstream and a load generator. The peers are this proxy and those of
`peers/`. All ports are chosen by the kernel.
"""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEERS = HERE / "peers"
NJS = pathlib.Path("/usr/lib/nginx/modules/ngx_http_js_module.so")
PROMPT = "You are a helpful assistant behind a proxy (replaced system prompt)."
TICK = os.sysconf("SC_CLK_TCK")


def build():
    """The rig's program, built if its sources changed."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "rig"
    subprocess.run(
        ["cargo", "build", "--quiet", "--release", "--locked",
         "--manifest-path", HERE / "rig/Cargo.toml", "--target-dir", target],
        check=True,
    )
    return target / "release/rig"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def found(program):
    """The path of a program, also where a user's PATH does not lead."""
    return shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")


def missing(peer):
    """What to install for a peer; empty if it can be measured."""
    program = {"nginx-njs": "nginx"}.get(peer, peer)
    if program in ("nginx", "haproxy") and not found(program):
        return f"apt-get install {program}, and stop the service that it starts"
    if peer == "nginx-njs" and not NJS.exists():
        return "apt-get install libnginx-mod-http-js"
    return ""


def tree(pid):
    """A process and all that descend from it."""
    pids = [pid]
    for each in pids:
        for children in pathlib.Path(f"/proc/{each}/task").glob("*/children"):
            pids += [int(child) for child in children.read_text().split()]
    return pids


def cpu(pid):
    """Seconds of CPU time that a process tree has used."""
    ticks = 0
    for each in tree(pid):
        fields = pathlib.Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICK


def resident(pid):
    """KiB of memory of a process tree."""
    kib = 0
    for each in tree(pid):
        for line in pathlib.Path(f"/proc/{each}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                kib += int(line.split()[1])
    return kib


def stop(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def pinned(command, cores):
    return ["taskset", "-c", cores, *command] if cores else command


class Mock:
    """The mock upstream, as long as the block runs."""

    def __init__(self, rig, cores=""):
        self.command = pinned([rig, "mock"], cores)

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            sys.exit("the mock upstream did not start")
        self.port, self.pid = int(line), self.process.pid
        return self

    def __exit__(self, *_):
        stop(self.process)


class Peer:
    """A proxy before the mock, as long as the block runs; `direct` is the mock itself."""

    def __init__(self, name, mock, program=None, workers=2, cores="", edits=True):
        self.name, self.mock = name, mock
        self.program, self.workers, self.cores, self.edits = program, workers, cores, edits
        self.process = None

    def __enter__(self):
        self.port = self.mock.port
        self.pid = None
        self.seconds = 0.0
        self.folder = tempfile.TemporaryDirectory(prefix="anthropic-proxy-bench-")
        if self.name != "direct":
            self.start()
        return self

    def __exit__(self, *_):
        if self.process:
            stop(self.process)
        self.folder.cleanup()

    def start(self):
        self.port = free_port()
        command, environment = self.command()
        log = pathlib.Path(self.folder.name) / "log"
        begin = time.perf_counter()
        with open(log, "wb") as out:
            self.process = subprocess.Popen(
                pinned(command, self.cores), cwd=self.folder.name, stdout=out, stderr=out,
                env={"PATH": os.environ["PATH"], **environment},
            )
        self.pid = self.process.pid
        while not self.answers():
            if self.process.poll() is not None:
                sys.exit(f"{self.name} ended with {self.process.returncode}:\n{log.read_text()}")
            if time.perf_counter() > begin + 30:
                sys.exit(f"{self.name} does not answer:\n{log.read_text()}")
            time.sleep(0.001)
        self.seconds = time.perf_counter() - begin

    def command(self):
        if self.name.startswith("nginx"):
            return [found("nginx"), "-p", self.folder.name, "-c", self.configuration(f"{self.name}.conf")], {}
        if self.name == "haproxy":
            return [found("haproxy"), "-db", "-f", self.configuration("haproxy.cfg")], {}
        environment = {
            "PORT": str(self.port), "WORKERS": str(self.workers), "RUST_LOG": "warn",
            "API_BASE_URL": f"http://127.0.0.1:{self.mock.port}",
        }
        if self.edits:
            environment["SYSTEM_PROMPT_REPLACEMENT"] = PROMPT
        return [pathlib.Path(self.program).resolve()], environment

    def configuration(self, name):
        text = (PEERS / name).read_text()
        values = {"work": self.folder.name, "peers": PEERS, "port": self.port,
                  "upstream": self.mock.port, "workers": self.workers}
        for key, value in values.items():
            text = text.replace("{" + key + "}", str(value))
        path = pathlib.Path(self.folder.name) / name
        path.write_text(text)
        return str(path)

    def answers(self):
        """Whether a request gets a 200."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                connection.sendall(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                return connection.recv(64)[9:12] == b"200"
        except OSError:
            return False


def load(rig, peer, arguments, cores=""):
    """Starts the load generator; its output is one line of JSON."""
    command = [rig, "load", "--port", str(peer.port), "--mock-pid", str(peer.mock.pid), *arguments]
    if peer.pid:
        command += ["--proxy-pid", str(peer.pid)]
    return subprocess.Popen(pinned(command, cores), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process, timeout=300):
    """What a load generator measured."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return {"failed": "the load generator did not end"}
    return json.loads(out) if process.returncode == 0 else {"failed": err[-300:]}
