"""Names of the activations that layers and cells take."""

from elman.layers.activation import ACTIVATION_NAMES

__all__ = ["ACTIVATION_NAMES"]
