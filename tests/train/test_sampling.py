"""fit(sampler=...): which rows are drawn, unbiased weights, hard examples, files, refusals."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError, StateDictError
from fastnet.train import sampling

RNG = np.random.default_rng(0)
N = 103
X = RNG.normal(size=(N, 3))
CODES = RNG.choice(3, N, p=[0.7, 0.2, 0.1])
Y = X @ np.array([[1.0], [-2.0], [0.5]]) + RNG.standard_t(2, (N, 1))
W = RNG.uniform(0.5, 2.0, N)
KINDS = {
    "balanced": fn.ClassBalanced,
    "importance": fn.ImportanceSampling,
    "hard": fn.HardExamples,
}


def trainer(backend="reference", loss=None, width=3, seed=2, dtype="float64", lr=0.05):
    model = fn.Sequential(
        fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, width), backend=backend, seed=1, dtype=dtype
    )
    return fn.Trainer(model, loss or fn.CrossEntropyLoss(), fn.SGD(lr), seed=seed)


def bits(made):
    return [value.tobytes() for value in made.model.state_dict().values()]


def scores(made):
    skipped = ("seconds", "samples_per_second")
    return [{k: v for k, v in r.items() if k not in skipped} for r in made.history.records]


def drawn(made, sampler, X=X, y=CODES, epochs=1, **options):
    """The rows and weights of each minibatch that a fit trains on, by what the executor gets."""
    found = []

    class Spy(fn.Callback):
        def on_train_begin(self):
            run = self.trainer._fitting.run
            load = run.load

            def spied(index, offsets, begin, end=None, *given, **named):
                last = len(offsets) - 1 if end is None else end
                for i in range(begin, last):
                    rows = index[offsets[i] : offsets[i + 1]].copy()
                    found.append((rows, None if run.data.w is None else run.data.w[rows]))
                return load(index, offsets, begin, end, *given, **named)

            run.load = spied

    made.fit(X, y, epochs, sampler=sampler, callbacks=[Spy()], verbose=0, **options)
    return found


@pytest.mark.parametrize("batch_size", [16, 200])
def test_every_class_has_an_equal_share(batch_size):
    minibatches = drawn(trainer(), fn.ClassBalanced(), epochs=6, batch_size=batch_size)
    rows = np.concatenate([rows for rows, _ in minibatches])
    assert len(rows) == 6 * N
    for epoch in rows.reshape(6, N):
        counts = np.bincount(CODES[epoch])
        assert sorted(counts) == [34, 34, 35]
        for c in range(3):
            times = np.bincount(epoch[CODES[epoch] == c], minlength=N)[c == CODES]
            assert np.ptp(times) <= 1
    assert np.bincount(CODES[rows]).tolist() == [206] * 3  # classes with a row more take turns
    assert len({epoch.tobytes() for epoch in rows.reshape(6, N)}) == 6
    assert len(set(rows[CODES[rows] == 0])) > 0.9 * (CODES == 0).sum()


def test_rows_without_a_class_are_left_out():
    y = np.where(np.arange(N) % 5 == 0, -100, CODES)
    loss = fn.CrossEntropyLoss(ignore_index=-100)
    rows = np.concatenate([r for r, _ in drawn(trainer(loss=loss), fn.ClassBalanced(), y=y)])
    assert len(rows) == N and (y[rows] >= 0).all()


def test_balanced_classes_of_a_binary_loss_and_with_a_split():
    truths = (CODES == 2).astype(int)
    made = trainer(loss=fn.BCEWithLogitsLoss(), width=1)
    rows = np.concatenate(
        [r for r, _ in drawn(made, fn.ClassBalanced(), y=truths, validation_split=0.2)]
    )
    assert len(rows) == 82 and np.bincount(truths[rows]).tolist() == [41, 41]
    assert len(np.unique(rows)) < 82


@pytest.mark.parametrize("kind", KINDS)
def test_equal_bits_for_an_equal_seed_and_other_rows_for_another(kind, backend):
    def fit(seed=2, **options):
        made = trainer(backend, seed=seed, dtype="float32")
        made.fit(X, CODES, 3, 16, sampler=KINDS[kind](), verbose=0, **options)
        return made

    assert bits(fit()) == bits(fit()) != bits(fit(3))
    if kind != "hard":
        unsampled = trainer(backend, dtype="float32")
        unsampled.fit(X, CODES, 3, 16, verbose=0)
        assert bits(unsampled) != bits(fit())
    reference = trainer("reference", dtype="float32")
    reference.fit(X, CODES, 3, 16, sampler=KINDS[kind](), verbose=0)
    for a, b in zip(scores(fit()), scores(reference), strict=True):
        assert a == pytest.approx(b, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_two_fits_are_one(kind):
    one, two = trainer(), trainer()
    one.fit(X, CODES, 4, 16, sampler=KINDS[kind](), verbose=0)
    for _ in range(2):
        two.fit(X, CODES, 2, 16, sampler=KINDS[kind](), verbose=0)
        two = copy.deepcopy(two)
    assert bits(one) == bits(two) and scores(one) == scores(two)
    one.reset()
    assert "sampler" not in one.state_dict()
    fresh = trainer()
    for made in (one, fresh):
        made.fit(X, CODES, 2, 16, sampler=KINDS[kind](), verbose=0)
    assert bits(one) == bits(fresh)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_goes_on_from_its_file(kind, tmp_path):
    whole = trainer()
    whole.fit(X, CODES, 4, 16, sampler=KINDS[kind](), verbose=0)
    part = trainer()
    part.fit(X, CODES, 2, 16, sampler=KINDS[kind](), verbose=0)
    part.save(tmp_path / "run")
    loaded = fn.Trainer.load(tmp_path / "run")
    loaded.model.to("reference")
    loaded.fit(X, CODES, 2, 16, sampler=KINDS[kind](), verbose=0)
    assert bits(loaded) == bits(whole)

    class Stop(Exception):
        pass

    def stop(made):
        class At(fn.Callback):
            def on_epoch_end(self, epoch, logs):
                if epoch == 3 and stopping:
                    raise Stop

        return At()

    stopping, path = True, tmp_path / "checkpoint"
    options = {"checkpoint": path, "checkpoint_every": "1 epochs", "verbose": 0}
    made = trainer()
    with pytest.raises(Stop):
        made.fit(X, CODES, 4, 16, sampler=KINDS[kind](), callbacks=[stop(made)], **options)
    stopping, made = False, trainer()
    made.fit(X, CODES, 4, 16, sampler=KINDS[kind](), callbacks=[stop(made)], **options)
    assert bits(made) == bits(whole) and len(made.history) == 4
    refused(
        lambda: trainer().fit(X, CODES, 4, 16, callbacks=[stop(made)], **options),
        HyperparameterError,
        "sampler",
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_that_stops_within_an_epoch_goes_on_where_it_can(kind, tmp_path):
    whole = trainer()
    whole.metrics = ["accuracy"]
    whole.fit(X, CODES, 4, 16, sampler=KINDS[kind](), verbose=0)

    class At(fn.Callback):
        def on_train_batch_end(self, batch, logs):
            if self.trainer.step == 18 and stopping:
                raise KeyboardInterrupt

    stopping = True
    options = {"checkpoint": tmp_path / "run", "checkpoint_every": "2 steps", "verbose": 0}
    if kind != "balanced":
        refused(
            lambda: trainer().fit(X, CODES, 4, 16, sampler=KINDS[kind](), **options),
            HyperparameterError,
            '^checkpoint_every is "2 steps" .* a sampler depends on losses',
        )
        options["checkpoint_every"] = "0.000001 s"
    for _ in range(2):
        made = trainer()
        made.metrics = ["accuracy"]
        try:
            made.fit(X, CODES, 4, 16, sampler=KINDS[kind](), callbacks=[At()], **options)
        except KeyboardInterrupt:
            stopping = False
    assert bits(made) == bits(whole) and scores(made) == scores(whole)


def test_resume_makes_the_sampler_again(tmp_path):
    whole = trainer()
    whole.fit(X, CODES, 3, 16, sampler=fn.ImportanceSampling(0.5), verbose=0)
    made = trainer()
    keep = fn.ModelCheckpoint(tmp_path / "run-{epoch}")
    made.fit(X, CODES, 3, 16, sampler=fn.ImportanceSampling(0.5), callbacks=[keep], verbose=0)
    loaded = fn.Trainer.load(
        tmp_path / "run-2", callbacks=[fn.ModelCheckpoint(tmp_path / "run-{epoch}")]
    )
    loaded.model.to("reference")
    loaded.resume(X, CODES, verbose=0)
    assert bits(loaded) == bits(whole)


@pytest.mark.parametrize("weight", [None, W], ids=["equal", "weighted"])
def test_the_expected_gradient_is_that_of_all_rows(weight):
    """The mean over many epochs, at fixed parameters, of the gradients of drawn and weighted rows."""
    made = trainer(loss=fn.MSELoss(), width=1, lr=0.0)
    epochs = 400
    minibatches = drawn(
        made, fn.ImportanceSampling(), y=Y, epochs=epochs + 1, batch_size=N, sample_weight=weight
    )[1:]
    model = made.model
    model.value_and_grad(fn.MSELoss(), X, Y, sample_weight=weight)
    full = np.concatenate([g.ravel() for g in model.grads.values()])
    each = []
    for rows, w in minibatches:
        model.value_and_grad(fn.MSELoss(), X[rows], Y[rows], sample_weight=w, weight_mean=1.0)
        each.append(np.concatenate([g.ravel() for g in model.grads.values()]))
    error = np.mean(each, axis=0) - full
    deviation = np.std(each, axis=0) / np.sqrt(epochs)
    assert (np.abs(error) < 4.5 * deviation + 1e-12).all() and deviation.max() > 0
    assert np.linalg.norm(error) < 0.02 * np.linalg.norm(full)


def test_probabilities_and_weights_are_the_formula():
    made = trainer(loss=fn.MSELoss(), width=1, lr=0.0)
    minibatches = drawn(made, fn.ImportanceSampling(0.3), y=Y, epochs=2, batch_size=16)
    losses = (made.model.predict(X) - Y)[:, 0] ** 2
    p = 0.7 * losses / losses.sum() + 0.3 / N
    first = np.concatenate([rows for rows, _ in minibatches[:7]])
    assert sorted(first) == [*range(N)]
    rows = np.concatenate([rows for rows, _ in minibatches[7:]])
    weights = np.concatenate([w for _, w in minibatches[7:]])
    np.testing.assert_allclose(weights, 1 / (N * p[rows]), rtol=1e-10)
    assert weights.max() <= 1 / 0.3
    counts = np.bincount(rows, minlength=N)
    assert (np.abs(counts - N * p) < 2).all() and counts.max() > 3
    estimate = made.history.records[1]["loss"]
    assert estimate == pytest.approx(losses.mean(), rel=0.3)
    np.testing.assert_allclose(made.state_dict()["sampler"]["losses"], losses, rtol=1e-10)


def test_draws_are_expected_as_often_as_their_probabilities_say():
    sampler, p = fn.ImportanceSampling(), RNG.dirichlet(np.full(20, 0.3))
    counts = [np.bincount(sampler.draw(p, 20, 5, epoch), minlength=20) for epoch in range(4000)]
    error = np.abs(np.mean(counts, axis=0) - 20 * p)
    assert (error < 0.04).all()
    np.testing.assert_allclose(sampler.probabilities(np.zeros(4)), 0.25)
    np.testing.assert_allclose(
        fn.ImportanceSampling(0.5).probabilities(np.array([-1.0, 1.0, np.nan])),
        0.5 * np.array([0, 2, 1]) / 3 + 0.5 / 3,
    )


def test_importance_sampling_lowers_the_variance_of_the_gradient():
    """Of a linear model with heavy-tailed errors, whose gradients grow with the loss."""

    def deviation(sampler, skip):
        made = trainer(loss=fn.MSELoss(), width=1, lr=0.0)
        minibatches = drawn(made, sampler, y=Y, epochs=40, batch_size=8, drop_last=True)[skip:]
        grads = []
        for rows, w in minibatches:
            w = np.ones(len(rows)) if w is None else w
            made.model.value_and_grad(
                fn.MSELoss(), X[rows], Y[rows], sample_weight=w, weight_mean=1.0
            )
            grads.append(np.concatenate([g.ravel() for g in made.model.grads.values()]))
        return np.sqrt(np.var(grads, axis=0).sum())

    assert deviation(fn.ImportanceSampling(), 12) < 0.85 * deviation(None, 12)


@pytest.mark.parametrize("weight", [None, W], ids=["equal", "weighted"])
def test_hard_examples_are_those_with_the_highest_losses(backend, weight):
    made = trainer(backend, loss=fn.MSELoss(), width=1, lr=0.0)
    minibatches = drawn(
        made, fn.HardExamples(0.3), y=Y, epochs=2, batch_size=20, sample_weight=weight
    )
    losses = (made.model.predict(X) - Y)[:, 0] ** 2 * (1 if weight is None else weight)
    plain = drawn(trainer(loss=fn.MSELoss(), width=1, lr=0.0), None, y=Y, epochs=2, batch_size=20)
    assert [len(rows) for rows, _ in minibatches] == [6, 6, 6, 6, 6, 1] * 2
    for (rows, _), (whole, _) in zip(minibatches, plain, strict=True):
        wanted = whole[np.argsort(-losses[whole])[: len(rows)]]
        assert set(rows) == set(wanted)
        assert [*rows] == [r for r in whole if r in set(rows)]  # in the minibatch's order
    epoch = np.concatenate([rows for rows, _ in minibatches[:6]])
    if weight is None:
        assert made.history.records[0]["loss"] == pytest.approx(losses[epoch].mean())


def test_hard_examples_are_chosen_at_the_parameters_of_their_step():
    made = trainer(loss=fn.MSELoss(), width=1)
    minibatches = drawn(made, fn.HardExamples(0.5), y=Y, batch_size=20)
    other = trainer(loss=fn.MSELoss(), width=1)
    plain = drawn(trainer(loss=fn.MSELoss(), width=1), None, y=Y, batch_size=20)
    for (rows, _), (whole, _) in zip(minibatches, plain, strict=True):
        losses = (other.model.predict(X[whole]) - Y[whole])[:, 0] ** 2
        assert set(rows) == set(whole[np.argsort(-losses)[: len(rows)]])
        other.train_on_batch(X[rows], Y[rows])
    assert bits(other) == bits(made)


def test_all_rows_are_a_fit_without_a_sampler(backend):
    one, two = trainer(backend), trainer(backend)
    one.fit(X, CODES, 2, 16, sampler=fn.HardExamples(1), verbose=0)
    two.fit(X, CODES, 2, 16, verbose=0)
    assert bits(one) == bits(two) and scores(one) == scores(two)
    one, two = trainer(backend), trainer(backend)
    one.fit(X, CODES, 1, 16, sampler=fn.ImportanceSampling(), verbose=0)
    two.fit(X, CODES, 1, 16, verbose=0)
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_batchnorm_has_the_rows_it_needs():
    model = fn.Sequential(fn.Linear(3, 4), fn.BatchNorm1d(4), fn.Linear(4, 3), seed=0)
    made = fn.Trainer(model, fn.CrossEntropyLoss(), seed=0)
    sizes = [len(r) for r, _ in drawn(made, fn.HardExamples(0.01), batch_size=20)]
    assert sizes == [2] * 6


@pytest.mark.parametrize("kind", KINDS)
def test_accumulated_steps_metrics_and_frames(kind):
    made = trainer()
    made.metrics = ["accuracy", "f1"]
    made.fit(
        X,
        CODES,
        2,
        16,
        sampler=KINDS[kind](),
        accumulation_steps=2,
        verbose=0,
        validation_split=0.2,
    )
    record = made.history.records[-1]
    assert 0 <= record["accuracy"] <= 1 and 0 <= record["f1"] <= 1 and "val_f1" in record


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.fit(X, CODES, sampler="hard"), "^sampler is 'hard'; expected None, ClassBal"),
        (lambda t: t.fit(X, CODES, sampler=fn.HardExamples), r"such as HardExamples\(\)$"),
        (lambda t: t.fit([(X, CODES)], sampler=fn.HardExamples()), "with minibatches"),
        (
            lambda t: t.fit(X, CODES, sampler=fn.ClassBalanced(), shuffle=False),
            "^sampler is ClassBalanced.. and shuffle is False",
        ),
    ],
)
def test_refusals(call, message):
    made = trainer()
    before = bits(made)
    refused(lambda: call(made), HyperparameterError, message)
    assert bits(made) == before and not made.step


def test_samplers_that_the_loss_does_not_serve():
    made = trainer(loss=fn.MSELoss(), width=1)
    refused(
        lambda: made.fit(X, Y, sampler=fn.ClassBalanced()), HyperparameterError, "y holds no labels"
    )

    def squares(y, t, w=None):
        return float(np.mean((y - t) ** 2)), 2 * (y - t) / y.size

    for kind in ("importance", "hard"):
        made = trainer(loss=squares, width=1)
        refused(
            lambda m=made, k=kind: m.fit(X, Y, sampler=KINDS[k]()),
            HyperparameterError,
            "^sampler is .*the loss is a Python function",
        )


def test_a_state_that_is_none_is_refused():
    made = trainer()
    made.fit(X, CODES, sampler=fn.ImportanceSampling(), verbose=0)
    state = made.state_dict()
    for bad in (3, {}, {"losses": "no"}, {"losses": np.ones((2, 2))}, {"others": [1.0]}):
        refused(
            lambda b=bad: made.load_state_dict({**state, "sampler": b}), StateDictError, "sampler"
        )
    made.load_state_dict(state)
    assert sampling.state_dict(None) == {}
