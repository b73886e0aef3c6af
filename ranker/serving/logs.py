"""What a server logs: lines of text, or one JSON object per line for collectors of logs."""

from __future__ import annotations

import json
import logging
import time
from typing import Any, Final, Literal
from urllib.parse import quote

LogFormat = Literal["text", "json"]

ACCESS: Final = logging.getLogger("ranker.access")
SERVER: Final = logging.getLogger("ranker.server")

FIELDS: Final = "fields"
"""The attribute of a log record that holds the fields of its JSON object."""


class JSONLines(logging.Formatter):
    """A record as a JSON object: ``time`` (UTC), ``level``, ``logger``, ``message``, its fields, and a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=True, default=str)


def configure(log_format: LogFormat, access: bool) -> None:
    """Set the form of all logs of the process, and whether every request has a line."""
    SERVER.setLevel(logging.INFO)
    ACCESS.setLevel(logging.INFO if access else logging.WARNING)
    if log_format == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JSONLines())


def request(method: str, path: str, route: str, status: int, seconds: float, client: str) -> None:
    """Log a request that was answered; texts of its body are never logged."""
    if ACCESS.isEnabledFor(logging.INFO):
        path = quote(path)  # one that holds a line break would write a line of its own
        fields = {"method": method, "path": path, "route": route, "status": status, "client": client}
        fields["seconds"] = round(seconds, 4)  # type: ignore[assignment]
        ACCESS.info("%s %s %d %.0f ms", method, path, status, 1000 * seconds, extra={FIELDS: fields})


def event(message: str, **fields: Any) -> None:
    """Log the start or the end of the server."""
    SERVER.info(message, extra={FIELDS: fields})
