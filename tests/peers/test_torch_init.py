"""Gains, bounds and standard deviations of initialisers against torch.nn.init."""

from __future__ import annotations

import warnings

import pytest

from fastnet import init

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")

NAMES = ["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]
SLOPES = [0.0, 0.25, 1.0, 5**0.5, -0.5]
FANS = [(3, 7), (784, 128), (1, 1), (50, 50)]


@pytest.mark.parametrize("name", NAMES)
def test_gains(name):
    assert init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    if name == "leaky_relu":
        for slope in SLOPES:
            assert init.calculate_gain(name, slope) == torch.nn.init.calculate_gain(name, slope)


@pytest.fixture
def asked(monkeypatch):
    """What PyTorch would draw from: the last arguments of normal_ and uniform_."""
    last = {}
    for kind in ("normal_", "uniform_"):

        def draw(self, a, b, generator=None, kind=kind):
            last[kind] = (a, b)

        monkeypatch.setattr(torch.Tensor, kind, draw)
    return last


def check(asked, fans, theirs, uniform, normal, *arguments, **options):
    weight = torch.empty(fans[::-1])
    for which, mine in (("uniform_", uniform), ("normal_", normal)):
        getattr(torch.nn.init, f"{theirs}_{which}")(weight, *arguments, **options)
        low, high = asked.pop(which)
        wanted = high if which == "normal_" else high / 3**0.5
        assert low == (0 if which == "normal_" else -high)
        assert mine(*arguments, **options).std(*fans) == pytest.approx(wanted, rel=1e-15)


@pytest.mark.parametrize("fans", FANS)
def test_kaiming(asked, fans):
    makes = init.KaimingUniform, init.KaimingNormal
    for mode in ("fan_in", "fan_out"):
        for slope in SLOPES:
            check(asked, fans, "kaiming", *makes, slope, mode)
        for name in NAMES:
            check(asked, fans, "kaiming", *makes, mode=mode, nonlinearity=name)
    check(asked, fans, "kaiming", *makes)


@pytest.mark.parametrize("fans", FANS)
def test_xavier(asked, fans):
    makes = init.XavierUniform, init.XavierNormal
    for gain in (1.0, 4.0, *map(init.calculate_gain, NAMES)):
        check(asked, fans, "xavier", *makes, gain)
    check(asked, fans, "xavier", *makes)


def test_the_defaults_of_the_plain_ones_are_pytorchs(asked):
    weight = torch.empty(2, 2)
    torch.nn.init.uniform_(weight)
    torch.nn.init.normal_(weight)
    assert asked["uniform_"] == (init.Uniform().a, init.Uniform().b)
    assert asked["normal_"] == (init.Normal().mean, init.Normal().std)
