"""Limits of requests, and the keys that may send them."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ranker.errors import ConfigError


class Limits(BaseModel):
    """Bounds of one request and of the server; ``ranker serve --limit name=value`` sets one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    payload_limit: int = Field(2 << 20, ge=1024, description="bytes of a body; beyond, 413")
    max_client_batch_size: int = Field(512, ge=1, le=65_536, description="groups of one request; beyond, 422")
    candidates: int = Field(256, ge=1, le=65_536, description="of one group; beyond, 422")
    readings: int = Field(
        32_768,
        ge=1,
        description="rows that the model reads for one request: candidates, or ordered pairs of them; beyond, 422",
    )
    characters: int = Field(400_000, ge=1, description="of one text; beyond, 422")
    queue_items: int = Field(4096, ge=1, description="groups that may wait; beyond, 429")
    queue_seconds: float = Field(
        1.0,
        gt=0,
        description="seconds that a request may wait for others, or 16 times what it takes itself; beyond, 429",
    )
    request_timeout_s: float = Field(
        30.0, gt=0, description="seconds from a request's body to its response, and for the body; beyond, 503 and 408"
    )
    drain_seconds: int = Field(30, gt=0, description="seconds to finish accepted requests after SIGTERM")
    max_concurrent_requests: int = Field(
        1024, ge=1, description="requests at once, including waiting ones; beyond, 429"
    )
    max_connections: int = Field(
        4096, ge=16, description="open connections; beyond, the one that has sent nothing whole for longest is closed"
    )
    head_timeout_s: float = Field(10.0, gt=0, description="seconds for a request's head; beyond, 408")
    head_limit: int = Field(32 << 10, ge=1024, description="bytes of a request's head; beyond, 431")


class UnprocessableError(Exception):
    """422: the body is valid JSON but cannot be scored.

    Args:
        where: the field at fault, as names and indices from the top of the body: ``["items", 3]``.
        reason: what was expected and what came.
        status: another status, where the server whose route it is has another.
    """

    def __init__(self, where: Sequence[str | int], reason: str, status: int = 422) -> None:
        super().__init__(reason)
        self.where = ["body", *where]
        self.reason = reason
        self.status = status


class Keys:
    """API keys, kept as hashes and compared in constant time."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._hashes = [hashlib.sha256(key.encode()).digest() for key in keys]

    @classmethod
    def read(cls, path: str | None, environment: str | None) -> Keys:
        """Keys of a file and of an environment variable.

        Args:
            path: a file with one key per line; lines that start with ``#`` are comments.
            environment: the variable's value: keys, separated by commas.

        Raises:
            ConfigError: the file is missing or holds no key.
        """
        keys = [key.strip() for key in (environment or "").split(",") if key.strip()]
        if path is not None:
            try:
                lines = Path(path).read_text(encoding="utf-8").splitlines()
            except OSError as error:
                raise ConfigError(f"{path}: expected a file with one API key a line ({error.strerror})") from error
            file_keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
            if not file_keys:
                raise ConfigError(f"{path}: expected a file with one API key a line, found none")
            keys += file_keys
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def allow(self, authorization: str | None) -> bool:
        """Whether an ``Authorization`` header holds one of the keys; without keys everyone is allowed.

        The header is ``Bearer KEY``, or a browser's ``Basic`` with any name and the key as password.
        """
        if not self._hashes:
            return True
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() == "basic":
            key = _password(key)
        digest = hashlib.sha256(key.strip().encode()).digest()
        # Compare all keys, so that the time does not depend on which one matches.
        matches = [hmac.compare_digest(digest, key_hash) for key_hash in self._hashes]
        return scheme.lower() in ("bearer", "basic") and any(matches)


def _password(credentials: str) -> str:
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def check_host(host: str, keys: Keys, insecure: bool) -> None:
    """Refuse to listen beyond this machine without a key.

    Raises:
        ConfigError: another host than loopback, no key and no ``--insecure``.
    """
    if host not in ("127.0.0.1", "::1", "localhost") and not keys and not insecure:
        raise ConfigError(
            f"--host {host} is reachable from other machines; give keys (--api-keys FILE or RANKER_API_KEYS), or "
            "--insecure"
        )
