"""Sequential: a model that is compiled to plans, which a backend runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fastnet.backends import registry
from fastnet.backends.base import Counter, Counts
from fastnet.backends.executor import Executor
from fastnet.backends.passes import Passes
from fastnet.backends.steps import Steps, Update
from fastnet.builder import SYNCED
from fastnet.data import arrays, scaled
from fastnet.data.dataset import Dataset
from fastnet.data.labels import as_classes
from fastnet.data.lazy import LazyRows
from fastnet.data.sparse import SparseRows
from fastnet.errors import (
    DataError,
    HyperparameterError,
    ShapeError,
    UsageError,
    check_flag,
    check_int,
    check_kind,
    check_real,
)
from fastnet.interrupts import held_back
from fastnet.layers.batchnorm import BatchNorm1d
from fastnet.losses import links
from fastnet.losses.function import as_loss
from fastnet.model import head
from fastnet.model.container import Container
from fastnet.model.runtime import PREDICT_ROWS, Modes, Runtime, no_path
from fastnet.model.structure import Ending
from fastnet.model.ways import Way, Ways, step_way
from fastnet.op import Array, Op
from fastnet.plan.extras import Extras

if TYPE_CHECKING:
    from pathlib import Path

    from fastnet.losses.base import Loss
    from fastnet.losses.function import Function
    from fastnet.model.summary import Summary
    from fastnet.optim.optimizer import Optimizer, OptimizerState

MOST_ROWS = 2**40  # of a minibatch: more than fits into any memory


class Sequential(Container):
    """Layers applied one after the other.

    Its parameters and gradients lie in two flat vectors. Each call runs on the model's backend as a
    compiled plan, in one native call. A layer, or a Sequential used as a layer, belongs to one model only.

    layers: Layer or Sequential, at least one. A Sequential given as a layer contributes its layers with
        their values; dtype, backend, seed and precision are those of the outermost model. Raises
        ShapeError where a layer does not fit the width of its input.
    dtype: "float32" (default) or "float64", for parameters, outputs and arithmetic.
    backend: "auto" (default: c, else numba, else reference), "c", "numba", "reference" or "cuda"; see
        `to`.
    seed: integer in [0, 2⁶⁴) for initialisation and, in loops of your own, dropout (default None: a
        random one, see `seed`).
    precision: None (default) or "bfloat16", for dtype "float32" alone. The products of linear layers then
        round their operands to bfloat16, which has 8 significant bits (to nearest, ties to even), and add
        up in float32. Parameters, gradients, sums, norms, losses and the optimizer's state stay float32,
        as under PyTorch's autocast. A processor with instructions for bfloat16 trains a large net up to
        twice as fast. A first layer that reads the elements of sparse rows, gradients of single rows,
        products with directions and exported nets compute in float32.

    A new model is in training mode; `train()` and `eval()` switch the whole model or one layer. `predict`
    always works in evaluation mode.
    """

    def _start(self) -> None:
        super()._start()
        self._running: Runtime | None = None
        # The last forward, for its backward: executor, rows, version and step of random draws.
        self._pending: tuple[Executor, int, int, int] | None = None
        self._ways = Ways()

    def summary(self, batch_size: int = 32) -> Summary:
        """A table of layers, output shapes and parameters, with the bytes of each segment.

        batch_size: integer ≥ 1 (default 32). The workspace is that of training with so many rows.

        A model with precision "bfloat16" on the backend "c" has one more number: the bytes of the weights
        that each thread which predicts has rounded and packed.

        Returns a string, which a notebook shows as a table. It has characters that the standard output's
        encoding has, and backslash escapes for others.
        """
        batch_size = check_int("batch_size", batch_size, low=1, high=MOST_ROWS)
        shape, more = self.input_shape, dict[str, int]()
        if shape is not None:
            more["workspace"] = self._runtime.training_workspace(shape, batch_size)
            if packed := self._runtime.packed_bytes(shape):
                more["packed weights of a predicting thread"] = packed
        from fastnet.model.summary import summarize

        return summarize(self, shape, self.bind(), more)

    @property
    def backend(self) -> str:
        """The name of the backend that runs the model."""
        return self._runtime.backend.name

    def to(self, backend: str) -> Self:
        """Run on another backend from now on, by name or "auto"; returns the model itself.

        Works in place, as PyTorch's `to`: parameters, optimizers and trainers continue unchanged. Plans
        are compiled again when they are next needed, and a pending backward is refused. Raises
        BackendUnavailable and changes nothing where the backend cannot run here.
        """
        self._root("to")
        found = registry.get(backend)
        with self.training_lock(), self._first:
            self._given["backend"] = backend
            if self._running is not None and self._running.backend is not found:
                self._running = self._pending = None
                self._ways.clear()
        return self

    @property
    def _runtime(self) -> Runtime:
        if self._running is None:
            with self._first:
                if self._running is None:
                    backend = registry.get(self._given["backend"])
                    self._running = Runtime(self, self.bind(), backend)
        return self._running

    def forward(self, x: Any, out: Array | None = None) -> Array:
        """The output for x (n, …), a new array or `out`; keeps what `backward` needs.

        Each layer acts in its own mode. In training mode batchnorm moves its running statistics, and
        dropout draws by the model's seed and a counter of training forwards. A new forward invalidates
        the previous one. On backend "cuda" x may be an array on the device; then the output is one too.
        """
        way = self._ways.get("forward")
        if way is not None and way.is_open(self):
            by_way = self._forward_by(way, x, out)
            if by_way is not None:
                return by_way
        self._root("forward")
        x = self.features("x", x)
        there = arrays.on_device(x)
        shape = len(x), *self.output_shape(tuple(x.shape[1:]))
        result: Any = out if there else _check_out(out, shape, self.dtype)
        with self.training_lock():
            modes = self._modes()
            self._check_rows(len(x), modes)
            self._pending = None
            executor: Any = self._runtime.executor(tuple(x.shape[1:]), len(x), modes)
            step = self._draws
            try:
                if there:
                    result = executor.forward_on_device(x, self.seed, step, out)
                else:
                    np.copyto(result, executor.forward(x, self.seed, step))
            finally:  # Ctrl-C is raised only after statistics have moved
                self._count_training_forward(modes)
            self._pending = (executor, len(x), self.version, step)
            if way is None or way.executor is not executor or not way.is_open(self):
                self._make_ways(executor, modes)
            return result  # type: ignore[no-any-return]

    def _forward_by(self, way: Way, x: Any, out: Any) -> Array | None:
        """The same by a short way; None where it declines."""
        with self.training_lock():
            pending, self._pending = self._pending, None
            if out is None:
                rows = len(x) if type(x) is np.ndarray and x.ndim else 0
                out = np.empty((rows, *way.executor.plan.output_shape), self._dtype)
            step = self._draws
            if type(out) is not np.ndarray or not out.ndim or len(out) < way.more:
                self._pending = pending
                return None
            if not way.call(x, out, self.__dict__):
                self._pending = pending
                return None
            self._pending = (way.executor, len(out), way.version(), step)
            return out

    def _make_ways(self, executor: Any, modes: Modes) -> None:
        """Keep short ways for further forwards and backwards of this kind."""
        least = self.min_training_rows(respect_modes=True)
        if self._runtime.coded or not self._runtime.backend.native_calls:
            return
        call = executor.forward_call(self.seed, self._counters(modes))
        back = executor.backward_call(self.seed)
        self._ways.keep("forward", call and Way(self, call, executor, modes, least))
        self._ways.keep("backward", back and Way(self, back, executor))

    def _counters(self, modes: Modes) -> list[Counter]:
        """What a training forward counts (see _count_training_forward)."""
        found = []
        if any(modes):
            found.append(Counter(None, "_draws", Counts.DRAWS))
        if self._moves_buffers(modes):
            found.append(Counter(self.bind(), "version"))
        return found

    def backward(self, dy: Any) -> Array:
        """dL/dx for dL/dy (n, …) of the last forward; adds the parameters' gradients to `grads`.

        Raises UsageError without a forward of its own before it, and where parameters have changed since
        that forward.
        """
        way = self._ways.get("backward")
        if way is not None and way.is_open(self):
            dx = self._backward_by(way, dy)
            if dx is not None:
                return dx
        self._root("backward")
        with self.training_lock():
            if self._pending is None:
                raise UsageError(
                    "backward needs a forward before it, one for each backward; a later forward "
                    "replaces an earlier one"
                )
            executor, rows, version, step = self._pending
            shape = (rows, *executor.plan.output_shape)
            dy = self.features("dy", dy, shape[1:])
            if tuple(dy.shape) != shape:
                raise ShapeError(f"dy has shape {dy.shape}, expected the output's {shape}")
            self._pending = None
            if version != self.version:
                raise UsageError(
                    "parameters have changed since the forward; call forward again before backward"
                )
            if self._runtime.backend.native_calls:  # the forward may have gone a short way
                executor.resume(rows, self.seed, step)
            executor.backward(dy)
            dx = executor.input_gradient(rows)
            return dx if arrays.on_device(dx) else np.array(dx)

    def input_gradient(self, x: Any, output: Any = None) -> Array:
        """∂y_c/∂x of one output c for each row of x (n, …), in evaluation mode: an array of x's shape.

        output: integer in [0, k), the number c; integers (n,), one for each row; or None (default): the
            largest output of each row, which for logits is the predicted class's.

        It tells how much each input moves that output: absolute values are a saliency map. Gradients in
        `grads`, modes and statistics stay as they are. x is dense, in the host's memory.
        Source: K. Simonyan, A. Vedaldi, A. Zisserman, "Deep inside convolutional networks: visualising
        image classification models and saliency maps", 2013.
        """
        from fastnet.model import saliency

        return saliency.input_gradient(self, x, output)

    def _backward_by(self, way: Way, dy: Any) -> Array | None:
        """The same by a short way; None where it declines."""
        with self.training_lock():
            pending = self._pending
            if pending is None or type(dy) is not np.ndarray or not dy.ndim:
                return None
            executor, rows, version, step = pending
            if executor is not way.executor or len(dy) != rows or version != way.version():
                return None
            dx = np.empty((rows, *executor.plan.x_shape), self._dtype)
            self._pending = None
            if not way.call(dy, dx, step):
                self._pending = pending
                return None
            return dx

    def value_and_grad(
        self,
        loss: Loss | Function,
        x: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        weight_mean: float | None = None,
        accumulate: bool = False,
    ) -> float:
        """Loss and parameter gradients of one minibatch in one native call; returns the loss.

        loss: a loss, or a function (output, y) → (loss, dL/d-output), see FunctionLoss.
        sample_weight: (n,), finite and ≥ 0: the weight of each row, see Loss (default None: equal
            weights).
        weight_mean: number > 0, or None (default). A mean loss divides by the number of rows and by this
            number; None takes the mean weight of this minibatch, as PyTorch does. With the mean over the
            whole data of sample weight times class weight (0 for ignored rows), your own loop equals
            `fit`.
        accumulate: bool (default False). True adds the gradients to `grads`; False overwrites them.

        Layers act in their own modes, as in `forward`. A pending backward stays valid unless a layer moves
        its running statistics. Raises DivergenceError where the loss is not finite.
        """
        way = self._ways.get(id(loss))
        if (
            way is not None
            and way.more is loss
            and sample_weight is None
            and weight_mean is None
            and way.is_open(self)
        ):
            with self.training_lock():
                value: float | None = way.call(x, y, accumulate, self.__dict__)
            if value is not None:
                return value
        self._root("value_and_grad")
        loss, accumulate = as_loss(loss), check_flag("accumulate", accumulate)
        x = self.features("x", x)
        by_rows = weight_mean is not None
        if by_rows:
            weight_mean = check_real("weight_mean", weight_mean, low=0.0, open_low=True)
            if loss.reduction == "sum":
                raise HyperparameterError(
                    f"weight_mean is {weight_mean} for a loss with reduction='sum', which divides by "
                    "nothing; expected None"
                )
        data = self.data(
            loss, x, y, "x", "y", sample_weight, by_rows=by_rows, weight_mean=weight_mean
        )
        with self.training_lock():
            modes = self._modes()
            self._check_rows(len(x), modes)
            executor = self._trainable(tuple(x.shape[1:]), len(x), modes, loss, data)
            offsets, index = np.array([0, len(x)]), np.arange(len(x))
            steps = Steps(index, offsets, self.seed, self._draws, accumulate)
            try:
                losses = executor.train(data, steps, None)
            finally:
                self._count_training_forward(modes)
            plain = sample_weight is None and weight_mean is None
            if plain and (way is None or way.executor is not executor or not way.is_open(self)):
                least = self.min_training_rows(respect_modes=True)
                counted = self._counters(modes)
                made = step_way(self, executor, data, loss, least, counted, modes=modes, more=loss)
                self._ways.keep(id(loss), made)
            return float(losses[0])

    def jvp(self, x: Any, dx: Any = None, dparams: Any = None) -> tuple[Array, Array]:
        """The output y and its derivative ẏ along a direction, by forward mode: exact, in one native call.

        ẏ = (∂y/∂x)·ẋ + Σ_p (∂y/∂p)·ṗ. It takes about two forwards, or three with parameters,
        where backward needs one pass for each output.

        x: rows of inputs (n, …). dx: ẋ, of x's shape (default None: x does not move). dparams: ṗ by the
            names of `named_parameters` and in their shapes, for all that are not frozen (default None:
            parameters do not move). At least one of both is given.

        Returns (y, ẏ), new arrays (n, …) in the model's dtype. Layers act in their own modes, as in
        `forward`; in training mode dropout draws what the next training forward will draw. Nothing changes:
        neither draws nor running statistics, gradients or a pending backward. At a kink the derivative is
        the one that backward has. Raises UsageError for a CustomLayer, by its name.
        Source: A. Griewank, A. Walther, "Evaluating Derivatives", SIAM 2008, chapter 3.
        """
        from fastnet.model import curvature

        return curvature.jvp(self, x, dx, dparams)

    def hvp(
        self, loss: Loss | Function, X: Any, y: Any, v: Any, *, sample_weight: Any = None
    ) -> dict[str, Array]:
        """H·v: the Hessian of the loss of all rows with respect to the parameters, times a direction.

        loss: a loss. X, y, sample_weight: as for `value_and_grad`; rows may be many, as they are taken in
            blocks whose products are added in float64.
        v: arrays by the names of `named_parameters` and in their shapes, for all that are not frozen.

        Returns such arrays, in the model's dtype. The product is exact: the tangent of forward and
        backward, not a difference of gradients. It takes as long as two to three gradients. Layers act in
        their own modes; nothing changes, as for `jvp`. At a kink the curvature is 0, as in PyTorch. Raises
        UsageError for a loss that is a Python function, and for a CustomLayer, by its name.
        Source: B. Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6, 1994.
        """
        from fastnet.model import curvature

        return curvature.curvature_times(self, loss, X, y, v, sample_weight, gauss_newton=False)

    def gnvp(
        self, loss: Loss | Function, X: Any, y: Any, v: Any, *, sample_weight: Any = None
    ) -> dict[str, Array]:
        """G·v with the Gauss–Newton matrix G = Σ Jᵀ·H_L·J of the loss of all rows.

        J is the Jacobian of the outputs with respect to the parameters, and H_L the Hessian of the loss
        with respect to the outputs; of a LogSoftmax at the end, its inputs. For losses that are convex in
        these, G is positive semi-definite. For cross-entropy, binary cross-entropy with logits and squared
        error it is the Fisher matrix (of squared error, up to a factor).

        Arguments, result and errors are those of `hvp`.
        Source: N. Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent",
        Neural Computation 14, 2002.
        """
        from fastnet.model import curvature

        return curvature.curvature_times(self, loss, X, y, v, sample_weight, gauss_newton=True)

    def jacobian(self, x: Any, outputs: Any = None, *, wrt: str = "x") -> Any:
        """∂y_c/∂x of chosen outputs c for each row of x (n, …), or ∂y_c/∂θ, in evaluation mode: exact.

        outputs: the number c of an output in [0, k), or k′ such numbers; None (default): all. Those of rows
            with several dimensions are numbered row by row.
        wrt: "x" (default) or "parameters".

        Returns an array (n, k′, …) with the shape of a row of x at its end; or with wrt="parameters" a
        dict of such arrays, with the shapes of parameters, by the names of `named_parameters` for all that
        are not frozen. Both are new, in the model's dtype.

        The cheaper mode computes it: reverse mode takes a backward for each output, forward mode a tangent
        for each input. Many rows go through the model in one native call; with respect to parameters, each
        row and output in one of its own. Nothing changes: gradients in `grads`, modes and statistics stay
        as they are. x is dense, in the host's memory. Raises UsageError where an output depends on other
        rows: for BatchNorm1d without running statistics.
        Source: A. Griewank, A. Walther, "Evaluating Derivatives", SIAM 2008, chapter 3.
        """
        from fastnet.model import jacobian

        return jacobian.jacobian(self, x, outputs, wrt)

    def hessian(
        self,
        loss: Loss | Function,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        gauss_newton: bool = False,
    ) -> Array:
        """The Hessian of the loss of all rows with respect to the parameters: float64 (P, P), symmetric.

        loss, X, y, sample_weight: as for `hvp`. gauss_newton: True gives the matrix of `gnvp` (default
            False).

        Rows and columns are the elements of all parameters that are not frozen, in the order of
        `named_parameters` and each row by row; `fn.curvature.slices(model)` tells which are whose. It takes
        P products, with one forward and backward for all of them where activations of all rows fit into
        1 GiB. Raises UsageError, besides as `hvp` does, for more than 16384 parameters, whose matrix takes
        2 GiB.
        Source: B. Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6, 1994.
        """
        from fastnet.model import matrices

        return matrices.hessian(self, loss, X, y, sample_weight, gauss_newton)

    def fisher_diagonal(
        self,
        loss: Loss | Function,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        labels: str = "data",
    ) -> dict[str, Array]:
        """The diagonal of the Fisher matrix: Σ_i (∂l_i/∂θ)² of the losses l_i of single rows.

        loss, X, y, sample_weight: as for `hvp`. What the loss's reduction does to losses of rows happens to
            the squares in their place: a mean divides by what it divides the losses by, and a row with
            weight 2 counts like two equal rows.
        labels: "data" (default), the empirical Fisher matrix, with the targets y; "model", the Fisher
            matrix itself: the expectation for targets drawn from the distribution that the outputs tell.
            That is softmax's for CrossEntropyLoss and NLLLoss, a Bernoulli's for each output of
            BCEWithLogitsLoss and BCELoss, and for MSELoss and HalfMSELoss the normal distribution whose
            negative log-likelihood the loss is, up to a constant.

        Returns float64 arrays by the names of `named_parameters` and in their shapes, for all that are not
        frozen. Both are exact; "model" takes a gradient of each row for each class or output. Both agree
        only near a good fit: the empirical matrix is no approximation of the Hessian elsewhere. The other
        is the diagonal of `gnvp`'s matrix, but for two things that squares have twice: weights of classes,
        and the 1/k of a binary cross-entropy that is a mean over k outputs.
        Layers act in their own modes, and nothing changes. Raises UsageError where rows have no gradients
        of their own: for batchnorm in training mode, and for dropout in training mode in a model with
        parameters outside linear layers.
        Source: F. Kunstner, L. Balles, P. Hennig, "Limitations of the empirical Fisher approximation for
        natural gradient descent", NeurIPS 2019.
        """
        from fastnet.model import matrices

        return matrices.fisher_diagonal(self, loss, X, y, sample_weight, labels)

    def apply_update(self, optimizer: Optimizer) -> None:
        """Make one step of an optimizer with the gradients in `grads` (`optimizer.step(model)`)."""
        way = self._ways.get("update")
        if way is not None:
            known, state = way.more
            if known is optimizer and state.is_current(optimizer) and way.is_open(self):
                with self.training_lock():
                    if way.call():
                        return
        self._root("optimizer.step")
        with self.training_lock():
            state = self.optimizer_state(optimizer)
            if state.averaged:
                raise UsageError(
                    "optimizer.step: the parameters are averages, at which no step begins; call "
                    "optimizer.train(model) before the forward"
                )
            hyper = state.hyper(1)[0]
            try:
                state.run(hyper)
            finally:  # Ctrl-C is raised only after the step is done
                state.steps += 1
                self.touch(by_backend=True)
            self._ways.keep("update", self._update_way(optimizer, state))

    def _update_way(self, optimizer: Optimizer, state: OptimizerState) -> Way | None:
        """A short way to make the next steps whose numbers are known; None where there is none."""
        first, numbers = state.ahead()
        moves = optimizer.points  # parameters before and after each step
        if moves or first + len(numbers) <= state.steps:
            return None
        if not (self._runtime.backend.native_calls and isinstance(state.run, Passes)):
            return None
        steps = Counter(state, "steps", Counts.NUMBERS, first)
        call = state.run.call(numbers, [steps, Counter(self.bind(), "version")])
        return call and Way(self, call, more=(optimizer, state))

    def move_parameters(self, optimizer: Optimizer, averaged: bool) -> bool:
        """Move the parameters to the averages of an optimizer that has such `points`, or back.

        Returns whether they were elsewhere. The caller holds the lock.
        """
        if not optimizer.points:
            return False
        self._root("optimizer.train")
        state = self.optimizer_state(optimizer)
        if state.averaged == averaged:
            return False
        place = int(not averaged)
        with held_back():
            state.moves[place](state.numbers(optimizer.points[place]))
            state.averaged = averaged
            self.touch(by_backend=True)
        return True

    def lerp(self, other: Sequential, weight: float) -> None:
        """Move the parameters towards another model's: w ← w + weight·(v − w), v the other's.

        other: a model of the same dtype with parameters of the same shapes, in order; it stays as it is.
        weight: number in [0, 1]. A target network of reinforcement learning takes about 0.005 (Polyak
            averaging).

        Buffers, such as running statistics, stay as they are; so do gradients and optimizer states. Frozen
        parameters move too. Raises HyperparameterError where the parameters differ, and changes nothing.
        Source: as PyTorch's Tensor.lerp_; T. P. Lillicrap et al., "Continuous control with deep
        reinforcement learning", ICLR 2016, section 3.
        """
        if self._claims:
            self._root("lerp")
        if type(other) is not type(self):
            check_kind("other", other, Sequential)
        if type(weight) is not float or not 0.0 <= weight <= 1.0:
            weight = check_real("weight", weight, low=0.0, high=1.0)
        if other._claims:
            other._root("lerp")
        with self.training_lock():
            self._runtime.towards(other.bind())(weight)
            self.touch()

    def grad_norm(self) -> float:
        """‖g‖₂ over all gradients, summed in float64."""
        from fastnet.optim.gradients import grad_norm

        return self.transform_grads(grad_norm)

    def transform_grads(self, *ops: type[Op], number: float = 0.0) -> float:
        """Run ops over the gradients in `grads` (`fn.clip_grad_norm_`).

        number: the hyper-parameter of those ops that have one. Returns the norm that `grad_norm` found
            last.
        """
        from fastnet.optim.gradients import grad_norm

        self._root(ops[0].name)
        with self.training_lock():
            extras = self._runtime.extras
            self.run_extra(extras, *ops, number=number)
            return float(extras.vector(grad_norm, "norm")[0])

    def run_extra(self, extras: Extras, *ops: type[Op], number: float) -> None:
        """Run ops of extras; the caller holds the lock."""
        self._runtime.extra(extras, ops)(number)

    def predict(self, x: Any, batch_size: int | None = None, out: Array | None = None) -> Array:
        """The output for x (n, …) in evaluation mode, (n, …), as a new array or in `out`.

        batch_size: integer ≥ 1, the rows of a native call (default 256). Batchnorm is folded into the
        linear layer before it. Several threads may predict with one model at once: predicting changes
        nothing in it and keeps a pending backward valid. On backend "cuda" x may be an array on the
        device, as in `forward`.

        A row's output depends on that row alone, but for a model with
        `BatchNorm1d(track_running_stats=False)`. That model takes all rows at once: it refuses a single row
        (ShapeError), and a batch_size that divides them (HyperparameterError).
        """
        if self._claims:
            self._root("predict")
        running = self._running
        if batch_size is None and running is not None and running.admits(x):
            result = running.thread.fast_path(x, out)
            if result is not None:
                return result
        x = self.features("x", x)
        rows = self.rows_at_once("x", len(x), batch_size)
        executor: Any = self._runtime.predictor(tuple(x.shape[1:]), rows)
        if arrays.on_device(x):
            return executor.predict_on_device(x, out)  # type: ignore[no-any-return]
        try:
            return self._predict(executor, x, rows, out)
        finally:
            if self.joins_rows:  # the thread's fast path would divide rows
                self._runtime.thread.fast_path = no_path

    def _predict(self, executor: Executor, x: Any, rows: int, out: Array | None) -> Array:
        result = _check_out(out, (len(x), *executor.plan.output_shape), self.dtype)
        target = np.asarray(result)  # the plain array of a subclass, such as a memmap
        shares = not isinstance(x, LazyRows) and np.may_share_memory(x, result)
        if shares or not result.flags.carray:
            target = np.empty(result.shape, self.dtype)
        for begin in range(0, len(x), rows):
            part = np.ascontiguousarray(x[begin : begin + rows], self.dtype)
            if self._runtime.thread.fast_path(part, target[begin : begin + rows]) is None:
                raise DataError(
                    "x is not finite any more; leave it alone while it is predicted from"
                )
        if not np.may_share_memory(target, result):
            np.copyto(result, target)
        return result

    def rows_at_once(self, name: str, count: int, batch_size: int | None) -> int:
        """The rows of a native call in evaluation: batch_size, or all where outputs depend on other rows.

        Raises ShapeError where these are too few, and HyperparameterError where batch_size divides them.
        """
        rows = PREDICT_ROWS if batch_size is None else check_int("batch_size", batch_size, low=1)
        if not self.joins_rows:
            return max(1, min(rows, count))
        label = next(layer.label for _, layer in self._flat if layer.joins_rows)
        if count == 1:
            raise ShapeError(
                f"{name} has 1 row; {label} has no running statistics and needs at least 2 rows, in "
                "evaluation too: take track_running_stats=True to predict single rows"
            )
        if batch_size is not None and rows < count:
            raise HyperparameterError(
                f"batch_size is {rows} for {count} rows; {label} has no running statistics, so that "
                "outputs depend on all rows: leave batch_size out, or hand in part after part"
            )
        return max(1, count)

    @property
    def joins_rows(self) -> bool:
        """Whether an output depends on other rows in evaluation, too."""
        return any(layer.joins_rows for _, layer in self._flat)

    def predict_proba(self, x: Any, batch_size: int | None = None, *, classes: Any = None) -> Array:
        """Probabilities for x (n, …) in evaluation mode, (n, C), one column for each of `classes_`.

        x, batch_size: as for `predict`.
        classes: some of `classes_`, of which the columns are, (n, k); None (default): all. A model that
            ends in HierarchicalSoftmax then computes the decisions that lead to these classes alone.

        The trainer tells the model how outputs become probabilities, by its loss: softmax for
        CrossEntropyLoss, exp for NLLLoss and KLDivLoss, sigmoid for BCEWithLogitsLoss; for BCELoss they are
        such. One output gives two columns, 1 − p and p, as in scikit-learn; several outputs of a binary
        loss give p of each, (n, k). They are computed in float64 and returned in the model's dtype, with
        the same bits on every machine on which the outputs have. Raises UsageError where the loss has no
        probabilities, and before a trainer has told one.
        """
        link = self._linked("predict_proba", links.OF_PROBABILITIES)
        if classes is not None:
            return head.probabilities(self, link, x, batch_size, classes)
        output = self.on_host("output", self.predict(x, batch_size))
        return links.probabilities(link, output).astype(self.dtype)

    def predict_classes(self, x: Any, batch_size: int | None = None) -> Array:
        """The class of each row of x (n, …) in evaluation mode, (n,), one of `classes_`.

        x, batch_size: as for `predict`.

        The class with the largest output, the first of equals; by one output the second class where its
        probability is at least ½. Several outputs of a binary loss give 0 or 1 for each, int64 (n, k).
        A model that ends in HierarchicalSoftmax looks, in float64, only where the class can be.
        Raises UsageError where the loss has no classes, and before a trainer has told one.
        """
        link = self._linked("predict_classes", links.OF_CLASSES)
        found, classes = head.most_probable(self, x, batch_size), self.classes_
        if found is None:
            found = links.decisions(link, self.on_host("output", self.predict(x, batch_size)))
        return found if classes is None or found.ndim > 1 else classes[found]

    def _linked(self, what: str, wanted: tuple[str, ...]) -> str:
        """How outputs become probabilities or classes; UsageError where they do not."""
        link = self._terms.link
        if link is None or link not in wanted:
            kind = "probabilities" if wanted is links.OF_PROBABILITIES else "classes"
            raise UsageError(
                f"{what}: no trainer with a loss of {kind} has trained this model; train it by "
                "Trainer(model, CrossEntropyLoss()), say, or take the outputs of model.predict(X)"
            )
        return link

    @property
    def classes_(self) -> Array | None:
        """The labels of the classes, sorted, of strings, bools or int64 (C,).

        As the first fit has found them; None before it, and where targets are no labels. A new array.
        """
        classes = self._terms.classes
        return None if classes is None else as_classes(classes)

    @property
    def feature_names_in_(self) -> Array | None:
        """The names of the inputs' columns, strings (features,), from the frame of the first fit, or None.

        Frames with other columns, or another order of them, are refused; arrays are taken by position.
        """
        columns = self._terms.columns
        return np.array(columns, object) if columns else None

    def save(self, path: Any) -> None:
        """Save architecture, parameters and buffers in a safetensors file; `fastnet.load` makes the model.

        path: of the file, such as "net.safetensors". An existing file is replaced as a whole: whatever
            fails, the old one or the new one is there.

        Arrays have PyTorch's names and shapes, so that `torch.nn.Sequential` loads them by
        `load_state_dict(safetensors.torch.load_file(path))`. The metadata have the model's `config` and
        the SHA-256 of everything, and from a trainer the names of the inputs' columns and the labels of the
        classes. Raises SaveError where the file cannot be written, and UsageError where an argument of a
        layer is a function.
        """
        self._root("save")
        from fastnet.model import saved

        saved.save(self, path)

    def export_onnx(
        self,
        path: Any,
        opset: int = 17,
        *,
        outputs: Any = None,
        input_shape: Any = None,
        metadata: Any = None,
    ) -> None:
        """Write what `predict` computes as an ONNX file, for onnxruntime and other programs.

        path: of the file, such as "net.onnx". An existing one is replaced as a whole, as by `save`.
        opset: the version of ONNX's operators, integer in [17, 28] (default 17, which nearly all programs
            read).
        outputs: a list of "output", that of `predict`; "probabilities" and "classes", those of
            `predict_proba` and `predict_classes`, from a model that a trainer has trained. Default None:
            all that the model has.
        input_shape: the shape of one input row, where no layer fixes it: a model that begins with Flatten.
        metadata: texts by name, which the file keeps beside those of its own, `feature_names`, `classes`
            and `link` (default None).

        The input is called "input" and has any number of rows, in the model's dtype. Batchnorm is folded
        into the linear layer before it. Parameters have the names and shapes of `state_dict`, unless they
        are folded. The metadata have `feature_names` and `classes` as JSON lists, where a fit has told
        them. Numbers agree with `predict` within rounding; nothing checks that an input is finite.

        Raises UsageError, with the layer's name, for a CustomLayer and for BatchNorm1d without running
        statistics, and SaveError where the file cannot be written. Needs no package.
        """
        self._root("export_onnx")
        from fastnet.model import exported

        exported.export_onnx(self, path, opset, outputs, input_shape, metadata)

    def export_c(
        self,
        path: Any,
        name: str = "net",
        *,
        dtype: str | None = None,
        weights: str = "inline",
        clamp: Any = None,
        rows: Any = None,
        input_shape: Any = None,
        trainable: Any = None,
        loss: Any = None,
        optimizer: Any = None,
        batch_size: int = 1,
    ) -> tuple[Path, ...]:
        """Write the model in evaluation mode as a C source file and its header; returns their paths.

        path: of the source, such as "net.c"; the header is beside it, net.h. Both are replaced as a whole.
        name: the prefix of every name in them (default "net"): `net_predict(x, y, scratch)`, `net_argmax`,
            `net_selftest`, NET_SCRATCH_BYTES. A letter, then letters, digits and _.
        dtype: "float32" or "float64", of inputs, outputs and arithmetic (default None: the model's).
        weights: "inline" (default), constants in the source; or "separate", in net_weights.c.
        clamp: (low, high), the bounds of outputs (default None).
        rows: rows of data for the self-test, (n, …); default 4 rows of random numbers. Their outputs are
            those of the C backend, or of the model's where that is missing.
        input_shape: of a row, where no layer fixes it (default None).
        trainable: "last", the last layer that has parameters, an integer, so many last ones, or "all": the
            C has `net_train_step` too, which trains them (default None: it does not).
        loss: CrossEntropyLoss() or MSELoss(), for `net_train_step` (default None: CrossEntropyLoss where
            the model has been trained by such, else MSELoss).
        optimizer: an SGD with constant momentum, nesterov and weight_decay (default None: SGD()); each step
            is given its learning rate.
        batch_size: integer in [1, 512], the rows of a training step (default 1).

        The C is C99 and C++, allocates nothing, keeps no state, and needs no file of fastnet's; the header
        says how to compile it and what it needs. Outputs equal `predict` of the C backend to the bit on
        processors with FMA, except for activations made by `fn.elementwise`, which that backend compiles
        by Numba. The whole model goes: preprocessing, batchnorm folded, branches, and from a trainer the
        names of columns, the labels of classes, and the link to probabilities.

        A net that learns keeps the parameters of these layers in memory of the caller's. Its steps have the
        bits of `model.value_and_grad(loss, x, y)` and `optimizer.step(model)` on the C backend, in
        evaluation mode and with the other parameters frozen; so dropout is off, and batchnorm, which is
        not folded, keeps its statistics.

        Raises UsageError where a layer has no C text, such as a CustomLayer, HyperparameterError for
        arguments, and SaveError where a file cannot be written.
        """
        self._root("export_c")
        from fastnet.model import c_export

        learning = c_export.Learning(trainable, loss, optimizer, batch_size)
        given = name, dtype, weights, clamp, rows, input_shape
        return c_export.export_c(self, path, *given, learning)

    def to_torch(self) -> Any:
        """A torch.nn.Sequential with the same modules and copies of the weights; `fn.from_torch` undoes it.

        Of layers that PyTorch has by the same name, and models in the model. Modes go along, frozen
        parameters have requires_grad=False, and dtype and names of `state_dict` are the same. It lies on
        the CPU. Raises UsageError for other layers, and lists all of them, and MissingExtra without
        PyTorch.
        """
        self._root("to_torch")
        from fastnet.model import exported

        return exported.to_torch(self)

    def to_sklearn(self) -> Any:
        """A fitted MLPClassifier or MLPRegressor of scikit-learn that predicts the same.

        The model is linear layers, between which stands everywhere the same one of ReLU, Tanh and Sigmoid,
        or nothing. Batchnorm after a linear layer is folded into it; Dropout and Identity stay out. After a
        training with CrossEntropyLoss, NLLLoss, BCEWithLogitsLoss or BCELoss it is a classifier of
        `classes_`, whose `predict_proba` is the model's; of NLLLoss LogSoftmax ends it, of BCELoss Sigmoid.
        Else it is a regressor, which a linear layer ends, of `loss="poisson"` after PoissonNLLLoss. It can
        go on by `partial_fit`. `fn.from_sklearn` undoes it.

        Raises UsageError for other models, and MissingExtra without scikit-learn.
        """
        self._root("to_sklearn")
        from fastnet.model import exported

        return exported.to_sklearn(self)

    def load_weights(self, path: Any, strict: bool = True) -> None:
        """Copy parameters and buffers from a safetensors file, also one of PyTorch's.

        path: of the file. strict: as for `load_state_dict`. Raises FileError for a file that is damaged,
        OSError where it cannot be read, and StateDictError, with nothing changed, where a name or shape
        differs.
        """
        from fastnet.model import saved

        saved.load_weights(self, path, strict)

    def features(self, name: str, value: Any, shape: tuple[int, ...] | None = None) -> Any:
        """Check rows of inputs, or rows of `shape`; arrays on a device stay there.

        Scaled and sparse inputs become LazyRows.
        """
        given_rows = shape is None
        if given_rows:
            self._terms.check_columns(name, value)
            shape = self.input_shape
            if shape is None and self.any_rows:
                shape = arrays.ANY_ROWS
            rows = scaled.rows_of(name, value, shape, self.dtype)
            if rows is not None:
                return rows
        if arrays.on_device(value):
            return self._runtime.backend.features(name, value, shape, self.dtype)
        found = arrays.features(name, value, shape, self.dtype)
        if given_rows and self._runtime.coded and found.ndim == 2:
            self._runtime.codes(found.shape[1]).check(name, found)
        return found

    def on_host(self, name: str, value: Any) -> Any:
        """`value`, copied to the host's memory if it lies on a device."""
        return self._runtime.backend.host(name, value) if arrays.on_device(value) else value

    def data(
        self,
        loss: Loss,
        x: Array | LazyRows,
        y: Any,
        x_name: str,
        y_name: str,
        sample_weight: Any = None,
        *,
        by_rows: bool = False,
        weight_mean: float | None = None,
        rows: Array | None = None,
    ) -> Dataset:
        """Checked inputs with targets and weights, as training steps read them (see Dataset.checked)."""
        return Dataset.checked(
            loss,
            x,
            self.on_host(y_name, y),
            self.on_host("sample_weight", sample_weight),
            output_shape=self.output_shape(tuple(x.shape[1:])),
            dtype=self.dtype,
            names=(x_name, y_name),
            by_rows=by_rows,
            weight_mean=weight_mean,
            rows=rows,
        )

    def optimizer_state(self, optimizer: Optimizer) -> OptimizerState:
        """The optimizer's state for this model, with its rule compiled."""
        state = optimizer.state(self)
        storage, backend = self.bind(), self._runtime.backend
        if state.rule is None or (state.backend, state.rule.frozen) != (backend, storage.frozen):
            from fastnet.plan.update import compile_rule

            start = optimizer.initial() | state.vectors | optimizer.constants()
            args = state.passes, state.group_of, storage, start, optimizer.points
            rule = state.rule = compile_rule(*args, optimizer.sizes())
            waiting = {n: v.copy() for n, v in state.vectors.items() if n not in rule.vectors}
            state.vectors = waiting | rule.vectors
            ops = [op for passes in state.passes for op in passes]
            state.run = self._runtime.passes(Update.alone(rule.program, ops, rule.segment))
            state.moves = [
                self._runtime.passes(Update.alone(program, [op] * len(state.passes), rule.segment))
                for program, op in zip(rule.points, optimizer.points, strict=True)
            ]
            state.backend = backend
        return state

    def training_executor(
        self,
        data: Dataset,
        rows: int,
        loss: Loss,
        respect_modes: bool = False,
        *,
        synced: bool = False,
    ) -> Executor:
        """The executor of training steps with up to `rows` rows; all layers train, or each in its mode.

        synced: the statistics of batchnorm are those of several ranks.
        """
        self._root("fit")
        modes = self._modes(None if respect_modes else True)
        if synced:
            norms = (isinstance(layer, BatchNorm1d) for _, layer in self.layers)
            modes = tuple(
                SYNCED if mode and norm else mode for mode, norm in zip(modes, norms, strict=True)
            )
        return self._trainable(data.row_shape, rows, modes, loss, data)

    def _trainable(
        self, shape: tuple[int, ...], rows: int, modes: Modes, loss: Loss, data: Dataset
    ) -> Executor:
        ending = Ending(
            loss,
            data.classes > 0,
            data.w is not None,
            data.by_rows,
            data.threshold,
            data.outputs,
            self._elements(data, rows),
        )
        return self._runtime.executor(shape, rows, modes, ending)

    def evaluator(
        self, data: Dataset, rows: int, loss: Loss, *, outputs: bool = True, within: bool = False
    ) -> Executor:
        """The executor that measures a loss in evaluation mode, in steps of up to `rows` rows.

        outputs: whether steps record the outputs. within: it runs within training, under the model's lock.
        """
        kind = data.classes > 0, data.w is not None
        elements = self._elements(data, rows)
        ending = Ending(loss, *kind, threshold=data.threshold, outputs=outputs, elements=elements)
        return self._runtime.evaluator(data.row_shape, rows, ending, within=within)

    def _elements(self, data: Dataset, rows: int) -> int:
        """Room for the elements of so many rows, where ops are to read these; 0 where they read rows."""
        if not (isinstance(data.x, SparseRows) and self._runtime.backend.reads_rows):
            return 0
        return data.x.room(rows)

    def min_training_rows(self, respect_modes: bool = False) -> int:
        """The fewest rows of a training minibatch: 2 where batchnorm computes statistics, else 1."""
        modes = self._modes(None if respect_modes else True)
        both = zip(modes, self._flat, strict=True)
        training = (la for mode, (_, la) in both if mode or la.joins_rows)
        return max((layer.min_training_rows for layer in training), default=1)

    def _modes(self, training: bool | None = None) -> Modes:
        return tuple(
            (la.training if training is None else training) and not la._keeps_statistics
            for _, la in self._flat
        )

    def _check_rows(self, rows: int, modes: Modes) -> None:
        for training, (_, layer) in zip(modes, self._flat, strict=True):
            if (training or layer.joins_rows) and rows < layer.min_training_rows:
                remedy = "" if layer.joins_rows else ", or call model.eval() first"
                raise ShapeError(
                    f"{layer.label}: a training minibatch of {rows} rows; expected at least "
                    f"{layer.min_training_rows}: leave a smaller last one out by drop_last=True in "
                    f"fn.batches{remedy}"
                )
        if rows == 0:
            raise ShapeError("x has no rows; expected at least one")

    def _count_training_forward(self, modes: Modes) -> None:
        if any(modes):
            self._draws += 1
        if self._moves_buffers(modes):
            self.touch(by_backend=True)

    def _moves_buffers(self, modes: Modes) -> bool:
        """Whether a forward changes running statistics."""
        moved = zip(modes, self._flat, strict=True)
        return any(f and any(p.buffer for p in la._parameters.values()) for f, (_, la) in moved)


def _check_out(out: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != dtype:
        came = f"{getattr(out, 'dtype', type(out).__name__)} of shape {getattr(out, 'shape', None)}"
        raise ShapeError(f"out is {came}; expected an ndarray of {dtype} and shape {shape}")
    if not out.flags.writeable:
        raise ShapeError("out is read-only; expected a writable array")
    return out
