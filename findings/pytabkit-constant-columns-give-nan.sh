#!/usr/bin/env bash
# pytabkit 1.8.0: RealMLP_TD_Classifier answers NaN, without an error, where no column of the training varies.
#
# Its initial weights are divided by the standard deviation of their outputs on the training rows. Constant columns
# give constant outputs, a deviation of 0 and infinite weights. The fit ends as if nothing were wrong. The smaller
# RealMLP_TD_S_Classifier, whose weights are not scaled by data, predicts the shares of the classes.
#
# Prints the probabilities of both, and fails if the larger one's are numbers.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "pytabkit==1.8.0" 2> /dev/null
"$work/venv/bin/python" -W ignore - 2> /dev/null <<'PY'
import numpy as np
from pytabkit import RealMLP_TD_Classifier, RealMLP_TD_S_Classifier

X, y = np.ones((200, 2)), np.arange(200) % 4 // 3  # one in four is of class 1
found = []
for kind in (RealMLP_TD_S_Classifier, RealMLP_TD_Classifier):
    model = kind(n_epochs=3, random_state=0, n_threads=1)
    found.append(model.fit(X, y).predict_proba(X[:1])[0])
    print(kind.__name__, found[-1])
assert np.isfinite(found[0]).all() and np.isnan(found[1]).all(), "this has changed"
PY
