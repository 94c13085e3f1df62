"""`Sequential`: a stack of layers that is compiled, fitted, evaluated, saved."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from elman import archive, checks
from elman.layers import Input, Layer
from elman.layers.base import Shape, assign, check_shape, deserialize, display, serialize
from elman.parameters import ParameterVector, Spec, Weight
from elman.training.data import check_rows
from elman.training.trainer import Trainer


class Sequential(Trainer):
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

    def __init__(self, layers: Sequence[Layer] = (), dtype: str = "float32", seed: int | None = None) -> None:
        self.dtype = checks.float_dtype("dtype", dtype)
        self.seed = seed if seed is None else checks.integer("seed", seed, 0)
        self.layers: list[Layer] = []
        self._input: Input | None = None
        super().__init__(self.seed)
        if isinstance(layers, Layer):
            raise TypeError("layers: expected a sequence of layers, got one layer")
        for layer in layers:
            self._append(layer)
        if self._input is not None and self.layers:
            self.build(self._input.shape)

    # ---- building

    def add(self, layer: Layer) -> None:
        """Append a layer to a model that is not built yet.

        Raises
        ------
        TypeError, ValueError
            If it is no layer, or the model is built.

        Examples
        --------
        >>> import elman
        >>> model = elman.Sequential()
        >>> model.add(elman.layers.LSTM(3))
        >>> len(model.layers)
        1
        """
        if self._vector is not None:
            raise ValueError("layer: the model is built already; list all layers when making it")
        self._append(layer)

    def _append(self, layer: Layer) -> None:
        if not isinstance(layer, Layer):
            raise TypeError(f"layers: expected a layer, got {type(layer).__name__} {layer!r}")
        for part in (layer, *layer.inner()):
            if any(part is known for known in self._parts()):
                raise ValueError(f"layers: the same {type(part).__name__} instance stands twice; make a second one")
        if isinstance(layer, Input):
            if self.layers or self._input is not None:
                raise ValueError("layers: Input must be the first layer")
            self._input = layer
            return
        if getattr(layer, "return_state", False):
            raise ValueError(
                f"layers: {type(layer).__name__} with return_state=True has several outputs, which Sequential cannot "
                "pass on; call the layer itself on an array"
            )
        self.layers.append(layer)

    def _parts(self) -> list[Layer]:
        """All layers, with those they hold."""
        return [part for layer in self.layers for part in (layer, *layer.inner())]

    def build(self, shape: Shape) -> None:
        """Create the parameters for inputs of `shape`, without the batch; done by the first data if not before.

        Parameters
        ----------
        shape : tuple of int or None
            (T, I) with T None for any length, or (F,).

        Raises
        ------
        ValueError
            If a layer cannot take its input; nothing is built then.

        Examples
        --------
        >>> import elman
        >>> model = elman.Sequential([elman.layers.LSTM(3)])
        >>> model.build((None, 2))
        >>> model.count_params()
        72
        """
        if not self.layers:
            raise ValueError("layers: the model has none")
        if self._vector is not None:
            raise ValueError("shape: the model is built already")
        shapes = self._shapes(tuple(shape))
        for part in self._parts():
            if part.owner is not None and part.owner() is not None:
                raise ValueError(f"layers: {part.name!r} belongs to another model already; make a second one")
        self._name_layers()
        specs, counts = [], []
        for layer, s in zip(self.layers, shapes[:-1], strict=True):
            own = [Spec(f"{layer.name}/{p.name}", p.shape, p.initializer) for p in layer.specs(s)]
            specs += own
            counts.append(len(own))
        vector = ParameterVector(specs, self.dtype, np.random.default_rng(self.seed))
        values, gradients = iter(vector.views(vector.values)), iter(vector.views(vector.gradients))
        for layer, s, n in zip(self.layers, shapes[:-1], counts, strict=True):
            had = layer.get_weights()
            arrays = [next(values) for _ in range(n)], [next(gradients) for _ in range(n)]
            layer.build(s, self.dtype, lambda arrays=arrays: arrays)
            if [w.shape for w in had] == [p.shape for p in layer.parameters]:
                layer.set_weights(had)  # a layer that was called alone keeps what it has
        for part in self._parts():
            part.owner, part.lock = weakref.ref(self), self.lock
        self._vector = vector
        self._input = self._input or Input(shapes[0])
        self.output_shape = shapes[-1]
        # The first layer with parameters needs no gradient of its input.
        self._first = next((k for k, n in enumerate(counts) if n), len(self.layers))

    def _shapes(self, shape: Shape) -> list[Shape]:
        shapes = [shape]
        for layer in self.layers:
            shapes.append(layer.compute_output_shape(shapes[-1]))
        return shapes

    def _name_layers(self) -> None:
        taken = [layer.name for layer in self.layers if layer.name]
        if len(set(taken)) != len(taken):
            raise ValueError(f"layers: names must differ, got {taken}")
        for layer in self.layers:
            if layer.name is None:
                base = type(layer).__name__.lower()
                number = sum(name == base or name.startswith(f"{base}_") for name in taken)
                layer.name = base if number == 0 else f"{base}_{number}"
                taken.append(layer.name)

    def _built(self) -> ParameterVector:
        if self._vector is None:
            raise ValueError("model: not built yet; begin it with Input(shape), call build(shape) or fit it")
        return self._vector

    # ---- data at the border

    def _check_x(self, x: Any, argument: str = "x", like: np.ndarray | None = None) -> np.ndarray:
        x = checks.numeric(argument, x)
        shape = self._input.shape if self._input is not None else None if like is None else self._shape_for(like)
        if x.ndim == 2 and (self._wants_sequences(x) if shape is None else len(shape) == 2):
            x = x[:, :, None]
        check_shape(f"{argument}:", x.shape[1:], self._shape_for(x, argument) if shape is None else shape)
        check_rows(argument, x, self.dtype)
        return x

    def _wants_sequences(self, x: np.ndarray) -> bool:
        """Whether the layers cannot take the vectors x (N, T), but can take them as sequences of one feature."""

        def fits(shape: Shape) -> bool:
            try:
                return bool(self._shapes(shape))
            except ValueError:
                return False

        return not fits(x.shape[1:]) and (fits((None, 1)) or fits((x.shape[1], 1)))

    def _shape_for(self, x: np.ndarray, argument: str = "x") -> Shape:
        """The input shape a model that is not built yet takes from x: any number of steps, if the layers allow it."""
        if not self.layers:
            raise ValueError("layers: the model has none")
        if x.ndim not in (2, 3):
            raise ValueError(f"{argument}: expected (N, time, features), (N, time) or (N, features), got {x.shape}")
        try:
            free = (None,) * (x.ndim - 2) + x.shape[-1:]
            self._shapes(free)
        except ValueError:
            self._shapes(x.shape[1:])
            return x.shape[1:]
        return free

    def _build_for(self, x: np.ndarray) -> None:
        if self._vector is None:
            self.build(self._shape_for(x))

    def _output_shape(self, x: np.ndarray) -> tuple[int, ...]:
        return (len(x), *self._shapes(x.shape[1:])[-1])

    # ---- arithmetic

    def _forward(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        for layer in self.layers:
            x = layer.forward(x, training=training)
            if x.dtype != self.dtype:  # kernels would read other numbers
                raise TypeError(f"layer {layer.name!r}: forward returned {x.dtype}, the model computes in {self.dtype}")
        return x

    def _backward(self, dy: np.ndarray) -> None:
        for k in range(len(self.layers) - 1, self._first - 1, -1):
            dy = self.layers[k].backward(dy, input_gradient=k > self._first)
            if k > self._first and dy.dtype != self.dtype:
                name = self.layers[k].name
                raise TypeError(f"layer {name!r}: backward returned {dy.dtype}, the model computes in {self.dtype}")

    # ---- parameters

    @property
    def weights(self) -> list[Weight]:
        """Names and live arrays of all parameters, in the order of `get_weights`."""
        return list(self._built())

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all parameters, layer by layer: kernel, recurrent kernel, bias."""
        return [w.value.copy() for w in self._built()]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Overwrite all parameters.

        Raises
        ------
        ValueError, TypeError
            If number, a shape or a value does not fit; nothing is written then.
        """
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

    def save(self, path: str | os.PathLike) -> None:
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
        with self.lock:
            header, arrays = self._state()
        archive.write(path, type(self).__name__, header, arrays)

    def _state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Everything the model is: JSON values and arrays."""
        header: dict[str, Any] = {"config": self.get_config(), "shuffle": self._shuffle.bit_generator.state}
        arrays = {} if self._vector is None else {"parameters": self._vector.values.copy()}
        if self.loss is not None:
            header["compile"] = self.get_compile_config()
            if self._optimizer_ready:
                arrays |= {f"optimizer/{name}": value for name, value in self.optimizer.state().items()}
        return header, arrays

    @classmethod
    def _restore(cls, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Sequential:
        """The model of a `_state`."""
        model = cls.from_config(header["config"])
        if "parameters" in arrays:
            vector, parameters = model._built(), arrays["parameters"]
            if parameters.shape != vector.values.shape or parameters.dtype != model.dtype:
                raise ValueError(
                    f"the configuration has {vector.values.size} {model.dtype} parameters, the file "
                    f"{parameters.size} {parameters.dtype}"
                )
            vector.values[:] = parameters
        if "compile" in header:
            model.compile(**header["compile"])
            state = {k.removeprefix("optimizer/"): v for k, v in arrays.items() if k.startswith("optimizer/")}
            if state:
                model._ready_optimizer()
                model.optimizer.set_state(state)
        model._shuffle.bit_generator.state = header["shuffle"]
        return model

    def __reduce__(self) -> tuple:
        # For copy and pickle: a copied view would no longer belong to the copied vector.
        return type(self)._restore, self._state()

    @classmethod
    def load(cls, path: str | os.PathLike) -> Sequential:
        """The model `save` wrote; see `elman.load_model`."""
        header, arrays = archive.read(path, cls.__name__)
        try:
            if "parameters" not in arrays:
                raise ValueError("it has no parameters")
            return cls._restore(header, arrays)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"path: {os.fspath(path)!r} does not describe a model ({error})") from error


def load_model(path: str | os.PathLike) -> Sequential:
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
