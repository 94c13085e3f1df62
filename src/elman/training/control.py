"""`LearningRateScheduler`, `TerminateOnNaN` and `LambdaCallback`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from elman import checks, registry
from elman.errors import BadType
from elman.training.callbacks import HOOKS, Callback, Logs
from elman.training.progress import check_verbose


class LearningRateScheduler(Callback):
    """Set the learning rate at the begin of every epoch.

    Parameters
    ----------
    schedule : callable
        ``schedule(epoch, learning_rate)``, or ``schedule(epoch)``, returns the new rate; epochs count from 0.
    verbose : int
        1 prints a line per epoch.

    Raises
    ------
    TypeError, ValueError
        If `schedule` takes neither; when it is called, if it returns no finite number >= 0. What it raises itself, a
        TypeError too, is passed on.
    AttributeError
        When training begins, if the optimizer has a schedule of its own.

    Notes
    -----
    Adds "learning_rate", the rate the epoch was trained with, to the logs, hence to `History`.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> model = elman.Sequential([elman.layers.SimpleRNN(2), elman.layers.Dense(1)], seed=0)
    >>> model.compile(elman.optimizers.SGD(0.8), "mse")
    >>> halve = elman.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch else rate)
    >>> history = model.fit(np.ones((4, 3, 1)), np.ones(4), epochs=3, verbose=0, callbacks=[halve])
    >>> history.history["learning_rate"]
    [0.8, 0.4, 0.2]
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        if not callable(schedule):
            raise BadType(f"schedule: expected a function, got {type(schedule).__name__} {schedule!r}")
        self.schedule = schedule
        self.verbose = check_verbose(verbose)
        self._wants_rate = _accepts(schedule, 2)
        if not self._wants_rate and not _accepts(schedule, 1):
            raise BadType("schedule: expected a function of (epoch, learning_rate) or (epoch)")

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Set the rate."""
        optimizer = self.model.optimizer
        arguments = (epoch, optimizer.learning_rate) if self._wants_rate else (epoch,)
        rate = registry.number(f"schedule, in epoch {epoch}", self.schedule(*arguments), 0)
        optimizer.learning_rate = rate
        if self.verbose:
            print(f"Epoch {epoch + 1}: the learning rate is {rate:.6g}", flush=True)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Add the rate to the logs."""
        logs.setdefault("learning_rate", self.model.optimizer.learning_rate)


def _accepts(function: Callable[..., Any], count: int) -> bool:
    """Whether a function takes `count` positional arguments."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # some functions written in C do not tell
        return True
    return True


class TerminateOnNaN(Callback):
    """End training after a batch whose update was left out or that makes the loss NaN or infinite, and say where.

    Prints the epoch, the batch, and where the first NaN or infinity stands: layer, step, gate. An update whose gradient
    is not finite is left out in any case, so that the weights are then those of the batch before; training would go on
    without this callback. Where the gradient is finite but the loss is not, the update is done, and the parameters that
    it left NaN or infinite are named. The epoch ends as usual; with `EarlyStopping` and its ``restore_best_weights``
    the model goes back to the best epoch before.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> model = elman.Sequential([elman.layers.Input((3, 1)), elman.layers.Dense(1, name="out")], seed=0)
    >>> model.compile(elman.optimizers.SGD(1e30), "mse")
    >>> x = np.ones((4, 3, 1))
    >>> model.fit(x, x, epochs=9, verbose=0, callbacks=[elman.callbacks.TerminateOnNaN()]).epoch
    Epoch 2, batch 1: the loss is inf, training ends; not finite: out/kernel, out/bias
    [0, 1]
    """

    _epoch = _skipped = 0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Remember the epoch for the message, and how many updates were left out before it."""
        self._epoch, self._skipped = epoch, self.model.skipped_updates

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Look for an update that was left out, then at the loss."""
        where = f"Epoch {self._epoch + 1}, batch {batch + 1}"
        if self.model.skipped_updates > self._skipped:
            reason = f"the update was left out, training ends; {self.model.nonfinite}"
        elif math.isfinite(logs["loss"]):
            return
        else:
            bad = [w.name for w in self.model.weights if not np.isfinite(w.value).all()]
            names = f"not finite: {', '.join(bad)}" if bad else "all parameters are finite"
            reason = f"the loss is {logs['loss']}, training ends; {names}"
        self.model.stop_training = True
        print(f"{where}: {reason}", flush=True)


class LambdaCallback(Callback):
    """A callback made of functions.

    Parameters
    ----------
    on_epoch_begin, on_epoch_end : callable, optional
        ``f(epoch, logs)``.
    on_train_begin, on_train_end : callable, optional
        ``f(logs)``.
    on_train_batch_begin, on_train_batch_end : callable, optional
        ``f(batch, logs)``.
    **hooks : callable, optional
        Any other hook of `Callback`, such as ``on_test_end``.

    Raises
    ------
    TypeError
        For a name that is no hook, with the nearest one, or a value that cannot be called.

    Examples
    --------
    >>> import elman
    >>> callback = elman.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs["loss"]))
    >>> callback.on_epoch_end(3, {"loss": 0.5})
    3 0.5
    """

    def __init__(
        self,
        on_epoch_begin: Callable[[int, Logs], Any] | None = None,
        on_epoch_end: Callable[[int, Logs], Any] | None = None,
        on_train_begin: Callable[[Logs], Any] | None = None,
        on_train_end: Callable[[Logs], Any] | None = None,
        on_train_batch_begin: Callable[[int, Logs], Any] | None = None,
        on_train_batch_end: Callable[[int, Logs], Any] | None = None,
        **hooks: Callable[..., Any] | None,
    ) -> None:
        hooks |= {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
        }
        for name, function in hooks.items():
            try:
                checks.choose("LambdaCallback", name, HOOKS)
            except ValueError as error:
                raise BadType(str(error)) from None
            if function is None:
                continue
            if not callable(function):
                raise BadType(f"{name}: expected a function, got {type(function).__name__} {function!r}")
            setattr(self, name, function)
