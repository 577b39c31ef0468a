"""Packages that are not there, for tests of what fastnet says then."""

from __future__ import annotations

import sys
from typing import Any

# Modules of fastnet that have imported such a package.
LOADED = {"matplotlib": ["fastnet.plot.picture"]}


def hide(monkeypatch: Any, package: str) -> None:
    """Until the end of the test, importing the package fails, as where it is not installed."""
    for name in [*sys.modules]:
        if name == package or name.startswith(f"{package}.") or name in LOADED.get(package, ()):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
