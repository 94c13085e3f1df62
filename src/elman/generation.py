"""Text and other tokens from a model that predicts the next one."""

from __future__ import annotations

from typing import Any

import numpy as np

from elman import checks, registry
from elman.errors import BadType, BadValue
from elman.layers.activation import activation_of

__all__ = ["generate"]


def generate(
    model: Any,
    seed_tokens: Any,
    length: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int | None = None,
) -> np.ndarray:
    """Continue sequences of tokens by drawing one after another from a model's predictions.

    The model reads each token once and keeps its states, so a token costs the same however many came before.

    Parameters
    ----------
    model : Sequential
        Takes token ids, by an `Embedding` as first layer, or one-hot vectors (T, V), and predicts the next of V tokens,
        at every step or after the last: probabilities, by a softmax, or logits. It must not look ahead: no
        `Bidirectional`, no `go_backwards`.
    seed_tokens : array_like of int, (S,) or (B, S)
        What the model reads first: one sequence, or several of the same length, which are continued side by side.
    length : int
        Tokens to draw.
    temperature : float
        Logits are divided by it: below 1 likely tokens become more likely, above 1 less. 0 takes the most likely one,
        the first of equals.
    top_k : int, optional
        Draw only from the `top_k` most likely tokens.
    seed : int, optional
        Of the draws; the same seed gives the same tokens.

    Returns
    -------
    ndarray of int64, (length,) or (B, length)
        Without the seed tokens.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range; for token ids outside the vocabulary (the first is named); if the model is not
        built, its outputs are no probabilities, no logits or not finite, or it cannot be run step by step.

    Notes
    -----
    Whether outputs are logits is read from the loss's ``from_logits``, else from the activation of the last layer.
    The states of `stream_step` begin anew, and end where the last token was read.
    Draws are made in float64 from one uniform number each, by inversion of the cumulative distribution.

    Examples
    --------
    >>> import numpy as np
    >>> import elman
    >>> layers = elman.layers
    >>> stack = [layers.Input((None, 5)), layers.GRU(8, return_sequences=True), layers.Dense(5, activation="softmax")]
    >>> model = elman.Sequential(stack, seed=0)
    >>> elman.generate(model, [0, 3], 4, seed=1).shape
    (4,)
    """
    count = checks.integer("length", length)
    heat = registry.number("temperature", temperature, 0)
    reads_ids, inputs, outputs = _vocabulary(model)
    k = outputs if top_k is None else min(outputs, checks.integer("top_k", top_k))
    tokens = _tokens(seed_tokens, inputs)
    batch = tokens.reshape(-1, tokens.shape[-1])
    logits = _gives_logits(model)
    rng = np.random.default_rng(None if seed is None else checks.integer("seed", seed, 0))
    drawn = np.empty((len(batch), count), np.int64)
    with model.lock:
        model.reset_states("stream")
        read = batch
        for n in range(count):
            scores = model.stream_step(_input(read, reads_ids, inputs, model.dtype))
            last = scores.reshape(len(batch), -1, outputs)[:, -1]
            drawn[:, n] = _draw(_log_probabilities(last, n, logits=logits), heat, k, rng)
            read = drawn[:, n : n + 1]
    return drawn.reshape(*tokens.shape[:-1], count)


def _vocabulary(model: Any) -> tuple[bool, int, int]:
    """Whether the model reads ids, how many there are, and how many tokens it predicts."""
    if not hasattr(model, "stream_step"):
        raise BadType(f"model: expected an elman.Sequential, got {type(model).__name__}")
    if not model.layers or model.layers[0].shape is None:
        raise BadValue("model: not built yet; begin it with Input(shape), call build(shape) or fit it")
    first, outputs = model.layers[0], model.output_shape[-1]
    reads_ids = len(first.shape) == 1
    inputs = getattr(first, "input_dim", None) if reads_ids else first.shape[-1]
    if inputs is None:
        raise BadValue(f"model: expected an Embedding or one-hot steps, the first layer takes vectors {first.shape}")
    if outputs < 2:
        raise BadValue("model: it has one output, which predicts a number and no token")
    if outputs > inputs:
        raise BadValue(f"model: it predicts {outputs} tokens but reads only {inputs}")
    return reads_ids, inputs, outputs


def _tokens(given: Any, vocabulary: int) -> np.ndarray:
    tokens = checks.numeric("seed_tokens", given)
    if tokens.dtype.kind not in "iu":
        raise BadType(f"seed_tokens: expected integers, got {tokens.dtype}")
    if tokens.ndim not in (1, 2):
        raise BadValue(f"seed_tokens: expected shape (S,) or (B, S), got {tokens.shape}")
    bad = np.argwhere((tokens < 0) | (tokens >= vocabulary))
    if bad.size:
        where = tuple(int(i) for i in bad[0])
        raise BadValue(f"seed_tokens: {tokens[where]} at index {where} is not one of 0 to {vocabulary - 1}")
    return tokens.astype(np.int64)


def _gives_logits(model: Any) -> bool:
    """Whether outputs are logits, rather than probabilities."""
    told = getattr(model.loss, "from_logits", None)
    if told is not None:
        return bool(told)
    activation = activation_of(model.layers[-1])
    if activation in (None, "linear"):
        return True
    if activation == "softmax":
        return False
    raise BadValue(f"model: expected a last layer with softmax or without activation, got {activation!r}")


def _input(tokens: np.ndarray, reads_ids: bool, vocabulary: int, dtype: np.dtype) -> np.ndarray:
    """Tokens (B, S) as numbers, or one-hot (B, S, V)."""
    if reads_ids:
        return tokens.astype(dtype)
    x = np.zeros((*tokens.shape, vocabulary), dtype)
    np.put_along_axis(x, tokens[..., None], 1, axis=-1)
    return x


def _log_probabilities(outputs: np.ndarray, step: int, *, logits: bool) -> np.ndarray:
    """Logarithms of probabilities (B, V) up to a constant, in float64."""
    scores = outputs.astype(np.float64)
    if not np.isfinite(scores).all():
        raise BadValue(f"model: its outputs for token {step} are not finite")
    if logits:
        return scores
    total = scores.sum(axis=1)
    if scores.min() < 0 or np.abs(total - 1).max() > 0.01:
        raise BadValue(
            f"model: its outputs for token {step} are no probabilities: the least is {scores.min():.3g}, the first sum "
            f"{total[0]:.3g}"
        )
    with np.errstate(divide="ignore"):
        return np.log(scores)


def _draw(scores: np.ndarray, temperature: float, k: int, rng: np.random.Generator) -> np.ndarray:
    """One token per row."""
    if temperature == 0:
        return scores.argmax(axis=1)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(scores, best, 1)
    with np.errstate(over="ignore"):  # what is infinitely less likely has a probability of 0
        cumulative = np.exp((kept - kept[:, :1]) / temperature).cumsum(axis=1)
    # The first token whose sum is above the number: one of probability 0 never is.
    places = (cumulative <= rng.random((len(scores), 1)) * cumulative[:, -1:]).sum(axis=1)
    return np.take_along_axis(best, places[:, None], 1)[:, 0]
