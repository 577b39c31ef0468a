"""The number of threads: where it comes from, and that no result depends on it."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
import time

import child
import numpy as np
import pytest

import fastnet as fn
from fastnet import parallel
from fastnet.backends import executor

COUNTS = [1, 2, 3, 4, 8]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(263, 21)).astype(np.float32)
LABELS = RNG.integers(0, 5, size=263)


@pytest.fixture(autouse=True)
def _as_before():
    before = parallel.count
    yield
    forget(before)


def forget(count=0):
    """Let the process have been asked for no number of threads yet, or for this one."""
    parallel._settings[-1].n = parallel.count = count


@pytest.fixture
def shared(monkeypatch):
    """Work of any size is shared."""
    monkeypatch.setattr(executor, "WORK_TO_SHARE", 0)


needs_c = pytest.mark.skipif(not fn.backends()["c"].available, reason="needs the C backend")


def net(dtype="float32"):
    widths = (21, 130, 33)
    layers: list[fn.Layer] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [fn.Linear(inputs, outputs), fn.BatchNorm1d(outputs), fn.Tanh(), fn.Dropout(0.3)]
    return fn.Sequential(*layers, fn.Linear(33, 5), backend="c", dtype=dtype, seed=1)


def trained(dtype="float32", epochs=4):
    """The net after training, whose last minibatch of an epoch is smaller."""
    model = net(dtype)
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(0.01), seed=2)
    trainer.fit(X, LABELS, epochs=epochs, batch_size=64, verbose=0)
    return model


def digest(model):
    return hashlib.sha256(model.bind().segments["params"].tobytes()).hexdigest()


@needs_c
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_has_the_same_bits_for_any_number_of_threads(shared, dtype):
    found = {}
    for count in COUNTS:
        with fn.threads(count):
            found[count] = digest(trained(dtype))
    assert len(set(found.values())) == 1, found


@needs_c
def test_predictions_have_the_same_bits_for_any_number_of_threads(shared):
    model = trained()
    with fn.threads(1):
        expected = model.predict(X)
    for count in COUNTS:
        with fn.threads(count):
            np.testing.assert_array_equal(model.predict(X), expected)


@needs_c
def test_a_loop_of_ones_own_has_the_same_bits_for_any_number_of_threads(shared):
    found = set()
    for count in COUNTS:
        model, optimizer, loss = net(), fn.SGD(0.1, momentum=0.9), fn.CrossEntropyLoss()
        with fn.threads(count):
            for _ in range(5):
                output = model.forward(X)
                model.zero_grad()
                loss.forward(output, LABELS)
                model.backward(loss.backward())
                optimizer.step(model)
        found.add(digest(model))
    assert len(found) == 1


@needs_c
def test_a_team_is_really_at_work(shared):
    names = set()
    stop = threading.Event()

    def look():
        while not stop.is_set():
            for task in os.listdir("/proc/self/task"):
                try:
                    with open(f"/proc/self/task/{task}/comm", encoding="ascii") as file:
                        names.add((task, file.read().strip()))
                except OSError:
                    continue

    watcher = threading.Thread(target=look)
    watcher.start()
    with fn.threads(3):
        trained()
    stop.set()
    watcher.join()
    assert len([name for _, name in names if name == "fastnet"]) >= 2


@needs_c
def test_small_work_is_left_to_one_thread():
    code = """
import json, os
import numpy as np, fastnet as fn
model = fn.Sequential(fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 1), backend="c", seed=1)
x = np.zeros((8, 3), np.float32)
with fn.threads(4):
    fn.Trainer(model, fn.MSELoss()).fit(x, x[:, :1], epochs=3, verbose=0)
    model.predict(x)
names = [open(f"/proc/self/task/{t}/comm").read().strip() for t in os.listdir("/proc/self/task")]
print(json.dumps(names.count("fastnet")))
"""
    assert child.run(code) == 0


@needs_c
def test_threads_without_work_sleep(shared):
    with fn.threads(4):
        trained()
        time.sleep(0.01)  # they spin for 10 µs
        begun = time.process_time()
        time.sleep(0.2)
        assert time.process_time() - begun < 0.02


FORKS = """
import hashlib, json, os, sys, threading
import numpy as np, fastnet as fn
from fastnet.backends import executor

executor.WORK_TO_SHARE = 0
fn.set_num_threads(3)
rng = np.random.default_rng(0)
x, y = rng.normal(size=(96, 20)).astype("f"), rng.integers(0, 5, 96)

def train():
    layers = fn.Linear(20, 40), fn.BatchNorm1d(40), fn.ReLU(), fn.Linear(40, 5)
    model = fn.Sequential(*layers, backend="c", seed=1)
    fn.Trainer(model, fn.CrossEntropyLoss(), seed=2).fit(x, y, epochs=2, verbose=0)
    return hashlib.sha256(model.bind().segments["params"].tobytes()).hexdigest()[:16].encode()

expected = train()
stop = threading.Event()
def keep_busy():
    while not stop.is_set():
        train()
other = threading.Thread(target=keep_busy, daemon=True)
if sys.argv[2] == "busy":
    other.start()
same = 0
for _ in range(int(sys.argv[1])):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, train())
        os._exit(0)
    same += os.read(read, 64) == expected
    os.close(read), os.close(write)
    os.waitpid(pid, 0)
stop.set()
print(json.dumps(same + 1000 * (train() == expected)))
"""


@needs_c
@pytest.mark.parametrize(
    "trials", [pytest.param(10, id="10"), pytest.param(200, id="200", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("parent", ["idle", "busy"])
def test_a_child_of_a_fork_trains(trials, parent):
    """Trained in the parent, perhaps while another of its threads trains; trained again in the child."""
    assert child.run(FORKS, trials, parent) == 1000 + trials


@needs_c
@pytest.mark.parametrize(
    "times", [pytest.param(25, id="25"), pytest.param(1000, id="1000", marks=pytest.mark.slow)]
)
def test_python_threads_train_and_predict_side_by_side(shared, times):
    expected, outputs = digest(trained(epochs=1)), trained(epochs=1).predict(X)
    wrong = []

    def work():
        for _ in range(times):
            model = trained(epochs=1)
            if digest(model) != expected or not np.array_equal(model.predict(X), outputs):
                wrong.append(1)

    with fn.threads(3):
        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert wrong == []


CROWDED = """
import json, os, time
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
import numpy as np, fastnet as fn

rng = np.random.default_rng(0)
x, y = rng.normal(size=(256, 512)).astype("f"), rng.integers(0, 10, 256)

def trainer():
    layers = []
    for _ in range(4):
        layers += [fn.Linear(512, 512), fn.BatchNorm1d(512), fn.ReLU(), fn.Dropout(0.2)]
    model = fn.Sequential(*layers, fn.Linear(512, 10), backend="c", seed=1)
    return fn.Trainer(model, fn.CrossEntropyLoss(), seed=2)

trainers = {count: trainer() for count in (1, 8)}
times = {count: [] for count in trainers}
for _ in range(15):
    for count, t in trainers.items():
        with fn.threads(count):
            begun = time.perf_counter()
            t.fit(x, y, epochs=1, batch_size=128, verbose=0)
            times[count].append(time.perf_counter() - begun)
print(json.dumps(min(times[8]) / min(times[1])))
"""


@needs_c
@pytest.mark.slow
def test_many_more_threads_than_cores_do_little_harm():
    assert child.run(CROWDED) < 2


DEFAULT = "import json, fastnet; print(json.dumps(fastnet.get_num_threads()))"


def default(**variables):
    plain = dict.fromkeys(parallel.VARIABLES, "")
    return child.run(DEFAULT, **{**plain, **variables})


def test_the_number_comes_from_the_environment_or_the_cores():
    assert default(FASTNET_NUM_THREADS="3", OMP_NUM_THREADS="5") == 3
    assert default(OMP_NUM_THREADS="5,2") == 5
    assert default(OMP_NUM_THREADS="500") == parallel.MAX_THREADS
    assert 1 <= default() <= len(os.sched_getaffinity(0))


def test_the_number_fits_the_cores_that_the_process_may_use():
    one = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    assert child.run(one + DEFAULT, **dict.fromkeys(parallel.VARIABLES, "")) == 1


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_variable_that_is_no_number_is_named(text, monkeypatch):
    monkeypatch.setenv("FASTNET_NUM_THREADS", text)
    forget()
    with pytest.raises(fn.errors.HyperparameterError, match=f"FASTNET_NUM_THREADS is '{text}'"):
        fn.get_num_threads()
    model = fn.Sequential(fn.Linear(2, 1), backend="reference")
    with pytest.raises(fn.errors.HyperparameterError, match=f"FASTNET_NUM_THREADS is '{text}'"):
        model.forward(np.ones((1, 2)))  # however small the net is


@pytest.mark.parametrize("text", ["auto", "2.0", "0", "-1", ","])
def test_a_variable_of_others_is_passed_over_with_one_warning(text, monkeypatch):
    monkeypatch.delenv("FASTNET_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    forget()
    model = fn.Sequential(fn.Linear(2, 1), backend="reference")
    with pytest.warns(UserWarning, match=f"OMP_NUM_THREADS is '{text}'.*passed over") as told:
        model.forward(np.ones((1, 2)))
    assert len(told) == 1
    assert 1 <= fn.get_num_threads() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize("n", [0, -1, 65, 1.5, "2", None, True])
def test_a_wrong_number_changes_nothing(n):
    fn.set_num_threads(2)
    with pytest.raises(fn.errors.HyperparameterError, match="n is "):
        fn.set_num_threads(n)
    with pytest.raises(fn.errors.HyperparameterError, match="n is "), fn.threads(n):
        pass
    assert fn.get_num_threads() == 2


def test_threads_holds_within_its_block():
    fn.set_num_threads(2)
    with fn.threads(5):
        assert fn.get_num_threads() == 5
    with pytest.raises(ZeroDivisionError), fn.threads(5):
        1 / 0  # noqa: B018
    assert fn.get_num_threads() == 2


def test_threads_of_blocks_that_overlap_end_as_it_was_before_all_of_them():
    fn.set_num_threads(4)
    one, two, three = fn.threads(1), fn.threads(2), fn.threads(3)
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert fn.get_num_threads() == 2  # of the block that is open
    three.__enter__()
    three.__exit__(None, None, None)
    assert fn.get_num_threads() == 2
    two.__exit__(None, None, None)
    assert fn.get_num_threads() == 4


def test_a_number_that_is_set_within_a_block_ends_with_it():
    fn.set_num_threads(4)
    with fn.threads(2):
        fn.set_num_threads(3)
        with fn.threads(1):
            assert fn.get_num_threads() == 1
        assert fn.get_num_threads() == 3
    assert fn.get_num_threads() == 4


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/b/cpu.max": "150000 100000"}, 1.5),
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/cpu.max": "300000 100000"}, 3),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, np.inf),
        (
            {
                "proc/self/cgroup": "5:memory:/m\n4:cpu,cpuacct:/c",
                "sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "200000",
                "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/c",
                "sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000",
            },
            np.inf,
        ),
        ({}, np.inf),
    ],
)
def test_the_quota_of_a_control_group(files, cores, tmp_path):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert parallel._quota(str(tmp_path)) == cores


HELD = """
import os, threading, time
import numpy as np
import fastnet as fn
from fastnet import parallel
from fastnet.model import runtime
from fastnet.backends import registry

held = threading.Event()
def hold():
    with getattr(MODULE, "_lock"):
        held.set()
        time.sleep(0.5)
threading.Thread(target=hold).start()
held.wait()
pid = os.fork()  # while the other thread has the lock, which the child has no thread to release
if pid == 0:
    import signal
    signal.alarm(20)
    fn.get_num_threads()
    fn.Sequential(fn.Linear(2, 1), backend="reference").predict(np.ones((1, 2)))
    fn.backends()
    os._exit(0)
print(os.waitpid(pid, 0)[1])
"""


@pytest.mark.parametrize("module", ["parallel", "registry", "runtime"])
def test_a_fork_waits_for_whoever_has_a_lock(module):
    assert child.run(HELD.replace("MODULE", module)) == 0


CHILDREN = """
import os, signal, sys, threading, time
import numpy as np
import fastnet as fn

inside = threading.Event()

class Slow(fn.init.Initializer):
    def sample(self, shape, fan_in, fan_out, draw):
        inside.set()
        time.sleep(0.5)
        return np.ones(shape)

options = {"weight_init": Slow()} if sys.argv[1] == "first use" else {}
model = fn.Sequential(fn.Linear(3, 2, **options), backend="reference", seed=1)
x = np.ones((4, 3), "f")

def use():
    if sys.argv[1] == "first use":
        return model.predict(x)
    with model.edit() as p:
        p["0.weight"][:] = 2
        inside.set()
        time.sleep(0.5)

def fork(then):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        then()
        os._exit(0)
    return os.waitpid(pid, 0)[1]

def train():
    fn.Trainer(model, fn.MSELoss()).fit(x, x[:, :2], verbose=0)
    model.predict(x)

def refused():
    try:
        model.forward(x)
    except fn.errors.UsageError:
        return
    os._exit(1)

if sys.argv[1] == "own":
    with model.edit():  # which the thread of the child is in, too
        status = fork(refused)
else:
    other = threading.Thread(target=use)
    other.start()
    inside.wait()
    status = fork(train)
    other.join()
    train()
print(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("when", ["first use", "edit", "own"])
def test_a_child_of_a_fork_uses_a_model_that_another_thread_was_using(when):
    assert child.run(CHILDREN, when) == 0


IMPORTS = """
import json, sys
import numpy as np
import fastnet as fn

model = fn.Sequential(fn.Linear(3, 2), fn.BatchNorm1d(2), backend="reference", seed=1)
loss = fn.MSELoss()
before = set(sys.modules)
model.predict(np.ones((4, 3), "f"))
model.value_and_grad(loss, np.ones((4, 3)), np.ones((4, 2)))
new = [name for name in set(sys.modules) - before if not name.startswith("encodings.")]
print(json.dumps(sorted(new)))
"""


def test_the_first_use_of_a_model_imports_nothing():
    """A fork while another thread imports leaves the child with a module that is locked for good.

    What a program names, such as a loss, is imported where it names it.
    """
    assert child.run(IMPORTS) == []
