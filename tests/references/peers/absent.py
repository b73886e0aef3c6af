"""Stands in for packages that need CUDA to install: they import, and raise where they are called."""

from __future__ import annotations

import importlib.machinery
import sys
import types


class AbsentModule(types.ModuleType):
    """A module whose functions raise."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_: object, **__: object) -> object:
            raise RuntimeError(f"{self.__name__}.{name} was called, and {self.__name__} is not installed")

        return refuse


def absent(*names: str) -> None:
    """Let these modules import."""
    for name in names:
        module = AbsentModule(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        sys.modules[name] = module
