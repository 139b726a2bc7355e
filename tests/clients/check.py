#!/usr/bin/env python3
"""Holds what a client sent and got (tap) against what the upstream got and sent (mock).

    check.py TAP CAPTURES [--edit none|replace|insert] [--replacement TEXT]
             [--expect-edits N] [--expect-streams N]

For each exchange: request line, end-to-end fields and content arrived identical, except for the
one edit, which is held against the octets: the content that arrived must be the content that left
with one JSON string (or one block) exchanged at the right place. The answer arrived identical, and
a stream's first event arrived before its last one had left.
"""

from __future__ import annotations

import argparse
import bisect
import json
import pathlib
import sys

import wire

HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
OURS_UP = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}
ATTRIBUTION = "x-anthropic-billing-header:"


class Failure(Exception):
    pass


def require(fact: bool, message: str) -> None:
    if not fact:
        raise Failure(message)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tap", type=pathlib.Path)
    parser.add_argument("captures", type=pathlib.Path)
    parser.add_argument("--edit", choices=("none", "replace", "insert"), default="none")
    parser.add_argument("--replacement", default="")
    parser.add_argument("--expect-edits", type=int, default=0)
    parser.add_argument("--expect-streams", type=int, default=0)
    options = parser.parse_args()

    exchanges = edits = streams = 0
    faults = []
    for up in sorted(options.tap.glob("*.up")):
        asked = wire.requests(up.read_bytes())
        down = up.with_suffix(".down").read_bytes()
        times = [tuple(map(int, line.split())) for line in up.with_suffix(".times").read_text().splitlines()]
        for sent, got in zip(asked, wire.responses(down, asked), strict=False):
            what = f"{up.stem}: {sent.method} {sent.target} ({len(sent.content)} octets)"
            exchanges += 1
            try:
                capture = Capture(options.captures, got)
                check_request_head(sent, capture)
                edited = check_content(sent, capture.received, options)
                check_answer(sent, got, capture)
                streamed = check_liveness(got, capture, times)
            except Failure as failure:
                faults.append(f"{what}: {failure}")
                continue
            edits += edited
            streams += streamed
            print(f"  ok {what} -> {got.status}{', edited' if edited else ''}{', streamed' if streamed else ''}")
    if edits < options.expect_edits:
        faults.append(f"{edits} edited requests, expected at least {options.expect_edits}")
    if streams < options.expect_streams:
        faults.append(f"{streams} streams, expected at least {options.expect_streams}")
    if not exchanges:
        faults.append("no exchange was seen")
    for fault in faults:
        print(f"  FAILED {fault}", file=sys.stderr)
    return 1 if faults else 0


class Capture:
    """What the mock wrote down about the exchange that `got` answers."""

    def __init__(self, captures: pathlib.Path, got: wire.Message) -> None:
        id = got.value("request-id") or ""
        require(id.startswith("req_mock_"), f"answer {got.status} is not the upstream's: {got.content[:300]!r}")
        stem = captures / id.removeprefix("req_mock_")
        head = stem.with_suffix(".head").read_bytes()
        start, fields = wire.parse_head(head)
        self.received = wire.Message(start, fields, stem.with_suffix(".body").read_bytes(), 0, len(head), len(head))
        self.reply = stem.with_suffix(".reply").read_bytes()
        self.record = json.loads(stem.with_suffix(".json").read_text())


def check_request_head(sent: wire.Message, capture: Capture) -> None:
    received = capture.received
    require(received.start == sent.start, f"request line became {received.start!r}")
    named = {name.strip().lower() for value in sent.values("connection") for name in value.split(",")}
    skipped = HOP_BY_HOP | named | {"host", "content-length", "expect"} | OURS_UP
    before = [(name.lower(), value) for name, value in sent.fields if name.lower() not in skipped]
    after = [(name.lower(), value) for name, value in received.fields if name.lower() not in skipped]
    for name in {name for name, _ in before + after}:
        values = [[value for field, value in fields if field == name] for fields in (before, after)]
        secret = name in ("x-api-key", "authorization", "cookie")
        require(values[0] == values[1], f"field {name} changed" + ("" if secret else f": {values[0]} became {values[1]}"))


def check_content(sent: wire.Message, received: wire.Message, options: argparse.Namespace) -> bool:
    """Whether the content was edited, and edited as promised."""
    require(received.value("content-length") in (None, str(len(received.content))), "Content-Length does not match the content")
    block = None if options.edit == "none" else prompt_block(sent)
    if block is None:
        require(received.content == sent.content, "content changed although nothing was to be edited")
        return False
    require(received.content != sent.content, "the system prompt was not edited")
    index, text = block
    if options.edit == "insert" and "claude code" not in text.lower():
        check_insert(sent.content, received.content, index, options.replacement)
    else:
        check_replace(sent.content, received.content, index, text, options.replacement)
    return True


def prompt_block(sent: wire.Message) -> tuple[int, str] | None:
    """Index and text of the system prompt block, where there is one to edit."""
    if sent.method != "POST" or sent.target.split("?")[0].rstrip("/") != "/v1/messages" or sent.value("content-encoding"):
        return None
    try:
        system = json.loads(sent.content).get("system")
    except ValueError:
        return None
    if not isinstance(system, list) or not system:
        return None
    attributed = isinstance(system[0], dict) and str(system[0].get("text")).startswith(ATTRIBUTION)
    index = 1 if attributed else 0
    if index >= len(system) or not isinstance(system[index].get("text"), str):
        return None
    return index, system[index]["text"]


def check_replace(before: bytes, after: bytes, index: int, text: str, replacement: str) -> None:
    """`after` is `before` with one JSON string exchanged: system[index].text."""
    literal = json.dumps(replacement, ensure_ascii=False).encode()
    require(after.count(literal) == 1, f"the replacement stands {after.count(literal)} times in the content")
    begin = after.index(literal)
    end = len(before) - (len(after) - begin - len(literal))
    require(before[:begin] == after[:begin], "octets before the replacement changed")
    require(before[end:] == after[begin + len(literal) :], "octets after the replacement changed")
    require(json.loads(before[begin:end]) == text, "something else than the text of the system prompt block was replaced")
    require(json.loads(after)["system"][index]["text"] == replacement, "the replacement stands in another place")


def check_insert(before: bytes, after: bytes, index: int, replacement: str) -> None:
    """`after` is `before` with a block put before system[index], and nothing else."""
    old, new = json.loads(before), json.loads(after)
    block = {"type": "text", "text": replacement}
    if cache_controls(old) < 4:
        block["cache_control"] = {"type": "ephemeral"}
    require(new["system"] == old["system"][:index] + [block] + old["system"][index:], "the block was not inserted as promised")
    added = len(after) - len(before)
    same = next((at for at, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(before))
    require(added > 0 and before[same:] == after[same + added :], "octets around the inserted block changed")


def cache_controls(value: object) -> int:
    if isinstance(value, list):
        return sum(map(cache_controls, value))
    if isinstance(value, dict):
        return ("cache_control" in value) + sum(map(cache_controls, value.values()))
    return 0


def check_answer(sent: wire.Message, got: wire.Message, capture: Capture) -> None:
    require(got.status == capture.record["status"], f"status {capture.record['status']} became {got.status}")
    if sent.method != "HEAD":
        require(got.content == capture.reply, "the content of the answer changed")
    skipped = HOP_BY_HOP | {"content-length"}
    for name in {name.lower() for name, _ in capture.record["fields"]} - skipped:
        before = [value for field, value in capture.record["fields"] if field.lower() == name]
        require(got.values(name) == before, f"field {name} of the answer: {before} became {got.values(name)}")
    require(got.value("x-proxy-error") is None, "an answer of the upstream is marked as ours")
    added = {name.lower() for name, _ in got.fields} - {name.lower() for name, _ in capture.record["fields"]} - skipped
    require(not added, f"fields were added to the answer: {sorted(added)}")


def check_liveness(got: wire.Message, capture: Capture, times: list[tuple[int, int]]) -> bool:
    """Whether the answer is a stream, and its first event arrived while the upstream still sent."""
    if not (got.value("content-type") or "").startswith("text/event-stream"):
        return False
    # the piece of the connection that holds the first octet of content
    at = bisect.bisect_right(times, (got.content_begin, 1 << 63)) - 1
    pieces = [offset for offset, _ in times if got.content_begin <= offset < got.end]
    require(times[at][1] < capture.record["last_sent"], "the first event arrived after the last one had left: the stream was held back")
    require(len(pieces) > 3, f"the stream arrived in {len(pieces)} pieces")
    return True


if __name__ == "__main__":
    sys.exit(main())
