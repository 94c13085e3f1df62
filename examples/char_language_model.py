"""A character language model: learn a text, print its loss in nats and bits per character, write some more of it.

The first 90 % of the text are cut into 64 lanes that are read side by side; every 64 steps the weights are updated and
the states carried on (truncated backpropagation through time). The last 10 % are the test.

    python examples/char_language_model.py shakespeare.txt [--units 512] [--epochs 8] [--minutes 9]

Without a file it learns the sources of this package.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np

import elman
from elman.layers import LSTM, Dense, Dropout, Embedding, Input

LANES, STEPS = 64, 64


class StopAfter(elman.callbacks.Callback):
    """End training with the epoch in which the time is up."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Look at the clock."""
        if time.monotonic() > self.end:
            self.model.stop_training = True


def read(path: Path | None) -> str:
    """The text of a file, or of the package's modules."""
    if path is not None:
        return path.read_text(encoding="utf-8")
    files = sorted(Path(elman.__file__).parent.rglob("*.py"))
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def build(characters: int, units: int, dropout: float, epochs: int, updates: int) -> elman.Sequential:
    """Embedding, one LSTM, and the logits of the next character."""
    layers = [
        Input((None,)),
        Embedding(characters, 64),
        LSTM(units, return_sequences=True),
        Dropout(dropout),
        Dense(characters),
    ]
    model = elman.Sequential(layers, seed=0)
    rate = elman.schedules.CosineDecay(4e-3, epochs * updates, alpha=0.02)
    loss = elman.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(elman.optimizers.Adam(rate, global_clipnorm=1.0), loss)
    return model


def main() -> None:
    """Train, test, and print a sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, nargs="?", help="a text file")
    parser.add_argument("--units", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--dropout", type=float, default=0.4)
    parser.add_argument("--minutes", type=float, default=9.0, help="stop after the epoch in which this is over")
    parser.add_argument("--characters", type=int, help="read only so many")
    parser.add_argument("--sample", type=int, default=400, help="characters to write at the end")
    options = parser.parse_args()

    text = read(options.text)[: options.characters]
    vocabulary, tokens = np.unique(list(text), return_inverse=True)
    cut = int(0.9 * len(tokens))
    train = elman.data.Lanes.next_token(tokens[:cut], LANES)
    test = elman.data.Lanes.next_token(tokens[cut:], 8)
    print(f"{len(text):,} characters, {len(vocabulary)} different ones; {len(tokens) - cut:,} for the test")

    begin = time.monotonic()
    updates = -(-train.x.shape[1] // STEPS)
    model = build(len(vocabulary), options.units, options.dropout, options.epochs, updates)
    stop = StopAfter(options.minutes)
    model.fit(train, epochs=options.epochs, tbptt=(STEPS, STEPS), validation_data=test, callbacks=[stop])
    nats = model.evaluate(test, verbose=0)
    print(f"test: {nats:.3f} nats = {nats / math.log(2):.3f} bits per character, {time.monotonic() - begin:.0f} s")

    new = elman.generate(model, tokens[cut : cut + 200], options.sample, temperature=0.8, seed=0)
    print("".join(vocabulary[new]))


if __name__ == "__main__":
    main()
