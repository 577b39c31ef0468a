#!/usr/bin/env bash
# safetensors 0.8.0: the same arrays and metadata give files that differ from process to process.
#
# save and save_file sort arrays, but write the entries of `metadata` in the order of a hash table that is seeded anew
# in each process. So a file has other bytes, and another digest, each time it is written; caches and builds that
# compare files see a change where nothing has changed. A single entry, which holds all others as JSON, avoids it.
#
# Prints how many different files twenty processes write, and fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "safetensors==0.8.0" "numpy>=2" 2> /dev/null
cat > "$work/write.py" <<'PY'
import hashlib
import sys

import numpy
from safetensors.numpy import save

metadata = {name: "1" for name in sys.argv[1]}
print(hashlib.sha256(save({"a": numpy.zeros(3)}, metadata)).hexdigest())
PY
files() { for _ in $(seq 20); do "$work/venv/bin/python" "$work/write.py" "$1"; done | sort -u | wc -l; }
one=$(files x) several=$(files xyz)
echo "different files of 20 with one entry of metadata: $one"
echo "different files of 20 with three entries: $several"
[ "$one" = 1 ] && [ "$several" -gt 1 ] || { echo "this has changed"; exit 1; }
