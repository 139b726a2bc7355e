"""HTTP/1.1 messages as octets: the little that mock, tap and check share (RFC 9112 sections 2, 6, 7).

It owns nothing but parsing, keeps every octet as it came, and is strict: what it does not
understand is an exception, since a test that guesses proves nothing.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class Message:
    """One request or response: start line, fields in order, content without transfer coding."""

    start: str
    fields: list[tuple[str, str]]
    content: bytes
    begin: int
    """Offset of the head in the stream."""
    content_begin: int
    end: int

    def values(self, name: str) -> list[str]:
        return [value for field, value in self.fields if field.lower() == name]

    def value(self, name: str) -> str | None:
        values = self.values(name)
        return values[0] if values else None

    @property
    def method(self) -> str:
        return self.start.split(" ")[0]

    @property
    def target(self) -> str:
        return self.start.split(" ")[1]

    @property
    def status(self) -> int:
        return int(self.start.split(" ")[1])


class Incomplete(Exception):
    """The stream ends inside a message."""


def parse_head(head: bytes) -> tuple[str, list[tuple[str, str]]]:
    """Start line and fields of a head that ends with its empty line."""
    start, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    fields = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name != name.strip():
            raise ValueError(f"bad field line {line!r}")
        fields.append((name, value.strip(" \t")))
    return start, fields


def parse(stream: bytes, begin: int, *, request: str | None = None) -> Message:
    """The message at `begin`. `request` is the method that a response answers, None for requests."""
    head_end = stream.find(b"\r\n\r\n", begin)
    if head_end < 0:
        raise Incomplete
    at = head_end + 4
    start, fields = parse_head(stream[begin:at])
    message = Message(start, fields, b"", begin, at, at)
    coding, length = message.value("transfer-encoding"), message.value("content-length")
    if request is not None and (request == "HEAD" or message.status in (204, 304) or message.status < 200):
        return message
    if coding is not None:
        if coding.lower() != "chunked":
            raise ValueError(f"transfer coding {coding!r}")
        message.content, message.end = _dechunk(stream, at)
    elif length is not None:
        message.end = at + int(length)
        if message.end > len(stream):
            raise Incomplete
        message.content = stream[at : message.end]
    elif request is not None:
        message.content, message.end = stream[at:], len(stream)
    return message


def requests(stream: bytes) -> list[Message]:
    """All complete requests of one connection."""
    messages, at = [], 0
    while at < len(stream):
        try:
            message = parse(stream, at)
        except Incomplete:
            break
        messages.append(message)
        at = message.end
    return messages


def responses(stream: bytes, asked: list[Message]) -> list[Message]:
    """All complete final responses of one connection, in the order of the requests `asked`."""
    messages, at = [], 0
    for request in asked:
        while True:
            try:
                message = parse(stream, at, request=request.method)
            except Incomplete:
                return messages
            at = message.end
            if message.status >= 200:
                break
        messages.append(message)
    return messages


def _dechunk(stream: bytes, at: int) -> tuple[bytes, int]:
    parts = []
    while True:
        line_end = stream.find(b"\r\n", at)
        if line_end < 0:
            raise Incomplete
        size = int(stream[at:line_end].split(b";")[0], 16)
        at = line_end + 2
        if size == 0:
            end = stream.find(b"\r\n", at)
            while end > at:  # trailer fields
                at = end + 2
                end = stream.find(b"\r\n", at)
            if end < 0:
                raise Incomplete
            return b"".join(parts), end + 2
        if at + size + 2 > len(stream):
            raise Incomplete
        parts.append(stream[at : at + size])
        at += size + 2
