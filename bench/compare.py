"""Two runs compared: every ratio that fell by more than 15 % is named; exits with 1 where one did.

python bench/compare.py old.json new.json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from fastnet.terminal import show
from tables import ratios

ALLOWED = 0.15


def falls(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """The ratios that fell by more than is allowed: before and now."""
    before, now = ratios.of_all(old), ratios.of_all(new)
    both = {name: (before[name], now[name]) for name in before if name in now}
    return {name: (b, n) for name, (b, n) in both.items() if n < (1 - ALLOWED) * b}


def main() -> int:
    """Print; the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("old")
    parser.add_argument("new")
    options = parser.parse_args()
    old, new = (json.loads(Path(p).read_text(encoding="utf-8")) for p in (options.old, options.new))
    for what in ("machine", "versions"):
        if old[what] != new[what]:
            show(f"note: the {what} differ: {old[what]} / {new[what]}")
    was_on, is_on = (ratios.on_a_gpu(results).get("device") for results in (old, new))
    if was_on and is_on and was_on != is_on:
        show(f"note: the GPU differs: {was_on} / {is_on}")
    before, now = ratios.of_all(old), ratios.of_all(new)
    gone = before.keys() - now.keys()
    if gone:
        print(f"note: {len(gone)} ratios of the old run are not in the new one")
    fell = falls(old, new)
    for name, (was, is_now) in sorted(fell.items(), key=lambda item: item[1][1] / item[1][0]):
        show(f"FELL by {1 - is_now / was:.0%}  {name}: {was:.3g} to {is_now:.3g}")
    print(f"{len(before.keys() & now.keys())} ratios compared, {len(fell)} fell by more than 15 %")
    return 1 if fell else 0


if __name__ == "__main__":
    sys.exit(main())
