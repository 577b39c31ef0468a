"""Arrays on a device: read where they are, results given out there, and a clear word elsewhere."""

from __future__ import annotations

import gc
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import fastnet as fn
from fastnet.backends.cuda import dlpack

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3))
Y = RNG.integers(0, 2, size=12)

on_cuda = [
    pytest.mark.contract,
    pytest.mark.skipif(
        not fn.backends()["cuda"].available, reason="needs a device or the simulator"
    ),
]


class Elsewhere:
    """What says that it lies on a device, as PyTorch's and CuPy's arrays do; for the simulator."""

    def __init__(self, array, read_only=False):
        self.array = np.ascontiguousarray(array)
        self.__cuda_array_interface__ = {
            "data": (self.array.ctypes.data, read_only),
            "shape": self.array.shape,
            "typestr": self.array.dtype.str,
            "strides": None,
            "version": 3,
        }


class DLPackAlone:
    """What says by DLPack alone that it lies on a device, type 2; for the simulator."""

    def __init__(self, array, versioned=True):
        self.array, self.versioned, self.streams = array, versioned, []

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, *, stream=None, **version):
        if version and not self.versioned:
            raise TypeError
        self.streams.append(stream)
        capsule = self.array.__dlpack__(**version)
        self.tensor(capsule).device = 2
        return capsule

    def tensor(self, capsule):
        name, kind = (
            (b"dltensor_versioned", dlpack._Versioned)
            if self.versioned
            else (b"dltensor", dlpack._Managed)
        )
        self.managed = kind.from_address(dlpack._pointer(capsule, name))
        return self.managed.tensor


class Newer(DLPackAlone):
    """Of a version that is not known yet."""

    def tensor(self, capsule):
        tensor = super().tensor(capsule)
        self.managed.major = 2
        return tensor


class OnTheHost(DLPackAlone):
    """Says so only when it is read."""

    def tensor(self, capsule):
        super().tensor(capsule)
        return SimpleNamespace()


class Shifted(DLPackAlone):
    """Begins a row later, and says so by an offset; its rows are contiguous, which it need not say."""

    def tensor(self, capsule):
        tensor = super().tensor(capsule)
        tensor.byte_offset = self.array.strides[0]
        tensor.shape[0] -= 1
        tensor.strides = None
        return tensor


def net(backend):
    layers = fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Tanh(), fn.Linear(4, 2)
    return fn.Sequential(*layers, dtype="float64", backend=backend, seed=1)


@pytest.fixture
def device():
    """Puts an array on the device, as Numba does it."""
    cuda = pytest.importorskip("numba.cuda")
    return lambda array: cuda.to_device(np.ascontiguousarray(array))


@pytest.mark.parametrize("value", [Elsewhere(X), DLPackAlone(X)])
def test_other_backends_refuse_them(value):
    model = net("reference")
    for call in (model.predict, model.forward, lambda x: fn.Trainer(model, fn.MSELoss()).fit(x, X)):
        with pytest.raises(
            fn.errors.DataError, match=r"[xX] lies on a CUDA device and the model's"
        ):
            call(value)
    with pytest.raises(fn.errors.DataError, match="y lies on a CUDA device"):
        model.value_and_grad(fn.MSELoss(), X, value)
    with pytest.raises(fn.errors.DataError, match="x lies on a CUDA device; expected an array in"):
        model[0].forward(value)


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int64", "bool"])
def test_what_dlpack_says(dtype, versioned):
    whole = np.ones((4, 6), dtype)
    for array in (
        whole,
        whole[1:3],
        whole.T,
        whole[:, ::2],
        whole[:, :1],
        whole[:1, ::3],
        whole[:0],
    ):
        given = DLPackAlone(array, versioned)
        interface = dlpack.View(given).__cuda_array_interface__
        assert interface["data"] == (array.ctypes.data, False) and given.streams == [1]
        assert (interface["shape"], interface["typestr"]) == (array.shape, array.dtype.str)
        assert (interface["strides"] is None) == array.flags.c_contiguous
        assert interface["strides"] in (None, array.strides)
    interface = dlpack.View(Shifted(whole, versioned)).__cuda_array_interface__
    assert interface["data"][0] == whole[1:].ctypes.data and interface["strides"] is None
    assert interface["shape"] == (3, 6)
    if versioned:
        whole.flags.writeable = False
        assert dlpack.View(DLPackAlone(whole)).__cuda_array_interface__["data"][1]


def test_memory_that_dlpack_gave_is_given_back():
    array = np.ones(3)
    before = sys.getrefcount(array)
    for versioned in (True, False):
        given = DLPackAlone(array, versioned)
        holding = sys.getrefcount(array)
        view = dlpack.View(given)
        assert sys.getrefcount(array) > holding
        del view
        assert sys.getrefcount(array) == holding
    for given, why in [(Newer(array), "it speaks DLPack 2"), (OnTheHost(array), "of type 1")]:
        with pytest.raises(BufferError, match=why):
            dlpack.View(given)
    del given
    gc.collect()
    assert sys.getrefcount(array) == before


class TestOnTheDevice:
    pytestmark = on_cuda

    def test_outputs_and_gradients_stay_there(self, device):
        model, twin = net("cuda"), net("reference")
        dy = RNG.normal(size=(12, 2))
        y, dx = model.forward(device(X)), None
        dx = model.backward(device(dy))
        assert not isinstance(y, np.ndarray) and not isinstance(dx, np.ndarray)
        np.testing.assert_allclose(y.copy_to_host(), twin.forward(X), rtol=1e-9)
        np.testing.assert_allclose(dx.copy_to_host(), twin.backward(dy), rtol=1e-9)
        for name, g in model.grads.items():
            np.testing.assert_allclose(g, twin.grads[name], rtol=1e-9, atol=1e-13)
        out = device(np.zeros((12, 2)))
        assert model.forward(device(X), out=out) is out
        np.testing.assert_allclose(out.copy_to_host(), twin.forward(X), rtol=1e-9)

    @pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
    def test_prediction(self, device, dtype):
        model, twin, x = net("cuda"), net("reference"), np.abs(10 * X).astype(dtype)
        want = twin.predict(x)
        out = device(np.zeros((12, 2)))
        assert model.predict(device(x), out=out) is out
        for found in (out, model.predict(device(x)), model.predict(device(x), batch_size=5)):
            np.testing.assert_allclose(found.copy_to_host(), want, rtol=1e-9)

    def test_training(self, device):
        models = net("cuda"), net("reference")
        for model, move in zip(models, (device, np.asarray), strict=True):
            trainer = fn.Trainer(model, fn.CrossEntropyLoss(), fn.SGD(0.1), seed=2)
            given = (move(X), move(Y), move(np.ones(12)))
            trainer.fit(
                *given[:2], batch_size=6, verbose=0, validation_data=given, sample_weight=given[2]
            )
            model.value_and_grad(fn.CrossEntropyLoss(), *given[:2])
        for name, value in models[0].state_dict().items():
            np.testing.assert_allclose(value, models[1].state_dict()[name], rtol=1e-9, atol=1e-13)

    def test_what_it_refuses(self, device):
        model, bad = net("cuda"), X.copy()
        bad[3, 1] = np.inf
        for x, error, match in [
            (bad, fn.errors.DataError, "x holds values that are NaN, infinite"),
            (X[:, :2], fn.errors.ShapeError, r"x has shape \(12, 2\), expected \(n, 3\)"),
            (X.astype(np.int32), fn.errors.DataError, "x has dtype int32; expected float32"),
        ]:
            with pytest.raises(error, match=match):
                model.predict(device(x))
        with pytest.raises(fn.errors.ShapeError, match="out is float32 of shape"):
            model.predict(device(X), out=device(np.zeros((12, 2), np.float32)))
        with pytest.raises(fn.errors.DataError, match="x cannot be read on the device: it speaks"):
            model.predict(Newer(X))
        with pytest.raises(fn.errors.DataError, match="out is read-only"):
            model.predict(device(X), out=Elsewhere(np.zeros((12, 2)), read_only=True))

    def test_the_array_interface(self, device):
        """In the simulator, a device's address is one of the host's."""
        there = device(X)
        if simulated := not hasattr(there, "__cuda_array_interface__"):
            there = Elsewhere(X)
        theirs = SimpleNamespace(__cuda_array_interface__=there.__cuda_array_interface__)
        found = net("cuda").predict(theirs)
        assert simulated or hasattr(found, "__cuda_array_interface__")
        np.testing.assert_allclose(found.copy_to_host(), net("reference").predict(X), rtol=1e-9)

    def test_dlpack(self, device):
        theirs = DLPackAlone(X)
        if hasattr(device(X), "__cuda_array_interface__"):  # no simulator
            torch = pytest.importorskip("torch")
            if not torch.cuda.is_available():
                pytest.skip("PyTorch was built without CUDA")
            there = torch.as_tensor(X, device="cuda")
            names = "__dlpack__", "__dlpack_device__"
            theirs = SimpleNamespace(**{name: getattr(there, name) for name in names})
        found = net("cuda").predict(theirs)
        np.testing.assert_allclose(found.copy_to_host(), net("reference").predict(X), rtol=1e-9)
