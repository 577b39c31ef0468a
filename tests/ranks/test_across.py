"""Fits on several ranks, here threads: bits, agreement with a plain fit, failures that all learn of."""

import warnings

import numpy as np
import pytest
from rank_cases import CASES, DTYPE, WEIGHTS, X, Y, fitted, net
from ranks import bits, on_ranks, values

import fastnet as fn
from fastnet import errors


@pytest.fixture(autouse=True)
def _small():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ ranks take longer")
        yield


@pytest.mark.parametrize("name", CASES)
def test_bits_are_equal_at_any_number_of_ranks(name):
    case, kept = CASES[name], set()
    for size in (1, 2, 3, 4):
        found = values(on_ranks(size, lambda comm: fitted(comm, case, deterministic=True)))
        kept |= {(bits(model), str(history)) for model, history in found}
    assert len(kept) == 1


@pytest.mark.parametrize("name", CASES)
def test_a_fit_is_that_of_one_process(name, monkeypatch):
    case = CASES[name]
    monkeypatch.setitem(DTYPE, "now", "float64")
    plain, records = fitted(None, case)
    for size, deterministic in ((3, False), (2, True)):
        found = values(on_ranks(size, lambda c, d=deterministic: fitted(c, case, deterministic=d)))
        assert len({bits(model) for model, _ in found}) == 1
        model, history = found[-1]
        for key, value in plain.state_dict().items():
            np.testing.assert_allclose(model.state_dict()[key], value, rtol=1e-6, atol=1e-9)
        assert history.keys() == records.keys()
        for key, value in records.items():
            np.testing.assert_allclose(history[key], value, rtol=1e-6, err_msg=key)


@pytest.mark.parametrize("on", ["c", "numba", "reference"])
def test_every_backend_of_the_host(on):
    case = {"model": lambda: net(fn.Dropout(0.3), backend=on)}
    plain, _ = fitted(None, case, epochs=1)
    model, _ = values(on_ranks(2, lambda comm: fitted(comm, case, epochs=1)))[1]
    for key, value in plain.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[key], value, rtol=1e-4, atol=1e-6)


def test_ranks_without_rows_and_of_one_row():
    case = {"fit": {"batch_size": 130}}  # the last minibatch has one row
    plain, _ = fitted(None, case)
    for deterministic in (False, True):
        found = on_ranks(3, lambda comm, d=deterministic: fitted(comm, case, deterministic=d))
        model, _ = values(found)[2]
        for key, value in plain.state_dict().items():
            np.testing.assert_allclose(model.state_dict()[key], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [5, 7, 12])
def test_bits_at_numbers_that_do_not_divide_the_parts(size):
    case = CASES["dropout"]
    (alone, _), *_ = values(on_ranks(1, lambda comm: fitted(comm, case, deterministic=True)))
    for model, _ in values(on_ranks(size, lambda comm: fitted(comm, case, deterministic=True))):
        assert bits(model) == bits(alone)


def test_the_trainer_says_once_where_one_rank_is_faster():
    def run(comm):
        trainer = fn.Trainer(net(), fn.CrossEntropyLoss(), comm=comm)
        trainer.fit(X, Y, epochs=30, batch_size=32, verbose=0)

    with pytest.warns(UserWarning, match="2 ranks take longer than one: of a step, the") as told:
        values(on_ranks(2, run))
    assert sum("ranks take longer" in str(one.message) for one in told) == 1


class Fails(fn.Callback):
    def __init__(self, comm, who, error):
        self.mine, self.error = comm.Get_rank() == who, error

    def on_epoch_end(self, epoch, logs):
        if self.mine and epoch == 2:
            raise self.error


def test_an_error_in_a_callback_ends_all_ranks_and_names_the_rank():
    def run(comm):
        return fitted(comm, {}, callbacks=[Fails(comm, 1, ValueError("mine"))])

    found = on_ranks(3, run)
    assert type(found[1]) is ValueError
    for other in (found[0], found[2]):
        assert type(other) is errors.RankError
        assert str(other) == "rank 1 of 3 has ended the training: ValueError: mine"


class Poison(fn.Callback):
    def __init__(self, comm, who):
        self.mine = comm.Get_rank() == who

    def on_epoch_end(self, epoch, logs):
        if self.mine and epoch == 2:
            self.trainer.model.bind().segments["params"][:4] = 255  # NaN


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_loss_that_is_nan_on_one_rank_ends_all_with_its_message(deterministic):
    def run(comm):
        return fitted(comm, {}, deterministic=deterministic, callbacks=[Poison(comm, 2)])

    found = on_ranks(3, run)
    assert [type(one) for one in found] == [fn.DivergenceError] * 3
    assert str(found[0]).startswith(
        "rank 2 of 3 has ended the training: the loss of step 10 is nan"
    )


def test_bad_data_on_one_rank_ends_all():
    def run(comm):
        x = X.copy()
        if comm.Get_rank() == 1:
            x[3, 4] = np.nan
        trainer = fn.Trainer(net(), fn.CrossEntropyLoss(), comm=comm)
        return trainer.fit(x, Y, verbose=0)

    found = on_ranks(2, run)
    assert type(found[1]) is errors.DataError
    assert str(found[0]).startswith("rank 1 of 2 has ended the training: X")


class Validated(fn.Callback):
    """The rows that this rank evaluates, and whether its scores are those of one process."""

    def on_epoch_end(self, epoch, logs):
        trainer = self.trainer
        self.bounds = trainer._fitting.run._validation._offsets[[0, -1]].tolist()
        alone = trainer.evaluate(X, Y, sample_weight=WEIGHTS)
        self.equal = all(logs[f"val_{name}"] == value for name, value in alone.items())


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("metrics", [{}, None, ["log_loss", "accuracy"]])
def test_each_rank_evaluates_its_share_of_validation_data(metrics, deterministic):
    def run(comm):
        trainer = fn.Trainer(
            net(fn.BatchNorm1d(24)),
            fn.CrossEntropyLoss(),
            metrics=metrics,
            comm=comm,
            deterministic=deterministic,
        )
        seen = Validated()
        given = {"validation_data": (X, Y, WEIGHTS), "callbacks": [seen], "verbose": 0}
        trainer.fit(X, Y, epochs=2, **given)
        return seen.bounds, seen.equal

    (first, equal), *others = values(on_ranks(3, run))
    assert equal
    assert [first, *(bounds for bounds, _ in others)] == [[0, 43], [43, 87], [87, 131]]


def test_validation_data_that_differ_are_refused():
    def run(comm):
        trainer = fn.Trainer(net(), fn.CrossEntropyLoss(), comm=comm)
        rows = slice(comm.Get_rank(), 40)
        return trainer.fit(X, Y, validation_data=(X[rows], Y[rows]), verbose=0)

    for one in on_ranks(2, run):
        assert isinstance(one, errors.HyperparameterError)
        assert "validation_data of rank 1 is not that of rank 0: give the same rows" in str(one)


@pytest.mark.parametrize("validation", [True, False])
def test_a_metric_that_raises_on_one_rank_ends_all(validation):
    def run(comm):
        def metric(y, output):
            if comm.Get_rank() == 1 and (len(y) == 40) == validation:
                raise ValueError("mine")
            return 0.0

        trainer = fn.Trainer(net(), fn.CrossEntropyLoss(), metrics={"own": metric}, comm=comm)
        trainer.fit(X, Y, validation_data=(X[:40], Y[:40]), verbose=0)

    found = on_ranks(2, run)
    assert type(found[1]) is ValueError
    assert str(found[0]) == "rank 1 of 2 has ended the training: ValueError: mine"


def test_a_state_that_differs_is_refused():
    def run(comm):
        trainer = fn.Trainer(net(), fn.CrossEntropyLoss(), comm=comm)
        trainer.epoch = comm.Get_rank()
        return trainer.fit(X, Y, epochs=2, verbose=0)

    for one in on_ranks(2, run):
        assert isinstance(one, errors.HyperparameterError)
        assert "rank 1" in str(one)


def test_parameters_and_seeds_of_rank_0_are_those_of_all():
    def run(comm):
        model = fn.Sequential(fn.Linear(10, 3))  # a seed of its own
        trainer = fn.Trainer(model, fn.CrossEntropyLoss(), comm=comm)
        trainer.fit(X, Y, verbose=0)
        return bits(model), trainer.seed

    assert len(set(values(on_ranks(3, run)))) == 1


def test_one_rank_stops_all():
    class Stops(fn.Callback):
        def on_epoch_end(self, epoch, logs):
            if self.trainer.epoch == 2 and self.trainer._group.rank == 1:
                self.trainer.stop_training = True

    found = values(on_ranks(3, lambda comm: fitted(comm, {}, epochs=5, callbacks=[Stops()])))
    assert [history["epoch"] for _, history in found] == [[1, 2]] * 3


def test_only_rank_0_prints_and_writes(tmp_path, capsys):
    def run(comm):
        log = fn.CSVLogger(tmp_path / f"{comm.Get_rank()}.csv")
        fitted(comm, {}, callbacks=[log], verbose=1, checkpoint=tmp_path / f"{comm.Get_rank()}.st")

    values(on_ranks(2, run))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.csv", "0.st"]
    assert capsys.readouterr().out.count("epoch 1/3") == 1


def test_a_checkpoint_goes_on_at_another_number_of_ranks(tmp_path):
    def run(comm, path, epochs):
        model, history = fitted(
            comm, {}, deterministic=True, epochs=epochs, checkpoint=tmp_path / path
        )
        return bits(model), str(history)

    (straight, *_) = values(on_ranks(3, lambda comm: run(comm, "straight", 4)))
    values(on_ranks(2, lambda comm: run(comm, "stopped", 2)))
    found = values(on_ranks(4, lambda comm: run(comm, "stopped", 4)))
    assert set(found) == {straight}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"comm": 3}, "comm is 3, which lacks Allreduce"),
        ({"deterministic": True}, "deterministic is True without comm"),
        ({"sync_batchnorm": True}, "sync_batchnorm is True without comm"),
    ],
)
def test_wrong_arguments(given, message):
    with pytest.raises(errors.HyperparameterError, match=message):
        fn.Trainer(net(), fn.CrossEntropyLoss(), **given)


@pytest.mark.parametrize(
    ("case", "data", "message"),
    [
        ({"loss": lambda: lambda output, y: (0.0, output)}, (X, Y), "which Python computes"),
        ({}, ([(X, Y)], None), "X gives minibatches"),
        ({"fit": {"sampler": fn.ClassBalanced()}}, (X, Y), "sampler"),
    ],
)
def test_what_cannot_be_shared_is_refused_on_all_ranks(case, data, message):
    def run(comm):
        loss = case.get("loss", fn.CrossEntropyLoss)()
        trainer = fn.Trainer(net(), loss, comm=comm)
        trainer.fit(*data, verbose=0, **case.get("fit", {}))

    for one in on_ranks(2, run):
        assert isinstance(one, errors.FastnetError)
        assert message in str(one)


def test_a_step_of_one_rank_alone_is_refused():
    def run(comm):
        trainer = fn.Trainer(net(), fn.CrossEntropyLoss(), comm=comm)
        with pytest.raises(errors.UsageError, match="train_on_batch makes a step of this process"):
            trainer.train_on_batch(X, Y)

    values(on_ranks(2, run))


def test_a_copy_trains_alone():
    import copy

    def run(comm):
        trainer = fn.Trainer(net(), fn.CrossEntropyLoss(), seed=1, comm=comm, deterministic=True)
        trainer.fit(X, Y, verbose=0)
        calls = comm.calls
        copy.deepcopy(trainer).fit(X, Y, verbose=0)
        return comm.calls - calls

    assert values(on_ranks(2, run)) == [0, 0]


COUNTS = ((131,), (60, 71), (1, 100, 30), (50, 0, 81), (0, 131))


def sharded(comm, counts, *, epochs=2, weights=None, x=X, y=Y, **more):
    end = np.cumsum(counts)[comm.Get_rank()]
    own = slice(end - counts[comm.Get_rank()], end)
    model = net(*more.pop("layers", ()))
    given = {"loss": fn.CrossEntropyLoss(), "seed": 1, "comm": comm, **more.pop("trainer", {})}
    trainer = fn.Trainer(model, optimizer=fn.SGD(0.1), **given)
    weights = None if weights is None else weights[own]
    fit = {"batch_size": 131, "verbose": 0, **more}
    history = trainer.fit(x[own], y[own], epochs=epochs, sample_weight=weights, sharded=True, **fit)
    return model, history.history


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("counts", COUNTS)
def test_shards_of_any_size_make_the_whole_minibatch(counts, weights, monkeypatch):
    monkeypatch.setitem(DTYPE, "now", "float64")
    plain = net()
    trainer = fn.Trainer(plain, fn.CrossEntropyLoss(), fn.SGD(0.1))
    records = trainer.fit(X, Y, epochs=2, batch_size=131, sample_weight=weights, verbose=0).history
    found = values(on_ranks(len(counts), lambda comm: sharded(comm, counts, weights=weights)))
    assert len({bits(model) for model, _ in found}) == 1
    model, history = found[-1]
    for key, value in plain.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[key], value, rtol=1e-6, atol=1e-9)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(history[name], records[name], rtol=1e-6)


def test_each_row_of_a_shard_comes_once_an_epoch():
    from fastnet.train.shares import ShardShares

    for counts in ([7, 0, 30], [1, 1], [100]):
        shares = [ShardShares(rank, counts, 8) for rank in range(len(counts))]
        assert sum(shares[0].sizes) == sum(counts)
        assert max(shares[0].sizes) <= 8 + len(counts)
        for one, count in zip(shares, counts, strict=True):
            assert one.index(np.arange(count), np.zeros(1), False).tolist() == list(range(count))


def test_dropout_of_shards_draws_by_the_place_in_the_minibatch(monkeypatch):
    monkeypatch.setitem(DTYPE, "now", "float64")
    layers = {"layers": (fn.Dropout(0.4),), "shuffle": False}
    (whole, _), *_ = values(on_ranks(1, lambda c: sharded(c, (131,), **dict(layers))))
    layers["layers"] = (fn.Dropout(0.4),)
    (parts, _), *_ = values(
        on_ranks(3, lambda c: sharded(c, (30, 1, 100), layers=(fn.Dropout(0.4),), shuffle=False))
    )
    for key, value in whole.state_dict().items():
        np.testing.assert_allclose(parts.state_dict()[key], value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"validation_split": 0.1}, "sharded is True with validation_split"),
        ({"class_weight": "balanced"}, "sharded is True with"),
        ({"drop_last": True}, "sharded is True with"),
        ({"trainer": {"deterministic": True}}, "sharded is True with deterministic=True"),
        ({"layers": "batchnorm", "batch_size": 2}, "batchnorm by rank needs 2"),
    ],
)
def test_what_needs_all_rows_is_refused_with_shards(given, message):
    def run(comm):
        layers = (fn.BatchNorm1d(24),) if "layers" in given else ()
        return sharded(comm, (60, 71), **{**given, "layers": layers})

    for one in on_ranks(2, run):
        assert isinstance(one, errors.FastnetError)
        assert message in str(one)


def test_labels_that_differ_between_shards_are_refused():
    names = np.array(["a", "b", "c"])[np.minimum(np.arange(131) // 50, 2)]
    for one in on_ranks(2, lambda comm: sharded(comm, (50, 81), y=names)):
        assert isinstance(one, errors.FastnetError)
        assert "label" in str(one)


def test_sharded_needs_comm():
    with pytest.raises(errors.HyperparameterError, match="sharded is True without comm"):
        fn.Trainer(net(), fn.CrossEntropyLoss()).fit(X, Y, sharded=True)


def test_a_memory_map_that_all_ranks_read(tmp_path):
    np.save(tmp_path / "X.npy", X)

    def run(comm):
        model = net()
        trainer = fn.Trainer(model, fn.CrossEntropyLoss(), seed=1, comm=comm, deterministic=True)
        trainer.fit(np.load(tmp_path / "X.npy", mmap_mode="r"), Y, verbose=0)
        return bits(model)

    assert len({*values(on_ranks(1, run)), *values(on_ranks(3, run))}) == 1
