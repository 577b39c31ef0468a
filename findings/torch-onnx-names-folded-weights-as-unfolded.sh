#!/usr/bin/env bash
# torch 2.13.0, torch.onnx.export with its default exporter: a weight with batchnorm folded in keeps the name of the
# parameter that it no longer is.
#
# Sequential(Linear(4, 3), BatchNorm1d(3)).eval() becomes one Gemm. Its initialisers are called 0.weight and 0.bias, as
# in state_dict, but hold the products with the batchnorm's factors; nothing in the file tells. Whoever matches
# initialisers with state_dict by name reads wrong weights of the right shape. The older exporter (dynamo=False) keeps
# the batchnorm and the weight as they were.
#
# Prints the nodes, the names, and whether 0.weight is the parameter, for both, and fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    "torch==2.13.0" "onnx==1.23.2" "onnxscript==0.7.2" "numpy>=2" 2> /dev/null
"$work/venv/bin/python" - "$work/net.onnx" 2> /dev/null <<'PY'
import sys

import numpy as np
import onnx
import torch
from onnx import numpy_helper

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).eval()
net[1].running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
net[1].running_var.copy_(torch.tensor([4.0, 9.0, 16.0]))
seen = {}
for dynamo in (True, False):
    torch.onnx.export(net, (torch.zeros(2, 4),), sys.argv[1], dynamo=dynamo, verbose=False)
    graph = onnx.load(sys.argv[1]).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    same = bool(np.allclose(arrays["0.weight"], net[0].weight.detach().numpy(), atol=1e-6))
    seen[dynamo] = [node.op_type for node in graph.node], same
    print(f"dynamo={dynamo}: {seen[dynamo][0]}, {sorted(arrays)}, 0.weight is the parameter: {same}", flush=True)
wanted = {True: (["Gemm"], False), False: (["Gemm", "BatchNormalization"], True)}
if seen != wanted:
    sys.exit("this has changed")
PY
