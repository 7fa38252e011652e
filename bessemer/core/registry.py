"""A registry that discovers one folder of modules in sorted order, refuses duplicates, and freezes."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to entries. `package` is imported, module by module, the first time anything is looked up."""

    def __init__(self, what: str, package: str) -> None:
        self.what, self.package = what, package
        self._entries: dict[str, T] = {}
        self._frozen = False

    def add(self, name: str, entry: T) -> T:
        """Register `entry`; a duplicate name or a late registration is a RuntimeError."""
        if self._frozen:
            raise RuntimeError(f"{self.what} {name!r} registered after discovery of {self.package} ended")
        if name in self._entries:
            raise RuntimeError(f"{self.what} {name!r} is registered twice")
        self._entries[name] = entry
        return entry

    def discover(self) -> Mapping[str, T]:
        """Import every module of the package (recursively, sorted) once, freeze, and return all entries."""
        if not self._frozen:
            root = importlib.import_module(self.package)
            for module in sorted(pkgutil.walk_packages(root.__path__, self.package + "."), key=lambda m: m.name):
                importlib.import_module(module.name)
            self._frozen = True
        return self._entries

    def get(self, name: str) -> T:
        """The entry called `name`; KeyError lists near names."""
        entries = self.discover()
        if name not in entries:
            raise KeyError(f"unknown {self.what} {name!r}; known: {', '.join(sorted(entries))}")
        return entries[name]

    def __contains__(self, name: str) -> bool:
        return name in self.discover()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.discover()))
