"""The cell shown in CONTRIBUTING.md works as printed."""

import re
from pathlib import Path

import numpy as np

import elman
from elman.cells import CELLS

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()


def test_new_cell_of_the_guide(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 2
    source = tmp_path / "ugrnn.py"
    source.write_text("\n".join(blocks))
    try:
        exec(compile(source.read_text(), str(source), "exec"), {"__name__": "ugrnn"})
        # A layer by name, which trains and comes back from disk.
        rng = np.random.default_rng(0)
        x = rng.normal(size=(64, 10, 2))
        y = x[:, -3:, 0].sum(axis=1)
        model = elman.Sequential([elman.layers.RNN(12, cell="ugrnn"), elman.layers.Dense(1)], seed=0)
        model.compile(elman.optimizers.Adam(1e-2), "mse")
        losses = model.fit(x, y, epochs=60, verbose=0).history["loss"]
        assert losses[-1] < 0.1 * y.var()
        model.save(tmp_path / "model.npz")
        np.testing.assert_array_equal(elman.load_model(tmp_path / "model.npz").predict(x), model.predict(x))
    finally:
        CELLS.pop("ugrnn", None)
