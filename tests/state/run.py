"""One scenario: load on all replicas, a fault in the middle of it, and what it must not do.

Four keys bear it. `fast` has limits that are out of reach: its latency is what is compared. `slots`, `rate` and
`budget` are asked for more than they allow.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import statistics
import subprocess
import sys
import time

from fleet import Fleet, Key, Watch
from servers import until
from load import DIRECT
from upstream import COST

SLOTS = 6
PER_MINUTE = 60
BUDGET = 100
"""Requests that the budget pays for."""
FAST_RATE, OTHER_RATE, CLIENTS, HOLD = 40, 5, 3, 0.2
"""Requests a second to each replica, of `fast` and of the others; streams that it is asked for at once; their seconds."""
QUIET, AFTER = 2.5, 2.0
"""Seconds before and after the fault."""
LONGEST = 60
SLOWER = 0.03
"""Seconds by which the slowest hundredth may be later, beside what the machine is to blame for: requests that go
straight to the upstream tell that. What waits for a store is later by more."""
HEALED = 10
"""Seconds until all replicas must tell the truth again."""
REVOKED = 2
"""Seconds in which a revocation must be everywhere: one, and what a busy machine adds."""


def spend(requests: float) -> dict:
    return {"kind": "spend", "amount_usd": requests * COST / 1e9, "period": "total"}


@dataclasses.dataclass
class Expected:
    """What a fault may do."""

    stale: int = 0
    """Replicas that may lose their view of the others: each may give out one share more."""
    refused: tuple[str, ...] = ()
    """Further reasons for which requests of `fast` may be refused."""


@dataclasses.dataclass
class Outcome:
    name: str
    quiet: list[float]
    during: list[float]
    seconds: float
    peak: int
    streams: int
    rate: str
    budget: str
    healed: float
    revoked: float
    states: str
    faults: list[str]

    def line(self) -> str:
        def of(values: list[float]) -> str:
            return f"{percentile(values, 50) * 1e3:6.2f} {percentile(values, 99) * 1e3:7.2f} {max(values) * 1e3:7.1f}"
        return (f"{self.name:22} {self.seconds:5.1f} | {of(self.quiet)} | {of(self.during)} | {self.peak}/{SLOTS} {self.streams:4} | "
                f"{self.rate:>9} | {self.budget:>9} | {self.healed:5.2f} | {self.revoked:5.2f} | {self.states}")


HEAD = (f"{'fault':22} {'s':>5} | {'before: p50':>6} {'p99':>5} {'max':>6} | {'during: p50':>6} {'p99':>5} {'max':>6} | streams  | "
        f"rate/bound | budget/bound | healed s | revoked s | states")


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


def scenario(fleet: Fleet, name: str, fault, expected: Expected = Expected()) -> Outcome:
    keys = {each: fleet.key(f"{name} {each}", *limits) for each, limits in {
        "fast": [spend(1e9), {"kind": "requests_per_minute", "amount": 10**7},
                 {"kind": "output_tokens_per_minute", "amount": 10**10}],
        "slots": [{"kind": "at_once", "amount": SLOTS}],
        "rate": [{"kind": "requests_per_minute", "amount": PER_MINUTE}],
        "budget": [spend(BUDGET)],
    }.items()}
    watch = Watch(fleet)
    watch.start()
    process = begin(fleet, keys)
    began = time.monotonic()
    time.sleep(QUIET)
    broken = time.monotonic()
    fault()
    mended = time.monotonic()
    time.sleep(AFTER)
    over = time.monotonic()
    results = finish(process)
    watch.finish()
    return judge(fleet, name, keys, results, watch, expected, (began, broken, mended, over))


def begin(fleet: Fleet, keys: dict[str, Key]) -> subprocess.Popen:
    def of(name: str) -> list[list[str]]:
        return [[keys[name].name, keys[name].text]]

    paced = [{"keys": of(name), "rate": rate} for name, rate in (("fast", FAST_RATE), ("rate", OTHER_RATE), ("budget", OTHER_RATE))]
    return load(fleet, paced=paced, direct={"port": fleet.upstream.port, "rate": FAST_RATE}, clients=[{"keys": of("slots"), "count": CLIENTS, "hold": HOLD}])


def load(fleet: Fleet, **spec) -> subprocess.Popen:
    """load.py, as a process, until its input ends."""
    spec["replicas"] = [[replica.host, replica.port] for replica in fleet.replicas]
    program = pathlib.Path(__file__).with_name("load.py")
    process = subprocess.Popen([sys.executable, str(program), str(LONGEST)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write(json.dumps(spec) + "\n")
    process.stdin.flush()
    return process


def finish(process: subprocess.Popen) -> list[list]:
    return json.loads(process.communicate()[0])


def judge(fleet: Fleet, name: str, keys: dict[str, Key], results: list[list], watch: Watch, expected: Expected,
          times: tuple[float, float, float, float]) -> Outcome:
    began, broken, mended, over = times
    faults = sorted(set(watch.not_ready))
    counts = fleet.upstream.counts()
    of = {each: [result for result in results if result[0] == key.name] for each, key in keys.items()}
    served = {each: len(counts.get(key.name, {}).get("arrivals", [])) for each, key in keys.items()}

    allowed = {"fast": set(), "slots": {"too_many_at_once"}, "rate": {"request_limit"},
               "budget": {"spend_limit", "spend_reserved"}}
    allowed["fast"] |= set(expected.refused)
    allowed["budget"] |= set(expected.refused)
    for each, list_ in of.items():
        other: dict[str, int] = {}
        for _, replica, at, seconds, status, cause in list_:
            if status != 200 and not (status == 429 and cause in allowed[each]):
                text = f"{status} {cause}"
                other[text] = other.get(text, 0) + 1
        if other:
            faults.append(f"requests of `{each}` ended otherwise than they may: {other}")

    fast = [(at, seconds) for _, _, at, seconds, status, _ in of["fast"] if status == 200]
    quiet = [seconds for at, seconds in fast if began + 0.5 <= at < broken]
    during = [seconds for at, seconds in fast if broken <= at < mended + 0.5]
    if len(quiet) < 100 or len(during) < 100:
        raise SystemExit(f"{name}: too few requests of `fast` were answered: {faults}")
    slower = percentile(during, 99) - percentile(quiet, 99)
    direct = [[seconds for name, _, at, seconds, *_ in results if name == DIRECT and since <= at < to]
              for since, to in ((began + 0.5, broken), (broken, mended + 0.5))]
    machine = max(0.0, percentile(direct[1], 99) - percentile(direct[0], 99))
    if slower > SLOWER + 4 * machine:
        faults.append(f"the slowest hundredth of the requests took {slower * 1e3:.1f} ms longer")

    peak = counts[keys["slots"].name]["peak"]
    if peak > SLOTS:
        faults.append(f"{peak} exchanges at once of {SLOTS}")

    arrivals = counts[keys["rate"].name]["arrivals"]
    span = arrivals[-1] - arrivals[0]
    share = PER_MINUTE / len(fleet.replicas)
    most = PER_MINUTE * (1 + span / 60) + share * expected.stale + 1
    if served["rate"] > most:
        faults.append(f"{served['rate']} requests of {most:.0f} that the rate allows in {span:.1f} s")

    # Σ(actual − estimate) is nothing here: every request costs the same, and less than its first estimate
    before = sum(at < broken for at in counts[keys["budget"].name]["arrivals"])
    payable = BUDGET + expected.stale * max(0, BUDGET - before) / len(fleet.replicas)
    if served["budget"] > payable + 0.5:
        faults.append(f"{served['budget']} requests of {payable:.0f} that the budget pays for")

    healed = heal(fleet, keys, served, faults)
    revoked = fleet.revoke(keys["rate"])
    if revoked > REVOKED:
        faults.append(f"a revoked key passed for {revoked:.2f} s")
    return Outcome(name, quiet, during, mended - broken, peak, served["slots"], f"{served['rate']}/{most:.0f}",
                   f"{served['budget']}/{payable:.0f}", healed, revoked, states(watch, broken, mended, expected, faults), faults)


def heal(fleet: Fleet, keys: dict[str, Key], served: dict[str, int], faults: list[str]) -> float:
    """Waits until all replicas know what was spent, to the last billionth."""
    wrong = ""

    def agrees() -> bool:
        nonlocal wrong
        for number, replica in enumerate(fleet.replicas):
            for each in ("fast", "budget"):
                limit = replica.limit(keys[each], "spend")
                if round(limit["spent"] * 1e9) != served[each] * COST or limit["held"] != 0:
                    wrong = (f"replica {number} says {limit['spent']} spent and {limit['held']} held of `{each}`, "
                             f"after {served[each]} requests, which cost {served[each] * COST / 1e9}")
                    return False
            if behind := [name for name, value in replica.metrics().items() if "shared_limits{" in name and value]:
                wrong = f"replica {number} still says {behind}"
                return False
        return True

    try:
        return until("the replicas agree", agrees, HEALED)
    except SystemExit:
        faults.append(wrong)
        return float("inf")


def states(watch: Watch, broken: float, mended: float, expected: Expected, faults: list[str]) -> str:
    """What the metrics said of the shared state during the fault."""
    during = [(number, sample) for at, number, sample in watch.samples if broken <= at <= mended + 0.5]
    if not during:
        return ""
    prefix = "anthropic_proxy_shared_limits"
    if not any(name.startswith(prefix) for name in during[0][1]):
        faults.append(f"no metric begins with {prefix}")
        return ""

    def most(name: str) -> dict[int, float]:
        found: dict[int, float] = {}
        for number, sample in during:
            found[number] = max(found.get(number, 0.0), sample.get(prefix + name, 0.0))
        return found

    silent, stale, lost = (most(name) for name in ("_silent_seconds", '{state="stale"}', '{state="lost"}'))
    known = sum(1 for value in stale.values() if value)
    if mended - broken >= 2.5 and known < expected.stale:
        faults.append(f"{known} replicas say that they are stale: {stale}")
    if not expected.stale and max(lost.values()):
        faults.append(f"replicas say that they have lost the state: {lost}")
    return f"silent {max(silent.values()):.1f} s, {known} stale, {sum(1 for value in lost.values() if value)} lost"
