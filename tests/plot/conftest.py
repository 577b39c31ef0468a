"""What plots need."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")
