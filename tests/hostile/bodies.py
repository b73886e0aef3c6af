"""Bodies and heads of requests that mean harm, or are nonsense. Each is refused or answered, soon, and harms nobody."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

SIZE: Final = 2_000_000
"""Bytes of a large body, just below the server's limit."""

ROUTES: Final = {
    "/v1/score": ("items", {"prompt": "p", "candidates": ["a", "b"]}),
    "/v1/rank": ("candidates", "a"),
    "/rerank": ("documents", "a"),
    "/v2/rerank": ("documents", {"text": "a"}),
    "/predict": ("inputs", ["p", "a"]),
    "/score": ("text_2", "a"),
    "/classify": ("input", "a"),
    "/pooling": ("input", "a"),
    "/get_reward": ("query", "a"),
    "/v1/score/evaluation": ("messages", "a"),
}
"""Each route with the field that holds a list, and an entry of it."""


@dataclass(frozen=True)
class Body:
    """A request's body; ``kind`` is its content type."""

    name: str
    route: str
    content: bytes
    kind: bytes = b"application/json"
    encoding: bytes = b""

    @property
    def request(self) -> bytes:
        """The bytes on the wire."""
        extra = b"content-encoding: " + self.encoding + b"\r\n" if self.encoding else b""
        return (
            b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-type: %b\r\n%bcontent-length: %d\r\n\r\n"
            % (self.route.encode(), self.kind, extra, len(self.content))
            + self.content
        )


def bodies() -> Iterator[Body]:
    """All of them: for every route the values that are wrong, odd, deep, long, or too many."""
    for route, (field, entry) in ROUTES.items():
        for name, content in _contents(field, entry):
            yield Body(f"{route} {name}", route, content)
    good = json.dumps({"prompt": "p", "candidates": ["a", "b"]}).encode()
    yield Body("gzip", "/v1/score", gzip.compress(good), encoding=b"gzip")
    yield Body("gzip bomb", "/v1/score", gzip.compress(b" " * 500_000_000, 9)[:SIZE], encoding=b"gzip")
    yield Body("no kind", "/v1/score", good, kind=b"")
    yield Body("form", "/v1/score", b"prompt=p&candidates=a", kind=b"application/x-www-form-urlencoded")
    yield Body("files", "/v1/score", b"--x\r\n" * 100_000, kind=b"multipart/form-data; boundary=x")
    yield Body("long kind", "/v1/score", good, kind=b"application/" + b"x" * 30_000)


def _contents(field: str, entry: Any) -> Iterator[tuple[str, bytes]]:
    """Bodies of one route, whose list is ``field``."""
    rest = {"prompt": "p", "query": "q", "text_1": "p", "candidates": ["a"]}
    rest.pop(field, None)
    start = json.dumps(rest)[:-1].encode() + b', "' + field.encode() + b'": '
    one = json.dumps(entry).encode()
    yield "empty", b""
    yield "not JSON", b"prompt"
    yield "cut", start + b"["
    yield "null", b"null"
    yield "number", b"1"
    yield "list", b"[]"
    yield "object", b"{}"
    yield "not UTF-8", b'"\xff\xfe"'
    yield "zeros", b"\0" * SIZE
    yield "blanks", b" " * SIZE
    yield "deep lists", b"[" * (SIZE // 2)
    yield "deep whole lists", b"[" * (SIZE // 2) + b"]" * (SIZE // 2)
    yield "deep objects", b'{"a":' * (SIZE // 6) + b"1" + b"}" * (SIZE // 6)
    yield "deep entry", start + b"[" * (SIZE // 3) + b"]" * (SIZE // 3) + b"}"
    yield "shallow entry", start + b"[" * 150 + b"]" * 150 + b"}"
    yield "long number", start + b"9" * (SIZE - 200) + b"}"
    yield "large exponent", start + b"[1e999999999, -1e999999999]}"
    yield "NaN", start + b"[NaN, Infinity, -Infinity]}"
    yield "many numbers", start + b"[" + b"1," * (SIZE // 2 - 200) + b"1]}"
    yield "many nulls", start + b"[" + b"null," * (SIZE // 5 - 200) + b"null]}"
    yield "many empty lists", start + b"[" + b"[]," * (SIZE // 3 - 200) + b"[]]}"
    yield "many empty objects", start + b"[" + b"{}," * (SIZE // 3 - 200) + b"{}]}"
    yield "many empty texts", start + b"[" + b'"",' * (SIZE // 3 - 200) + b'""]}'
    yield "many entries", start + b"[" + (one + b",") * 10_000 + one + b"]}"
    yield "most entries", start + b"[" + (one + b",") * 511 + one + b"]}"
    yield "long key", b'{"' + b"k" * (SIZE - 20) + b'": 1}'
    yield "many keys", b"{" + b",".join(b'"k%d": 1' % n for n in range(SIZE // 16)) + b"}"
    yield "one key again and again", b"{" + b",".join([b'"prompt": "p"'] * (SIZE // 16)) + b"}"
    yield "long text", start + b'["' + b"x" * (SIZE - 200) + b'"]}'
    yield "long words", start + b'["' + b"word " * 79_000 + b'"]}'
    yield "escapes", start + b'["' + rb"\u0000" * (SIZE // 6 - 50) + b'"]}'
    yield "emoji", start + b'["' + "🙂".encode() * 90_000 + b'"]}'
    yield "half an emoji", start + rb'["\ud83d", "\ude42"]}'
    yield "marks", start + b'["' + "é̂̃".encode() * 60_000 + b'"]}'


@dataclass(frozen=True)
class Head:
    """What is sent before, or instead of, a body; ``pause`` is waited between its parts."""

    name: str
    parts: tuple[bytes, ...]
    pause: float = 0.0


LINE: Final = b"POST /v1/score HTTP/1.1\r\nhost: a\r\n"


def heads() -> Iterator[Head]:
    """Heads that are endless, many, broken or contradictory."""
    yield Head("nothing", ())
    yield Head("half a line", (b"POST /v1/sc",))
    yield Head("one endless value", (LINE + b"long: ", *[b"x" * 60_000] * 500))
    yield Head("endless lines", (LINE, *[b"name: " + b"x" * 6_000 + b"\r\n"] * 5_000))
    yield Head("endless names", (LINE, *[b"x" * 60_000] * 100))
    yield Head("many fields", (LINE + b"".join(b"h%d: 1\r\n" % n for n in range(100_000)) + b"\r\n",))
    yield Head("long path", (b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\n\r\n",))
    yield Head("long query", (b"GET /livez?" + b"x=1&" * 250_000 + b" HTTP/1.1\r\n\r\n",))
    yield Head("long method", (b"X" * 100_000 + b" / HTTP/1.1\r\n\r\n",))
    yield Head("path out of the root", (b"GET /../../etc/passwd HTTP/1.1\r\nhost: a\r\n\r\n",))
    yield Head("encoded path", (b"GET /%2e%2e/%00%ff HTTP/1.1\r\nhost: a\r\n\r\n",))
    yield Head("static path", (b"GET /static-offline-docs/../../x HTTP/1.1\r\nhost: a\r\n\r\n",))
    yield Head("not ASCII", ("GET /ü HTTP/1.1\r\nhost: a\r\n\r\n".encode(),))
    yield Head("two lengths", (LINE + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",))
    yield Head("length and chunks", (LINE + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",))
    yield Head("negative length", (LINE + b"content-length: -1\r\n\r\n",))
    yield Head("huge length", (LINE + b"content-length: 99999999999999999999\r\n\r\n",))
    yield Head("length in words", (LINE + b"content-length: two\r\n\r\n",))
    yield Head("wrong chunk", (LINE + b"transfer-encoding: chunked\r\n\r\nzz\r\n",))
    yield Head("huge chunk", (LINE + b"transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",))
    yield Head("long extension", (LINE + b"transfer-encoding: chunked\r\n\r\n2;", *[b"x" * 60_000] * 100))
    yield Head("endless trailers", (LINE + b"transfer-encoding: chunked\r\n\r\n0\r\n", *[b"a: b\r\n" * 1000] * 100))
    yield Head("tiny chunks", (LINE + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 300_000, b"0\r\n\r\n"))
    yield Head("upgrade", (LINE + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n",))
    yield Head("h2", (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",))
    yield Head("TLS", (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",))
    yield Head("zeros", (b"\0" * 100_000,))
    yield Head("old HTTP", (b"GET /livez\r\n\r\n",))
    yield Head("no version", (b"GET /livez HTTP\r\n\r\n",))
    yield Head("expect and stop", (LINE + b"expect: 100-continue\r\ncontent-length: 100\r\n\r\n",))
    yield Head("many requests at once", (b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n" * 20_000,))
    yield Head("long key", (LINE + b"authorization: Bearer " + b"x" * 30_000 + b"\r\ncontent-length: 2\r\n\r\n{}",))
    yield Head("wrong basic key", (LINE + b"authorization: Basic ====\r\ncontent-length: 2\r\n\r\n{}",))
    yield Head("slow bytes", tuple(bytes([byte]) for byte in b"POST /v1/score HTTP/1.1\r\n"), pause=0.01)
