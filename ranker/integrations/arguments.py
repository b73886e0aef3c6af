"""Arguments of the host library that an integration does not support raise an error that names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ranker.errors import ConfigError


def refuse(call: str, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that would change the result in the host library and are not supported here.

    None, False and 0 are the defaults of the host libraries and pass.

    Raises:
        ConfigError: naming them.
    """
    asked = [name for name, value in arguments.items() if value]
    if asked:
        raise ConfigError(f"{call} does not honour {', '.join(asked)}; leave it out, or use the library itself")
