"""Training steps on a device, enqueued again as they were: call by call, or as one CUDA graph."""

from __future__ import annotations

import copy
import importlib
from collections import defaultdict
from contextlib import nullcontext
from functools import cache
from types import SimpleNamespace

import numpy as np
import on_cuda
import pytest

import fastnet as fn
from fastnet.optim.averaging import average
from fastnet.schedules import ExponentialLR
from fastnet.train import scores

pytestmark = on_cuda.MARKS

RNG = np.random.default_rng(0)
X = RNG.normal(size=(11, 3))
LABELS = RNG.integers(0, 2, size=11)
WEIGHTS = RNG.uniform(size=11)


def between(*layers, backend="cuda"):
    return fn.Sequential(fn.Linear(3, 4), *layers, fn.Linear(4, 2), backend=backend, seed=1)


# A model's inner layers, a trainer's options and those of its fit.
CASES = {
    "sgd": ([fn.ReLU()], {"optimizer": fn.SGD(ExponentialLR(0.1, 0.9), 0.9)}, {}),
    "draws": (
        [fn.BatchNorm1d(4), fn.NoisyReLU(), fn.Dropout(0.3)],
        {"optimizer": fn.SGD(0.1, 0.9, nesterov=True)},
        {"sample_weight": WEIGHTS},
    ),
    "accumulation": (
        [fn.Tanh(), fn.Dropout(0.3)],
        {"optimizer": fn.RMSprop(0.01, momentum=0.5), "clip_norm": 0.5, "averaging": fn.EMA(0.5)},
        {"accumulation_steps": 2, "epochs": 3},
    ),
    "groups": (
        [fn.PReLU()],
        {
            "optimizer": fn.AdamW(
                0.05, l1=0.01, max_norm=1.0, groups=[{"params": "0.*", "lr": 0.01}]
            ),
            "clip_value": 0.1,
        },
        {},
    ),
}
cases = pytest.mark.parametrize("case", CASES)


@pytest.fixture(autouse=True)
def long_chunks(monkeypatch):
    monkeypatch.setattr(scores, "CHUNK_SECONDS", 1e6)


@pytest.fixture
def training():
    return importlib.import_module("fastnet.backends.cuda.training")


@pytest.fixture
def graphs():
    return importlib.import_module("fastnet.backends.cuda.graphs")


def fit(case, backend="cuda"):
    """What some epochs of minibatches of 3, 3, 3 and 2 rows make: everything, by name."""
    layers, options, more = copy.deepcopy(CASES[case])
    model = between(*layers, backend=backend)
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), seed=2, **options)
    trainer.fit(X, LABELS, **{"epochs": 2, "batch_size": 3, "verbose": 0, **more})
    state = model.optimizer_state(trainer.optimizer)
    found = {**model.state_dict(), **{f"grads.{n}": g for n, g in model.grads.items()}}
    found |= {f"state.{name}": vector for name, vector in state.vectors.items()}
    for name in ("loss", "accuracy"):
        found[name] = np.array([record[name] for record in trainer.history.records])
    if trainer._chain.averaged:
        found["average"] = trainer._chain.extras(model).vector(average, "average")
    return {name: np.array(value) for name, value in found.items()}


@cache
def usual(case):
    """The same, as steps are enqueued again call by call."""
    return fit(case)


def same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def anew(monkeypatch, training):
    """From now on, let every step be enqueued anew; returns the calls of each by what they depend on."""
    key, kept = training._Chunk.key, training.Step

    def unique(chunk, s):
        last.append(key(chunk, s))
        return object()

    def noted(calls, used):
        seen[last[-1]].append(plain(calls))
        return kept(calls, used)

    last, seen = [], defaultdict(list)
    monkeypatch.setattr(training._Chunk, "key", unique)
    monkeypatch.setattr(training, "Step", noted)
    return seen


def plain(calls):
    return [(call, *map(value_of, arguments)) for call, arguments in calls]


def value_of(argument):
    """An argument as a kernel sees it."""
    if not hasattr(argument, "copy_to_device"):
        return argument
    host = getattr(argument, "_ary", argument)  # the simulator's
    place = getattr(host, "__array_interface__", None) or host.__cuda_array_interface__
    return place["data"][0], tuple(argument.shape), argument.dtype


@cases
def test_steps_of_a_kind_have_the_same_launches_and_give_the_same_bits(monkeypatch, training, case):
    seen = anew(monkeypatch, training)
    found = fit(case)
    kinds = sorted(len(steps) for steps in seen.values())
    assert max(kinds) >= 2 and len(kinds) >= 3  # minibatches of 3 and of 2 rows, updates or none
    for first, *others in seen.values():
        assert len(first) > 12
        for other in others:
            assert other == first
    same(usual(case), found)


@cases
def test_they_agree_with_the_reference(case):
    for name, value in fit(case, "reference").items():
        found = usual(case)[name]
        np.testing.assert_allclose(found, value, rtol=1e-3, atol=1e-5, err_msg=name)


def test_a_step_neither_copies_nor_asks_for_room(monkeypatch, training):
    anew(monkeypatch, training)
    cuda = importlib.import_module("fastnet.backends.cuda.device").cuda
    step, array = training._Chunk.step, type(cuda.device_array(1))

    def refused(*_, **__):
        raise AssertionError("within a step")

    def watched(chunk, s, begin=0, *, looks=False):
        if looks:
            return step(chunk, s, begin, looks=True)
        with monkeypatch.context() as patch:
            patch.setattr(cuda, "to_device", refused)
            patch.setattr(cuda, "device_array", refused)
            for name in ("copy_to_device", "copy_to_host"):
                patch.setattr(array, name, refused)
            steps.append(step(chunk, s))
        return 0

    steps = []
    model = between(fn.BatchNorm1d(4), fn.PReLU(), fn.Dropout(0.3))
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(), seed=2, clip_norm=0.5)
    trainer.fit(X, LABELS, 2, batch_size=4, verbose=0)
    monkeypatch.setattr(training._Chunk, "step", watched)
    trainer.fit(X, LABELS, batch_size=4, verbose=0)
    assert len(steps) == 2


def test_steps_of_another_data_set_are_others(training):
    model = between(fn.ReLU())
    twin = between(fn.ReLU(), backend="reference")
    for one in (model, twin):
        trainer = fn.Trainer(one, fn.CrossEntropyLoss(), fn.SGD(0.1), seed=2)
        trainer.fit(X, LABELS, batch_size=3, verbose=0)
        trainer.fit(-X, 1 - LABELS, batch_size=3, verbose=0)
        trainer.optimizer.lr = 0.2
        trainer.fit((abs(X) * 10).astype(np.uint8), LABELS, batch_size=3, verbose=0)
    for name, value in twin.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    kept = [dict(e._chunks._kept) for e in model._runtime.kept.executors.values()]
    assert len(kept) == 1 and kept == [{}]  # forgotten with their data


class Driver:
    """What a capture asks of a driver; a graph is the calls that came, and is launched by making them."""

    def __init__(self, real, failing):
        self._real, self.failing = real, failing
        self.log, self.graph, self.count = [], None, 0
        self.queue = None  # the last one used, the model's
        self.functions = SimpleNamespace(
            cuStreamBeginCapture=self.begin,
            cuStreamEndCapture=self.end,
            cuGraphGetNodes=self.nodes,
            cuGraphInstantiate=self.instantiate,
            cuGraphDestroy=self.destroy,
            cuGraphLaunch=self.launch,
            cuGraphExecDestroy=self.forget,
        )

    def _called(self, name):
        self.log.append(name)
        if self.failing == name or self.failing == f"{name} {self.log.count(name)}":
            raise RuntimeError(f"no {name}")

    def launch_now(self, queue, *arguments):
        if queue is SIDE:
            assert self.graph is not None
            self._called("kernel")
            self.graph.append(arguments)
        else:
            assert self.graph is None
            self.queue = queue
            self._real(queue, *arguments)

    def begin(self, handle, mode):
        assert (handle, mode) == (SIDE.handle, "mine") and self.graph is None
        self._called("begin")
        self.graph = []

    def end(self, handle):
        assert handle == SIDE.handle
        graph, self.graph = self.graph, None
        self._called("end")
        return graph

    def nodes(self, graph):
        return [], 0 if self.failing == "count" else len(graph) + 1

    def instantiate(self, graph, flags):
        assert flags == 0
        self._called("instantiate")
        return tuple(graph)

    def destroy(self, graph):
        assert isinstance(graph, list)
        self._called("destroy")

    def launch(self, graph, handle):
        assert handle == self.queue.handle
        self._called("launch")
        for arguments in graph:
            self._real(self.queue, *arguments)

    def forget(self, graph):
        self._called("forget")


SIDE = SimpleNamespace(handle=7)


@pytest.fixture
def driver(request, monkeypatch, graphs):
    """A driver for graphs, one of whose functions may fail; its graphs are for the simulator's launches."""
    device = importlib.import_module("fastnet.backends.cuda.device")
    if not device.SIMULATOR:
        pytest.skip("needs the simulator")
    made = Driver(device.launch_now, getattr(request, "param", None))
    monkeypatch.setattr(device, "launch_now", made.launch_now)
    monkeypatch.setattr(type(device.cuda.stream()), "handle", 3, raising=False)
    modes = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL="mine")
    later = SimpleNamespace(add_item=lambda end, handle: end(handle))
    context = SimpleNamespace(deallocations=later)
    names = {
        "SIMULATOR": False, "_failure": None, "_told": False,
        "_side": lambda: SIDE, "_driver": lambda: made.functions,
        "_binding": lambda: SimpleNamespace(CUstreamCaptureMode=modes),
        "cuda": SimpleNamespace(defer_cleanup=nullcontext, current_context=lambda: context),
    }  # fmt: skip
    for name, value in names.items():
        monkeypatch.setattr(graphs, name, value)
    return made


@cases
def test_on_a_device_steps_are_graphs(monkeypatch, graphs, case):
    if graphs.SIMULATOR:
        pytest.skip("needs a device")
    made, launch = set(), graphs._Graph.launch
    monkeypatch.setattr(graphs._Graph, "launch", lambda *a: (made.add(a[0]), launch(*a)))
    found = fit(case)
    assert len(made) >= 2 and graphs._failure is None
    monkeypatch.setenv(graphs.VARIABLE, "0")
    same(fit(case), found)


@cases
def test_graphs_of_steps_give_the_same_bits(driver, case):
    same(fit(case), usual(case))
    captures = driver.log.count("begin")
    assert captures >= 1 and driver.log.count("launch") >= captures + 1
    for name in ("end", "instantiate", "destroy", "forget"):  # those of a fit go with its data
        assert driver.log.count(name) == captures, name


FAILURES = [
    "begin", "kernel 1", "kernel 9", "end", "count", "instantiate", "destroy", "launch", "launch 3",
]  # fmt: skip


@pytest.mark.parametrize("driver", FAILURES, indirect=True)
def test_where_graphs_fail_kernels_are_launched_as_before(driver):
    expected = r"cannot be used here: .*FASTNET_CUDA_GRAPHS=0"
    with pytest.warns(RuntimeWarning, match=expected) as told:
        same(fit("sgd"), usual("sgd"))
    assert len(told) == 1 and driver.graph is None
    assert driver.log.count("begin") == 1 + (driver.failing == "launch 3")  # and none after that


def test_graphs_are_not_tried_where_the_environment_says_so(driver, monkeypatch):
    monkeypatch.setenv("FASTNET_CUDA_GRAPHS", "0")
    same(fit("sgd"), usual("sgd"))
    assert not driver.log


@pytest.mark.parametrize("fails", [False, True])
def test_products_are_captured_with_the_room_of_their_stream(monkeypatch, fails):
    cublas = importlib.import_module("fastnet.backends.cuda.cublas")
    log, own = [], SimpleNamespace(handle=3)

    def stream(_, pointer):
        log.append(pointer.value)
        return int(fails and log.count(3) == 2)

    library = SimpleNamespace(
        cublasCreate_v2=lambda _: 0,
        cublasSetStream_v2=stream,
        cublasSetWorkspace_v2=lambda _, place, size: log.append((place.value, size.value)) or 0,
    )
    monkeypatch.setattr(cublas, "_library", lambda: library)
    monkeypatch.setattr(cublas, "_address", lambda _: 64)
    monkeypatch.setattr(cublas, "_handles", {})
    monkeypatch.setattr(cublas, "_workspace", lambda: 100)
    monkeypatch.delenv(cublas.TF32_VARIABLE, raising=False)
    handle, room = cublas.handle(own), (64, 100)
    expected = pytest.raises(fn.BackendUnavailable) if fails else nullcontext()
    with expected, cublas.moved(own, SIDE):
        assert cublas.handle(SIDE) is handle
    assert log == [3, room, 7, room, 3, room][: 5 if fails else 6]
    assert (cublas.handle(own) is handle) != fails
