"""Long series as training data: windows by index, and contiguous lanes for truncated backpropagation through time."""

from elman.data.lanes import Lanes
from elman.data.windows import Permutation, Windows, timeseries_windows

__all__ = ["Lanes", "Permutation", "Windows", "timeseries_windows"]
