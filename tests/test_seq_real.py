"""Sequences of real data, where they are at hand: what a small model reaches on them."""

from pathlib import Path

import numpy as np
import pytest

from elman import Sequential, num_threads
from elman.data import Lanes
from elman.layers import LSTM, Dense, Dropout, Embedding
from elman.losses import SparseCategoricalCrossentropy
from elman.optimizers import Adam

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _one_thread():
    """Models this small gain nothing from a second one, which a busy machine may withhold for long."""
    with num_threads(1):
        yield


def needs(name):
    return pytest.mark.skipif(not (DATA / name).exists(), reason=f"{name} is not at hand")


def vowels(part):
    """Utterances (N, 29, 12), zeros after their end; their lengths, 7 to 29; the speakers 0 to 8."""
    text = (DATA / "japanese_vowels" / f"JapaneseVowels_{part}.ts").read_text()
    rows = [line.split(":") for line in text.split("@data", 1)[1].split()]
    series = [np.array([c.split(",") for c in row[:-1]], float).T for row in rows]
    x = np.zeros((len(series), 29, 12), np.float32)
    for k, s in enumerate(series):
        x[k, : len(s)] = s
    return x, np.array([len(s) for s in series]), np.array([int(row[-1]) - 1 for row in rows])


@needs("japanese_vowels")
def test_speakers_of_utterances_of_different_lengths():
    x, lengths, y = vowels("TRAIN")
    test_x, test_lengths, test_y = vowels("TEST")
    assert (x.shape, test_x.shape) == ((270, 29, 12), (370, 29, 12))
    assert (lengths.min(), lengths.max(), test_lengths.min(), test_lengths.max()) == (7, 26, 7, 29)
    model = Sequential([LSTM(32), Dropout(0.4), Dense(9, "softmax")], seed=0)
    model.compile(Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, lengths=lengths, batch_size=32, epochs=40, verbose=0)
    accuracy = model.evaluate(test_x, test_y, lengths=test_lengths, verbose=0)[1]
    assert accuracy >= 0.93
    # Frames after the end count for nothing.
    test_x[np.arange(29) >= test_lengths[:, None]] = 1e3
    assert model.evaluate(test_x, test_y, lengths=test_lengths, verbose=0)[1] == accuracy


@needs("tinyshakespeare")
def test_characters_are_predicted_better_than_by_their_frequencies():
    text = (DATA / "tinyshakespeare" / "input.txt").read_text()[:200_000]
    characters, tokens = np.unique(list(text), return_inverse=True)
    shares = np.bincount(tokens) / len(tokens)
    entropy = -(shares * np.log(shares)).sum()
    layers = [Embedding(len(characters), 16), LSTM(64, return_sequences=True), Dense(len(characters))]
    model = Sequential(layers, seed=0)
    model.compile(Adam(0.005), SparseCategoricalCrossentropy(from_logits=True))
    lanes = Lanes.next_token(tokens, 32)
    loss = model.fit(lanes, tbptt=(50, 50), epochs=1, verbose=0).history["loss"][0]
    assert loss < entropy
    assert model.evaluate(lanes, verbose=0) < 0.8 * entropy
