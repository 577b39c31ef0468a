#!/usr/bin/env bash
# torch 2.13.0: torch.optim.Muon's momentum is a moving average, its documentation shows a sum.
#
# The formula in the class's docstring is B_t = mu*B_(t-1) + g_t. The code computes
# B_t = mu*B_(t-1) + (1 - mu)*g_t. After the first step the buffer is 0.05*g for momentum 0.95, not g, and
# Nesterov's update is a mean of g and B. Whoever writes Muon from the page gets another optimizer.
#
# Prints the buffer after one and two steps of the gradient 1, and fails if that or the page changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "torch==2.13.0" "numpy>=2" 2> /dev/null
"$work/venv/bin/python" - <<'PY'
import torch

assert torch.__version__.startswith("2.13.0"), torch.__version__
w = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
muon = torch.optim.Muon([w], lr=0.1, momentum=0.95, weight_decay=0.0)
seen = []
for _ in range(2):
    w.grad = torch.ones_like(w)
    muon.step()
    seen.append(float(muon.state[w]["momentum_buffer"][0, 0]))
print("momentum_buffer:", seen, " a sum would be [1.0, 1.95]")
assert r"\mu B_{t-1} + g_t" in torch.optim.Muon.__doc__, "the page has changed"
assert abs(seen[0] - 0.05) < 1e-12 and abs(seen[1] - 0.0975) < 1e-12, "the code has changed"
PY
