"""Covariates as float32: numbers as they are, labels as codes of categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from elman.errors import BadType
from elman.warn import warn

Categories = Mapping[str, tuple[str, ...]]


def encode(
    argument: str, name: str, column: np.ndarray | Sequence[Any], learned: Categories | None = None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """A column as float32 (n,), and the labels its numbers stand for; None for a column of numbers.

    Parameters
    ----------
    argument, name : str
        What an error calls the argument and the column.
    column : ndarray (n,) of numbers, or sequence of n numbers or labels
        None and NaN among labels are missing: their code is the number of labels in past covariates, elsewhere NaN,
        which a panel refuses.
    learned : mapping of str to tuple of str, optional
        Labels of all categorical columns, found earlier; the code of labels that are not among them is their number,
        with one warning. None to find them, in sorted order.

    Raises
    ------
    TypeError
        For anything but numbers, booleans and strings, and for a column that once had numbers and now has labels.

    Examples
    --------
    >>> encode("static", "shop", ["north", "south", "north"])
    (array([0., 1., 0.], dtype=float32), ('north', 'south'))
    """
    labels = None if learned is None else learned.get(name)
    if isinstance(column, np.ndarray) and column.dtype.kind in "fiub":
        if labels is None:
            with np.errstate(over="ignore"):
                return column.astype(np.float32, copy=False), None
        column = column.tolist()
    items = column.tolist() if isinstance(column, np.ndarray) else column
    if labels is None and all(item is None or isinstance(item, (int, float, np.number, np.bool_)) for item in items):
        # One list of floats: None becomes NaN.
        return np.array(items, np.float64).astype(np.float32), None
    texts = [_text(argument, name, item) for item in items]
    found = {text for text in texts if text is not None}
    if learned is None:
        labels = tuple(sorted(found))
    elif labels is None:
        raise BadType(
            f"{argument}: column {name!r} had numbers in the fit and now has labels such as {min(found)!r}; give"
            " numbers"
        )
    else:
        texts = [_alike(text, labels) for text in texts]  # a merge makes floats of integers
        found = {text for text in texts if text is not None}
        _warn_unknown(argument, name, sorted(found.difference(labels)))
    codes: dict[str | None, float] = {label: code for code, label in enumerate(labels)}
    codes[None] = missing_code(argument, labels)
    return np.fromiter(map(codes.get, texts, repeat(len(labels))), np.float32, len(texts)), labels


def _alike(text: str | None, labels: tuple[str, ...]) -> str | None:
    """`text`, or if only that is known, the same number with or without ".0"."""
    if text is None or text in labels:
        return text
    other = text.removesuffix(".0") if text.endswith(".0") else f"{text}.0"
    return other if other in labels else text


def missing_code(argument: str, labels: tuple[str, ...] | None) -> float:
    """What stands for a missing value: NaN, but in past covariates of categories the number of labels."""
    return np.nan if labels is None or argument != "past" else len(labels)


def _text(argument: str, name: str, item: Any) -> str | None:
    if isinstance(item, str):
        return item
    if item is None or item != item:  # NaN, and pandas' NaT
        return None
    if isinstance(item, (int, float, np.number, np.bool_)):
        return str(item)
    raise BadType(
        f"{argument}: column {name!r} holds {type(item).__name__} {item!r}; a covariate is a column of numbers, of"
        " booleans or of strings"
    )


def _warn_unknown(argument: str, name: str, unknown: list[str]) -> None:
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        shown = ", ".join(map(repr, unknown[:5]))
        warn(
            f"{argument}: column {name!r} has values that the fit did not see: {shown}{more}; they are treated as"
            " unknown"
        )


def stack(
    argument: str, columns: Mapping[str, np.ndarray | Sequence[Any]], rows: int, learned: Categories | None = None
) -> tuple[np.ndarray, dict[str, tuple[str, ...]]]:
    """Encoded columns side by side (rows, len(columns)), float32, and the categories among them."""
    array = np.empty((rows, len(columns)), np.float32)
    categories = {}
    for j, (name, column) in enumerate(columns.items()):
        array[:, j], labels = encode(argument, name, column, learned)
        if labels is not None:
            categories[name] = labels
    return array, categories
