"""The training loop, its data and its callbacks; `elman.Sequential` calls it."""
