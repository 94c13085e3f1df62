"""``y = act(x W + b)``: a cell without recurrence, so that dense layers run on the scan's products and threads."""

from elman.cells.simple import _kernels
from elman.cells.spec import Cell


def _reference(x, r, state, act, gate):
    return (act(x[0]),)


# Not registered: it is no recurrent cell. Its backward is Elman's.
DENSE = Cell("dense", states=1, x=(0,), h=(), kernels=_kernels, reference=_reference)
"""Dense map applied at every step; no recurrent kernel."""
