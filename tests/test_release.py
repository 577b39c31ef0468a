"""What a release is made of: pinned actions, the changelog's version, the platforms of wheels."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import fastnet as fn

ROOT = Path(__file__).parents[1]
WORKFLOW = (ROOT / ".github/workflows/release.yml").read_text("utf-8")


def test_actions_are_pinned_and_only_the_last_job_may_publish():
    uses = re.findall(r"uses: (\S+)(.*)", WORKFLOW)
    assert len(uses) > 5
    wrong = [
        name
        for name, rest in uses
        if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name) or not re.match(r" # v\d", rest)
    ]
    assert wrong == []
    before, publish = WORKFLOW.split("\n  publish:\n")
    assert "id-token" not in before and publish.count("id-token: write") == 1
    assert "secrets." not in WORKFLOW and "\npermissions: {}\n" in WORKFLOW


def test_the_changelog_begins_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(r"^## (\S+?),", text, re.MULTILINE)[1] == fn.__version__


def test_wheels_are_for_the_stable_abi_and_for_free_threaded_python():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    tag = config["scikit-build"]["wheel"]["py-api"]
    first, *others = config["cibuildwheel"]["build"]
    assert first == f"{tag}-*" and others and all(one.endswith("t-*") for one in others)


def test_cibuildwheel_builds_for_two_processors_and_two_libraries_of_c():
    if (program := shutil.which("cibuildwheel")) is None:
        pytest.skip("cibuildwheel is not installed")
    command = [program, "--platform", "linux", "--archs", "x86_64 aarch64"]
    done = subprocess.run(
        [*command, "--print-build-identifiers", str(ROOT)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = {tuple(line.split("-")[1:]) for line in done.stdout.split()}
    assert found == {
        (f"{c}_{processor}",)
        for c in ("manylinux", "musllinux")
        for processor in ("x86_64", "aarch64")
    }
