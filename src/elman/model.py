"""`Sequential`: a stack of layers that is compiled, fitted, evaluated, saved."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from elman import archive, checks, tensors
from elman.errors import BadFile, BadValue
from elman.layers import Input
from elman.layers.base import assign, deserialize, display, serialize
from elman.parameters import Weight, at_most
from elman.stack import Stack
from elman.streaming import Stepper, make


class Sequential(Stack):
    """A linear stack of layers.

    Parameters
    ----------
    layers : sequence of Layer
        An `Input` first builds the model at once; without it the first data do.
    dtype : str
        "float32" or "float64", of parameters and arithmetic. Data of any real dtype are converted batch by batch.
    seed : int, optional
        Seed of the initial parameters and of shuffling: the same seed gives the same bits on the same machine, for any
        number of threads. The global random state of NumPy is neither read nor changed.

    Raises
    ------
    TypeError, ValueError
        If a layer, the dtype or the seed is no such thing, or the layers' shapes do not fit.

    Notes
    -----
    Data are (N, T, I) sequences, (N, T) read as one feature where the model takes sequences, or (N, F) vectors.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> x = np.random.default_rng(0).normal(size=(64, 12, 1))
    >>> y = x.sum(axis=1)
    >>> model = elman.Sequential([elman.layers.GRU(8), elman.layers.Dense(1)], seed=0)
    >>> model.compile("adam", "mse")
    >>> history = model.fit(x, y, epochs=3, verbose=0)
    >>> history.history["loss"][0] > history.history["loss"][-1]
    True
    >>> model.predict(x).shape
    (64, 1)
    """

    # ---- parameters

    @property
    def weights(self) -> list[Weight]:
        """Names and live arrays of all parameters, in the order of `get_weights`."""
        return list(self._built())

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all parameters, layer by layer: kernel, recurrent kernel, bias."""
        with self.lock:
            return [w.value.copy() for w in self._built()]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Overwrite all parameters.

        Raises
        ------
        ValueError, TypeError
            If number, a shape or a value does not fit; nothing is written then.
        """
        with self.lock:
            assign([w.value for w in self._built()], weights)

    def count_params(self) -> int:
        """Number of scalar parameters."""
        return self._built().values.size

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Print layers, output shapes and parameter counts."""
        self._built()
        lines = [
            (f"{layer.name} ({type(layer).__name__})", display(layer.output_shape), layer.count_params())
            for layer in self.layers
        ]
        width = max(len("Layer"), *(len(name) for name, _, _ in lines))
        middle = max(len("Output"), *(len(shape) for _, shape, _ in lines))
        print_fn(f"{'Layer':{width}}  {'Output':{middle}}  {'Parameters':>10}")
        for name, shape, count in lines:
            print_fn(f"{name:{width}}  {shape:{middle}}  {count:>10,}")
        print_fn(f"Input {display(self._input.shape)}, {self.count_params():,} parameters, {self.dtype}")

    # ---- inference step by step

    def stream(self, batch_size: int = 1) -> Stepper:
        """A stepper, ``y = step(x)``, for control loops, audio and text: one time step per call, with its own states.

        Parameters
        ----------
        batch_size : int
            B, sequences that are continued side by side.

        Returns
        -------
        Stepper
            Takes x (I,), or (B, I), or token numbers; gives the output (O,), or (B, O), in an array that the next call
            overwrites. The states are ``step.states``, `set_states` and `reset` change them. The weights are read now:
            after training call ``step.refresh()``.

        Raises
        ------
        ValueError
            If the model is not built, or a layer needs whole sequences, such as `Bidirectional`; it is named.

        Examples
        --------
        >>> import numpy as np
        >>> import elman
        >>> model = elman.Sequential([elman.layers.Input((None, 3)), elman.layers.GRU(4), elman.layers.Dense(1)])
        >>> step = model.stream()
        >>> step(np.zeros(3, np.float32)).shape
        (1,)
        >>> [h.shape for h in step.states[0]]
        [(1, 4)]
        """
        self._built()
        return make(self, batch_size)

    # ---- saving

    def get_config(self) -> dict[str, Any]:
        """Layers, dtype, seed and input shape as JSON values."""
        shape = None if self._input is None else list(self._input.shape)
        return {
            "layers": [serialize(layer) for layer in self.layers],
            "dtype": self.dtype.name,
            "seed": self.seed,
            "input_shape": shape,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Sequential:
        """A model with fresh parameters from what `get_config` gave."""
        shape = config["input_shape"]
        first = [] if shape is None else [Input(tuple(shape))]
        return cls([*first, *map(deserialize, config["layers"])], config["dtype"], config["seed"])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model, with optimizer and its state, to one ``.npz`` file; `elman.load_model` reads it.

        The file is written under a temporary name and renamed, so `path` holds the old model or the new one, never
        half of one.

        Parameters
        ----------
        path : str or path-like

        Raises
        ------
        ValueError
            If the model is not built.
        OSError
            If the place cannot be written.
        """
        self._built()
        header, arrays = self._state()
        archive.write(path, type(self).__name__, header, arrays)

    def save_weights(self, path: str | os.PathLike[str]) -> None:
        """Write the parameters alone to a safetensors file, for other libraries; `load_weights` reads it.

        The tensors have the names and shapes of `weights`; the file is replaced as a whole or not at all. A model to go
        on with is kept by `save`, which needs nothing but elman.

        Parameters
        ----------
        path : str or path-like
            Usually with the ending ".safetensors".

        Raises
        ------
        ImportError
            Without the package safetensors (``elman[safetensors]``).
        ValueError
            If the model is not built.
        OSError
            If the place cannot be written.
        """
        weights = self._built()
        with self.lock:
            tensors.write(path, {w.name: w.value for w in weights})

    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Overwrite all parameters by those of a safetensors file, of `save_weights` or of another library.

        Parameters
        ----------
        path : str or path-like
            Has one tensor for each of `weights`, of its name and shape and any real type, and no others.

        Raises
        ------
        ImportError
            Without the package safetensors (``elman[safetensors]``).
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is no such file, or damaged, or the model is not built, or a name, a shape or a value does not fit;
            nothing is written then.
        """
        weights, found, file = list(self._built()), tensors.read(path), os.fspath(path)
        names = [w.name for w in weights]
        if found.keys() != set(names):
            missing, unknown = [n for n in names if n not in found], sorted(found.keys() - set(names))
            raise BadFile(f"path: {file!r} does not fit the model: it lacks {missing}, and has {unknown} too many")
        values = [
            checks.shaped(f"path: {file!r}, {name!r}", found[name], value.shape, self.dtype) for name, value in weights
        ]
        with self.lock:
            self.set_weights(values)

    def _state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Everything the model is: JSON values and arrays."""
        with self.lock:
            return self._state_between_batches()

    def _state_between_batches(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """With the lock, which keeps other threads from training meanwhile."""
        header: dict[str, Any] = {"config": self.get_config(), "shuffle": self._shuffle.bit_generator.state}
        header["draws"] = self._draws
        arrays = {} if self._vector is None else {"parameters": self._vector.values.copy(), **self._states.arrays()}
        if self._vector is not None:
            header["noise"] = self._noise
            if self.loss is not None and self._optimizer_ready:
                header["trained"] = self._vector.trainable.tolist()
        if self.loss is not None:
            header["compile"] = self.get_compile_config()
            if self._optimizer_ready:
                arrays |= {f"optimizer/{name}": value for name, value in self.optimizer.state().items()}
        return header, arrays

    @classmethod
    def _restore(cls, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Sequential:
        """The model of a `_state`."""
        model = cls.from_config(header["config"])
        if "compile" in header:
            model.compile(**header["compile"])
        model._load_state(header, arrays)
        return model

    def _load_state(self, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Continue from a `_state` of a model of the same configuration, compiled likewise."""
        parameters = arrays.get("parameters")
        if parameters is not None:
            if self._vector is None:
                if header["config"]["input_shape"] is None:
                    raise BadValue("it has parameters, but the model is not built")
                self.build(tuple(header["config"]["input_shape"]))
            expected = self._vector.values
            if parameters.shape != expected.shape or parameters.dtype != self.dtype:
                raise BadValue(
                    f"the configuration has {expected.size} {self.dtype} parameters, the file "
                    f"{parameters.size} {parameters.dtype}"
                )
        state = {k.removeprefix("optimizer/"): v for k, v in arrays.items() if k.startswith("optimizer/")}
        if state:
            self._compiled()
            flags = header["trained"]
            if len(flags) != len(self._vector.trainable) or not all(isinstance(f, bool) for f in flags):
                raise BadValue(f"trained: expected {len(self._vector.trainable)} booleans, got {flags!r}")
            self._ready_optimizer(flags)
            self.optimizer.set_state(state)  # refuses what does not fit before anything is written
        if parameters is not None:
            self._vector.values[:] = parameters
            self._set_noise(int(header["noise"]))
            self._states.restore(arrays, self._recurrent_layers(stateful=False))
        self._draws = int(header["draws"])
        self._shuffle.bit_generator.state = header["shuffle"]

    def __reduce__(self) -> tuple[Any, ...]:
        # For copy and pickle: a copied view would no longer belong to the copied vector.
        return type(self)._restore, self._state()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Sequential:
        """The model `save` wrote; see `elman.load_model`."""
        header, arrays = archive.read(path, cls.__name__)
        try:
            if "parameters" not in arrays:
                raise BadValue("it has no parameters")
            with at_most(2 * arrays["parameters"].size):
                return cls._restore(header, arrays)
        except MemoryError:
            raise
        except Exception as error:  # a description may be anything
            raise BadFile(f"path: {os.fspath(path)!r} does not describe a model ({error})") from error


def load_model(path: str | os.PathLike[str]) -> Sequential:
    """Load a model that `Sequential.save` wrote, ready to predict and to train on.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    Sequential
        With parameters, optimizer and its state, and the state of shuffling: training goes on with the same bits.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no such file, damaged, or of a newer format. Nothing in a file is ever executed.

    Examples
    --------
    >>> import os, tempfile
    >>> import elman
    >>> model = elman.Sequential([elman.layers.Input((5, 2)), elman.layers.GRU(3)], seed=0)
    >>> path = os.path.join(tempfile.mkdtemp(), "model.npz")
    >>> model.save(path)
    >>> elman.load_model(path).count_params()
    63
    """
    return Sequential.load(path)
