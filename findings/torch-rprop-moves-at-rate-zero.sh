#!/usr/bin/env bash
# torch 2.13.0: torch.optim.Rprop with lr=0 soon trains at full speed.
#
# lr is the size of the first step only. The size is clamped to step_sizes, whose least is 1e-6, and from there
# it grows by etas[1] at each step with an unchanged sign, up to 50. A group with lr=0, the usual way to hold
# parameters still, is 45,000 away after 1,000 steps.
#
# Prints a parameter after 1, 2 and 1,000 steps of the gradient 1, and fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "torch==2.13.0" "numpy>=2" 2> /dev/null
"$work/venv/bin/python" - <<'PY'
import torch

assert torch.__version__.startswith("2.13.0"), torch.__version__
w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
rprop = torch.optim.Rprop([w], lr=0.0, etas=(0.5, 1.2), step_sizes=(1e-6, 50.0))
seen = []
for step in range(1000):
    w.grad = torch.ones_like(w)
    rprop.step()
    if step + 1 in (1, 2, 1000):
        seen.append(w.item())
print("w after 1, 2 and 1,000 steps at lr=0:", seen)
assert seen[0] == -1e-6 and abs(seen[1] + 2.2e-6) < 1e-12 and seen[2] < -45_000, "this has changed"
PY
