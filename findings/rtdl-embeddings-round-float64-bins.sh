#!/usr/bin/env bash
# rtdl_num_embeddings 0.0.12: edges of bins in float64 are kept in float32, so that places are off by whole bins.
#
# PiecewiseLinearEncoding and PiecewiseLinearEmbeddings take bins of any dtype, and keep 1/width and -edge/width of
# each bin in buffers that torch.zeros makes, in the default dtype. With float64 bins and inputs the result is
# float64, and nothing is raised; `.double()` comes too late. For the edges 1e9, 1e9 + 1, 1e9 + 2 the number
# 1e9 + 1.5 is in the middle of the second bin, and comes out as 1.5. Seconds since 1970 are such numbers. TabM's
# embedding is this one. torch.set_default_dtype(torch.float64) before the module is made avoids it.
#
# Prints the places both ways, and fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    "rtdl_num_embeddings==0.0.12" "torch==2.13.0" "numpy>=2" 2> /dev/null
"$work/venv/bin/python" - <<'PY'
import rtdl_num_embeddings
import torch

bins = [1e9 + torch.arange(3, dtype=torch.float64)]
x = torch.tensor([[1e9 + 1.5]], dtype=torch.float64)
found = rtdl_num_embeddings.PiecewiseLinearEncoding(bins).double()(x)
torch.set_default_dtype(torch.float64)
wanted = rtdl_num_embeddings.PiecewiseLinearEncoding(bins)(x)
print("float64 bins, .double():", found.dtype, found.tolist())
print("with torch.set_default_dtype(torch.float64):", wanted.tolist())
assert found.dtype == torch.float64 and found.tolist() == [[1.0, 1.5]], "this has changed"
assert wanted.tolist() == [[1.0, 0.5]], "this has changed"
PY
