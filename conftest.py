"""Doctests only where what they need is installed."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("sktime") else ["src/elman/forecasting/sktime.py"]
