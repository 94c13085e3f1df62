"""Names to objects and back: what the registries of losses, metrics and optimizers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from elman.checks import choose, shown
from elman.errors import BadType, BadValue


def names(table: Mapping[str, type]) -> dict[str, type]:
    """Every accepted name of a registry: its keys, the class names, and the aliases in both cases."""
    known: dict[str, type] = {}
    for key, cls in table.items():
        for name in (key, cls.__name__, *getattr(cls, "aliases", ())):
            known[name] = cls
        known.update({alias.upper(): cls for alias in getattr(cls, "aliases", ())})
    return known


def resolve(argument: str, identifier: Any, table: Mapping[str, type], base: type) -> Any:
    """An instance of `base` from an instance, a class, a name of `table`, or ``{"class_name": …, "config": …}``.

    Raises
    ------
    TypeError
        If `identifier` is none of these.
    ValueError
        If the name is unknown (the message has the nearest one), or the config does not fit the class.

    Examples
    --------
    >>> resolve("shape", "ring", {"ring": dict}, dict)
    {}
    """
    if isinstance(identifier, type) and issubclass(identifier, base):
        return identifier()
    if isinstance(identifier, Mapping) and "class_name" in identifier:
        known = names(table)
        cls = known[choose(argument, identifier["class_name"], known)]
        config = identifier.get("config", {})
        try:
            return cls(**config)
        except TypeError as error:
            raise BadValue(f"{argument}: config {config!r} does not fit {cls.__name__}: {error}") from None
    if isinstance(identifier, base):
        return identifier
    if not isinstance(identifier, str):
        raise BadType(
            f"{argument}: expected a name, a {base.__name__} or a dict with 'class_name' and 'config', "
            f"got {type(identifier).__name__} {identifier!r}"
        )
    known = names(table)
    return known[choose(argument, identifier, known)]()


def registered(argument: str, instance: Any, table: Mapping[str, type]) -> None:
    """ValueError unless a file that names the class of `instance` can be read again."""
    if type(instance) not in table.values():
        name = type(instance).__name__
        raise BadValue(f"{argument}: {name} is in no registry, so a saved model could not find it; register it first")


def serialize(instance: Any) -> dict[str, Any]:
    """``{"class_name": …, "config": …}`` of an object with `get_config`; JSON can hold it."""
    return {"class_name": type(instance).__name__, "config": instance.get_config()}


def number(argument: str, value: Any, low: float, high: float | None = None, *, open_low: bool = False) -> float:
    """`value` as a finite float in [low, high], or (low, high] with `open_low`; TypeError or ValueError otherwise."""
    try:
        if isinstance(value, (bool, str, bytes)):
            raise BadType
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        raise BadType(f"{argument}: expected a number, got {type(value).__name__} {shown(value)}") from None
    fits = result > low if open_low else result >= low
    # Infinity and NaN fail the difference.
    if not fits or result - result != 0 or (high is not None and result > high):
        span = f"> {low:g}" if open_low else f">= {low:g}"
        span += "" if high is None else f" and <= {high:g}"
        raise BadValue(f"{argument}: expected a finite number {span}, got {result}")
    return result
