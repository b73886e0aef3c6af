"""Arguments of the host library that an integration does not honour: refused by name, never swallowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ranker.errors import ConfigError


def refuse(call: str, others: Mapping[str, Any]) -> None:
    """Refuse arguments that would change the result in the host library and are not honoured here.

    Those that are None, False or 0, the host libraries' defaults, ask for nothing and pass.

    Raises:
        ConfigError: naming them.
    """
    asked = [name for name, value in others.items() if value]
    if asked:
        raise ConfigError(f"{call} does not honour {', '.join(asked)}; leave it out, or use the library itself")
