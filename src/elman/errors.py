"""What the library raises; each kind is one of Python's own as well, so that ``except ValueError`` catches it too.

A message names the argument, says what came and what was expected; whatever was called is as it was before. Beside
these kinds there are only Python's own, for what Python itself means by them: OSError for a path that cannot be opened
or written, MemoryError, TypeError for a call that does not fit a signature, KeyError and AttributeError for a name that
is not there, and whatever a function or a generator of the caller's raises.
"""

from __future__ import annotations

__all__ = ["BadFile", "BadState", "BadType", "BadValue", "ElmanError", "MissingPackage"]


class ElmanError(Exception):
    """Base of all that the library raises.

    Examples
    --------
    >>> import elman
    >>> try:
    ...     elman.layers.GRU(-1)
    ... except elman.errors.ElmanError as error:
    ...     print(error)
    units: expected an integer of at least 1, got -1
    """

    def __init__(self, *args: object) -> None:
        # A text given for its characters would be the whole message.
        super().__init__(*[_shortened(arg) if isinstance(arg, str) else arg for arg in args])


def _shortened(text: str, most: int = 2000) -> str:
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"


class BadValue(ElmanError, ValueError):
    """An argument of the right type with a value that cannot be: out of range, of a wrong shape, not finite.

    Examples
    --------
    >>> import elman
    >>> elman.layers.GRU(0)
    Traceback (most recent call last):
    elman.errors.BadValue: units: expected an integer of at least 1, got 0
    """


class BadType(ElmanError, TypeError):
    """An argument of a type that cannot be.

    Examples
    --------
    >>> import elman
    >>> elman.layers.GRU("8")
    Traceback (most recent call last):
    elman.errors.BadType: units: expected an integer, got str '8'
    """


class BadState(ElmanError, RuntimeError):
    """A call at a moment when it cannot be, such as `compile` while the model is fitted.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> model = elman.Sequential([elman.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> again = elman.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: model.compile("sgd", "mse"))
    >>> x = np.ones((4, 2))
    >>> model.fit(x, x[:, :1], verbose=0, callbacks=[again])
    Traceback (most recent call last):
    elman.errors.BadState: model: compile() while it is fitted or evaluated; call it before or afterwards
    """


class BadFile(ElmanError, ValueError):
    """A file that was opened and is none of the library's, is damaged, is of a newer format, or does not fit.

    Examples
    --------
    >>> import os, tempfile
    >>> import elman
    >>> path = os.path.join(tempfile.mkdtemp(), "model.npz")
    >>> with open(path, "w") as file:
    ...     _ = file.write("no model")
    >>> try:
    ...     elman.load_model(path)
    ... except elman.errors.BadFile as error:
    ...     print("no elman file" in str(error))
    True
    """


class MissingPackage(ElmanError, ImportError):
    """A package that one of the extras brings is not installed; the message has the command that installs it.

    Examples
    --------
    >>> import elman
    >>> issubclass(elman.errors.MissingPackage, ImportError)
    True
    """
