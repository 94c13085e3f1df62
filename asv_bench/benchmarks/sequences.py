"""What unequal lengths, masks, dropout, other activations, checkpoints and a second thread cost beside the plain step.

``track_`` values are ratios of lower quartiles, measured in turn in one process, so that the machine's noise cancels.

    asv run -E existing --quick --bench sequences
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks import SIZES, Size, batch

ROUNDS = 25
BATCHES = 8


def ratio(run: Callable[[], Any], plain: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Lower quartile of `run`'s time over that of `plain`'s, called in turn."""
    import numpy as np

    run(), plain()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for function, mine in zip((run, plain), times, strict=True):
            begin = time.perf_counter()
            function()
            mine.append(time.perf_counter() - begin)
    return float(np.quantile(times[0], 0.25) / np.quantile(times[1], 0.25))


def fit(model: Any, data: tuple[Any, Any], size: Size, **more: Any) -> None:
    """Epochs over 8 batches, in a new order as `fit` does it: the rows of every batch are gathered.

    8 up to 64 units, where steps are short: it is the step that counts, not what `fit` does once.
    """
    model.fit(*data, batch_size=size.B, epochs=8 if size.H <= 64 else 1, verbose=0, **more)


def make(cell: str, size: Size, **options: Any) -> Any:
    """Compiled model: one recurrent layer with options, Dense(1) on its last output, mse, Adam."""
    import elman

    layers = [elman.layers.Input((None, size.I)), elman.layers.RNN(size.H, cell=cell, **options)]
    model = elman.Sequential([*layers, elman.layers.Dense(1)], seed=0)
    model.compile("adam", "mse")
    return model


def _holes(size: Size) -> dict[str, Any]:
    import numpy as np

    return {"mask": np.random.default_rng(1).random((BATCHES * size.B, size.T)) < 0.9}


def _lengths(size: Size) -> dict[str, Any]:
    """Lengths spread evenly over 1 to T - 1, whose mean is T / 2, in any order."""
    import numpy as np

    spread = np.linspace(1, size.T - 1, BATCHES * size.B).round().astype(np.int64)
    return {"lengths": np.random.default_rng(1).permutation(spread)}


def _full(size: Size) -> dict[str, Any]:
    import numpy as np

    return {"lengths": np.full(BATCHES * size.B, size.T)}


OPTIONS: dict[str, tuple[dict[str, Any], Callable[[Size], dict[str, Any]]]] = {
    "mask with holes": ({}, _holes),
    "lengths, all T": ({}, _full),
    "dropout": ({"dropout": 0.2}, lambda size: {}),
    "recurrent_dropout": ({"recurrent_dropout": 0.2}, lambda size: {}),
    "activation relu": ({"activation": "relu"}, lambda size: {}),
    "activation softsign": ({"activation": "softsign"}, lambda size: {}),
    "recurrent_activation hard_sigmoid": ({"recurrent_activation": "hard_sigmoid"}, lambda size: {}),
}


class Options:
    """Steps with one option over the plain ones: at most 1.3."""

    version = "2"  # of what is measured: asv does not see it change in `fit`

    params = (("simple", "gru", "lstm"), ("32x24x1x16", "32x100x8x64", "64x100x8x128", "64x100x32x256"), tuple(OPTIONS))
    param_names = ("cell", "BxTxIxH", "option")

    def setup(self, cell: str, size: str, option: str) -> None:
        layer, data = OPTIONS[option]
        self.size = SIZES[size]
        self.data, self.more = batch(self.size, "float32", BATCHES), data(self.size)
        self.model, self.plain = make(cell, SIZES[size], **layer), make(cell, SIZES[size])

    def track_over_plain(self, cell: str, size: str, option: str) -> float:
        return ratio(
            lambda: fit(self.model, self.data, self.size, **self.more),
            lambda: fit(self.plain, self.data, self.size),
        )


class Lengths:
    """Steps of sequences whose lengths average T / 2, over those of full ones: at most 0.65."""

    version = "2"

    params = (
        ("simple", "gru", "lstm"),
        ("32x100x8x64", "64x100x8x128", "64x100x32x256", "256x24x8x32", "64x50x256x512"),
    )
    param_names = ("cell", "BxTxIxH")

    def setup(self, cell: str, size: str) -> None:
        self.size = SIZES[size]
        self.data, self.more = batch(self.size, "float32", BATCHES), _lengths(self.size)
        self.model = make(cell, SIZES[size])

    def track_over_full(self, cell: str, size: str) -> float:
        return ratio(
            lambda: fit(self.model, self.data, self.size, **self.more),
            lambda: fit(self.model, self.data, self.size),
        )

    def track_half_over_full(self, cell: str, size: str) -> float:
        """Sequences of T / 2 steps, without lengths: what no batch of lengths can be faster than."""
        import numpy as np

        x, y = self.data
        half = np.ascontiguousarray(x[:, : self.size.T // 2]), y
        return ratio(
            lambda: fit(self.model, half, self.size),
            lambda: fit(self.model, self.data, self.size),
        )


class Checkpoints:
    """`checkpoint="sqrt"` over full storage, at a T where both fit: at most 1.45."""

    params = (("gru", "lstm"), ("32x2000x8x64", "32x500x8x128"))
    param_names = ("cell", "BxTxIxH")

    def setup(self, cell: str, size: str) -> None:
        self.size = Size(*map(int, size.split("x")))
        self.data = batch(self.size, "float32")
        self.model, self.plain = make(cell, self.size, checkpoint="sqrt"), make(cell, self.size)

    def track_over_full_storage(self, cell: str, size: str) -> float:
        return ratio(
            lambda: self.model.train_on_batch(*self.data), lambda: self.plain.train_on_batch(*self.data), rounds=7
        )


class OneSequence:
    """One sequence in two threads over one: less than 1 where a step has work enough, never more than 1.1."""

    params = (("simple", "gru", "lstm"), ("1x500x8x64", "1x500x8x100", "1x500x8x128", "1x200x32x256"))
    param_names = ("cell", "BxTxIxH")

    def setup(self, cell: str, size: str) -> None:
        from elman.jit import maximum_threads

        if maximum_threads() < 2:
            raise NotImplementedError("needs two threads")
        self.size = Size(*map(int, size.split("x")))
        self.data = batch(self.size, "float32")
        self.models = {threads: make(cell, self.size) for threads in (1, 2)}

    def _ratio(self, step: Callable[[Any], Any]) -> float:
        import elman

        def in_threads(threads: int) -> None:
            with elman.num_threads(threads):
                for _ in range(50):  # in a row, as in a fit
                    step(self.models[threads])

        return ratio(lambda: in_threads(2), lambda: in_threads(1), rounds=7)

    def track_training(self, cell: str, size: str) -> float:
        return self._ratio(lambda model: model.train_on_batch(*self.data))

    def track_prediction(self, cell: str, size: str) -> float:
        return self._ratio(lambda model: model.predict_on_batch(self.data[0]))


class LongSequence:
    """An LSTM of 64 units on 32 sequences of 20,000 steps with checkpoints: the whole process within 400 MB."""

    timeout = 300

    def setup_cache(self) -> None:
        """Compile in a process of its own: compiling takes far more memory than a step."""
        size = Size(32, 300, 8, 64)
        make("lstm", size, checkpoint="sqrt").train_on_batch(*batch(size, "float32"))

    def setup(self) -> None:
        self.size = Size(32, 20_000, 8, 64)
        self.model = make("lstm", self.size, checkpoint="sqrt")

    def peakmem_train_step(self) -> None:
        import numpy as np

        # float32 from the start: the data are 20 MB, in float64 they would be another 40.
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.size.B, self.size.T, self.size.I), np.float32)
        self.model.train_on_batch(x, x[:, 0, :1])


class Windows:
    """Training on windows by index of a series of 10 million steps, 40 MB: at most 60 MB more than on a short one."""

    timeout = 300
    STEPS, LENGTH = 10_000_000, 168

    def setup_cache(self) -> None:
        """Compile in a process of its own."""
        self._fit(2_000)

    def _fit(self, n: int) -> None:
        import numpy as np

        import elman

        series = np.random.default_rng(0).standard_normal(n, np.float32)
        windows = elman.data.timeseries_windows(series, series[self.LENGTH :], self.LENGTH)
        model = make("gru", Size(64, self.LENGTH, 1, 8))
        model.fit(windows, batch_size=64, steps_per_epoch=20, verbose=0)

    def peakmem_fit_short(self) -> None:
        """The same on 2,000 steps: what the process takes without the series."""
        self._fit(2_000)

    def peakmem_fit(self) -> None:
        self._fit(self.STEPS)
