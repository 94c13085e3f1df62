"""Damaged and hostile files, loaded and used: ``fuzz_files.py COUNT FOLDER``; see tests/fuzzing.py."""

import copy
import io
import json
import pickle
import struct
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
from fuzzing import Judge, confine, explore, report, watch
from hypothesis import strategies as st

import elman
from elman import archive as files
from elman import layers

X = np.random.default_rng(0).normal(size=(4, 6, 2)).astype(np.float32)
Y = np.ones((4, 1), np.float32)
SERIES = np.sin(np.arange(40.0)) + 2


class Bomb:
    """A pickle that leaves a file behind where it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


# ---- the files that are damaged, and what is done with what they give


def plain(folder):
    model = elman.Sequential([layers.Input((6, 2)), layers.GRU(3), layers.Dense(1)], seed=0)
    model.compile(elman.optimizers.Adam(0.01), elman.losses.Huber(), metrics=["mae"])
    model.fit(X, Y, verbose=0)
    model.save(folder / "plain")


def rich(folder):
    stack = [
        layers.Embedding(5, 3), layers.LSTM(3, stateful=True, return_sequences=True, kernel_regularizer="l2"),
        layers.LayerNormalization(), layers.Bidirectional(layers.SimpleRNN(2)), layers.Dense(4, "softmax"),
    ]  # fmt: skip
    model = elman.Sequential([layers.Input((6,)), *stack], seed=0)
    schedule = elman.schedules.CosineDecay(0.01, 10)
    model.compile(elman.optimizers.AdamW(schedule), "sparse_categorical_crossentropy")
    model.fit(np.arange(24).reshape(4, 6) % 5, np.arange(4), verbose=0, batch_size=4, shuffle=False)
    model.save(folder / "rich")


def segments(folder):
    model = elman.Sequential([layers.Input((8, 2)), layers.SegmentRNN(3, 2, 2, layers=2)], seed=0)
    model.compile("sgd", "mse")
    model.save(folder / "segments")


def forecaster(folder):
    elman.Forecaster(3, units=3, epochs=1, season=7, scale="series").fit(
        {"a": SERIES, "b": SERIES[:20]}, past={"a": SERIES, "b": SERIES[:20]}, static=[["x"], ["y"]], verbose=0
    ).save(folder / "forecaster")


def recursive(folder):
    f = elman.Forecaster(2, units=2, epochs=1, head="recursive", loss="normal", deseasonalize=True, season=5)
    f.fit(SERIES, verbose=0).calibrate(SERIES).save(folder / "recursive")


def use_model(model):
    """Predict and train on whatever the model takes."""
    shape = model._input.shape
    tokens = isinstance(model.layers[0], layers.Embedding)
    x = np.zeros((4, *(6 if n is None else min(n, 99) for n in shape)), np.int64 if tokens else np.float32)
    y = model.predict(x, batch_size=4)
    if model.loss is not None:
        labels = model.loss.labels
        model.train_on_batch(x, np.zeros(len(y)) if labels else np.ones_like(y))


def use_many(f):
    f.predict()
    f.update({"a": SERIES[:9]}, past={"a": SERIES[:9]}, static=[["x"]], epochs=0.1, verbose=0)


def use_one(f):
    f.predict(interval=80)
    f.update(SERIES[:9], epochs=0.1, verbose=0)


KINDS = {
    "plain": (plain, elman.load_model, use_model),
    "rich": (rich, elman.load_model, use_model),
    "segments": (segments, elman.load_model, use_model),
    "forecaster": (forecaster, elman.Forecaster.load, use_many),
    "recursive": (recursive, elman.Forecaster.load, use_one),
}

# ---- damage: each function makes bytes from a saved file and a draw

NUMBERS = [0, -1, 1, 2, 255, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 60, 1 << 63, (1 << 64) - 1, -(1 << 63), 10**30]
ODD = [None, True, "", "x", "../../x", "gru", [], {}, [[]], 0.5, 1e308, float("nan"), float("-inf"), *NUMBERS]


def bytes_(draw, whole):
    """Bytes flipped, cut off, inserted, moved, overwritten with numbers."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "remove", "copy", "number", "end"]))
        size = draw(st.integers(1, 64))
        if kind == "flip" and data:
            data[at] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=16))
        elif kind == "remove":
            del data[at : at + size]
        elif kind == "copy":
            data[at:at] = data[at : at + size]
        elif kind == "number":
            data[at : at + 4] = struct.pack("<I", draw(st.sampled_from(NUMBERS)) & 0xFFFFFFFF)
        elif kind == "end":  # the list of members stands there
            back = max(0, len(data) - draw(st.integers(1, 400)))
            data[back : back + 2] = struct.pack("<H", draw(st.integers(0, 65535)))
    return bytes(data)


def members(whole):
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        return {name: file.read(name) for name in file.namelist()}


def packed(pairs, compression=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(out, "w", compression) as file:  # doubled names
        for name, content in pairs:
            file.writestr(name, content)
    return out.getvalue()


def sealed(parts):
    """A file of these members, with their digest."""
    text = np.load(io.BytesIO(parts["header.npy"])).tobytes()
    own = ("header.npy", "digest.npy")
    found = {name.removesuffix(".npy"): np.load(io.BytesIO(part)) for name, part in parts.items() if name not in own}
    parts["digest.npy"] = npy(np.frombuffer(files.digest(text, found), np.uint8))
    return packed(parts.items())


def described(text, content=b""):
    """A .npy with any description."""
    text = text.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) & 0xFFFF) + text + content


def npy(array):
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def archive(draw, whole, bomb):
    """Members that are compressed, doubled, named otherwise, pickled, or that claim to be large."""
    parts = list(members(whole).items())
    k = draw(st.integers(0, len(parts) - 1))
    name, content = parts[k]
    kind = draw(st.sampled_from(["name", "double", "compressed", "bomb", "pickle", "shape", "dtype", "empty", "deep"]))
    if kind == "name":
        names = ["../../" + name, "/" + name, name + "/", ".", "a" * 60_000, name[:-4]]
        parts[k] = draw(st.sampled_from(names)), content
    elif kind == "double":
        parts.append((name, parts[draw(st.integers(0, len(parts) - 1))][1]))
    elif kind == "compressed":
        return packed(parts, zipfile.ZIP_DEFLATED)
    elif kind == "bomb":  # 64 MiB in 64 KiB
        parts[k] = name, described("{'descr': '|u1', 'fortran_order': False, 'shape': (67108864,), }", bytes(1 << 26))
        return packed(parts, draw(st.sampled_from([zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])))
    elif kind == "pickle":
        parts[k] = name, draw(st.sampled_from([pickle.dumps(bomb), npy(np.array([bomb], object))]))
    elif kind == "shape":
        shape = tuple(draw(st.lists(st.sampled_from(NUMBERS), max_size=4)))
        order = draw(st.booleans())
        parts[k] = name, described(f"{{'descr': '<f4', 'fortran_order': {order}, 'shape': {shape}, }}", content[128:])
    elif kind == "dtype":
        kinds = ["|O", ">f4", "<U4", "<M8[s]", "<c16", "|V0", "|S0", "<f2", [("a", "<f4")], "|b1"]
        descr = draw(st.sampled_from(kinds))
        parts[k] = name, described(f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': (2,), }}", bytes(32))
    elif kind == "empty":
        parts = parts[:k]
    elif kind == "deep":
        text = draw(st.sampled_from(["(" * 9000, "[" * 60_000, "{'a':" * 2000, "-" * 9000, "9" * 9000, "\x00" * 100]))
        parts[k] = name, described(text)
    return packed(parts)


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    rest = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in rest:
        yield from places(part, (*path, key))


def header(draw, whole):
    """A value of the description replaced, removed or moved, or text that is no description."""
    parts = members(whole)
    raw = parts["header.npy"]
    found = json.loads(raw[raw.index(b"\n") + 1 :])
    if draw(st.integers(0, 19)) == 0:
        texts = ["[" * 100_000, "{" * 9, "9" * 5000, "null", "[]", '"x"', '{"a":' * 50_000, "\ud800"]
        text = draw(st.sampled_from(texts))
        data = text.encode("utf8", "surrogatepass")
    else:
        for _ in range(draw(st.integers(1, 2))):
            spots = [p for p in places(found) if p and p[0] not in ("arrays", "kind", "format")]
            *parents, last = draw(st.sampled_from(spots))
            holder = found
            for key in parents:
                holder = holder[key]
            kind = draw(st.sampled_from(["odd", "odd", "odd", "remove", "swap", "nest"]))
            if kind == "remove":
                del holder[last]
            elif kind == "odd":
                holder[last] = draw(st.sampled_from(ODD))
            elif kind == "nest":
                holder[last] = [copy.deepcopy(holder[last])]
            else:
                *others, other = draw(st.sampled_from(spots))
                source = found
                try:
                    for key in others:
                        source = source[key]
                    holder[last] = copy.deepcopy(source[other])
                except (KeyError, IndexError, TypeError):
                    holder[last] = None
        data = json.dumps(found).encode()
    parts["header.npy"] = npy(np.frombuffer(data, np.uint8))
    return sealed(parts)


def arrays(draw, whole):
    """An array with other values, another dtype or another shape; checksums, names and digest are right."""
    parts = members(whole)
    name = draw(st.sampled_from([n for n in parts if n not in ("header.npy", "digest.npy")]))
    array = np.load(io.BytesIO(parts[name]))
    kind = draw(st.sampled_from(["value", "value", "dtype", "longer", "shorter", "axes", "reverse"]))
    if kind == "value" and array.size:
        array = array.copy()
        value = draw(st.sampled_from([np.nan, np.inf, 1e30, *NUMBERS[:-1]]))
        with np.errstate(all="ignore"):
            array.flat[draw(st.integers(0, array.size - 1))] = np.array(value).astype(array.dtype)
    elif kind == "dtype":
        with np.errstate(all="ignore"):
            array = array.astype(draw(st.sampled_from(["f2", ">f4", "f8", "i1", "u8", "?", "i8"])))
    elif kind == "longer":
        array = np.concatenate([array.ravel(), array.ravel()])
    elif kind == "shorter":
        array = array.ravel()[: array.size // 2]
    elif kind == "axes":
        array = array[None] if draw(st.booleans()) else array.reshape(-1)
    elif array.ndim:
        array = array[::-1]
    parts[name] = npy(array)
    return sealed(parts)


class Damaged:
    """One file; shown without its bytes, which stay in the folder."""

    def __init__(self, name, how, content):
        self.name, self.how, self.content = name, how, content

    def __repr__(self):
        return f"{self.name}, {self.how}"


def main(count, folder):
    folder = Path(folder)
    trap = folder / "executed"
    wholes = {}
    for name, (make, load, use) in KINDS.items():
        make(folder)
        wholes[name] = (folder / name).read_bytes()
        use(load(folder / name))  # compiled now, so that what follows costs what it costs
    path, judge = folder / "damaged", Judge()
    watch(folder)
    confine()

    @st.composite
    def damaged(draw):
        name = draw(st.sampled_from(list(KINDS)))
        how = draw(st.sampled_from([bytes_, archive, header, header, arrays]))
        return Damaged(name, how.__name__, how(draw, wholes[name], *([Bomb(str(trap))] if how is archive else [])))

    def case(drawn):
        _, load, use = KINDS[drawn.name]
        path.write_bytes(drawn.content)
        watch.on = True
        found = judge.run(lambda: load(path), named="path: ")
        watch.on = False
        assert not watch.seen and not trap.exists(), watch.seen
        if found is not None:
            # To use what was loaded may need memory, for a lookback of a million steps, say; to load it may not.
            judge.run(lambda: use(found), allowed=MemoryError)

    explore(damaged(), case, count)
    report(judge, count)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
