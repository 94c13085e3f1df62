"""What limits a training step: operations, bytes past each cache, and times on other numbers of cores; a model.

Traffic follows from the loops of ``kernels/scan.py``, ``units.py`` and ``weights.py``. Every array is read again after
some number of other bytes; the least cache that holds those serves it, and every cache above is passed. One phase takes
the longest of its products and its three bandwidths; phases, gates, launches and Python add up. Nothing is measured
here: ``phases.py`` measures. ::

    python asv_bench/roofline.py [--cell lstm]
"""

from __future__ import annotations

import argparse
from math import ceil
from typing import NamedTuple

import numpy as np
from benchmarks import PEER_GATES, SIZES, Size, product_flops, step_flops
from peers import aligned

from elman.cells import CELLS
from elman.plans import make_plan

# One core of an AMD EPYC (Zen 4, AVX-512, 3.6 GHz); bandwidths and gates measured there in one thread.
PEAK = 117e9  # FLOP/s of float32 multiply-adds
L1, L2, L3 = 32 << 10, 1 << 20, 32 << 20  # bytes; GROUP cores share a third level, threads fill one after the other
GROUP = 8
BANDWIDTH = {"L2": 110e9, "L3": 90e9, "memory": 30e9}  # bytes/s of one core from there
MEMORY = 45e9  # bytes/s that the cores of one third level get from memory together; an assumption
TILE = {8: 0.96, 4: 0.87, 1: 0.7}  # share of PEAK that tiles of so many rows reach from the first-level cache
GATES_NS = {"lstm": (1.4, 0.75), "gru": (0.87, 0.35), "simple": (0.25, 0.1)}  # per unit and step; 0.28 per exp or tanh
LAUNCH, LAUNCHES, PYTHON = 4e-6, 3, 35e-6  # seconds; forward, backward and weight gradients launch threads
MEETING = 0.15e-6  # seconds, of threads that share a third level and the units of one sequence
ROWS = {"lstm": (4, 2), "gru": (4, 1), "simple": (1, 1)}  # rows of z, and states, per unit
VECTOR, FLOAT, SHARD_BYTES = 16, 4, 1 << 18  # lanes; the last: Frame.most_rows
PANELS, PACKED = 4, 128  # of `elman.tape` and `elman.recurrence`
SERIAL, SERIAL_ROW, GATE = 2e6, 2.5e7, 40  # FLOP up to which all runs in one thread, the second for B = 1; per gate
SHARE = 1.7e4  # FLOP of a thread in each step of one sequence
CORES = (1, 2, 8, 32, 128)


class Phase(NamedTuple):
    """Seconds of a phase's arithmetic on the busiest thread, and the bytes that pass each cache there."""

    products: float
    gates: float
    passed: dict[str, float]

    def seconds(self, cores: int) -> dict[str, float]:
        """What its products and each bandwidth take."""
        rate = {**BANDWIDTH, "memory": min(BANDWIDTH["memory"], MEMORY / min(cores, GROUP))}
        return {"products": self.products, **{name: self.passed[name] / rate[name] for name in BANDWIDTH}}


def traffic(accesses: list[tuple[float, float]], groups: int) -> dict[str, float]:
    """Bytes from each level, of reads and writes given as (bytes, bytes touched since they were used last)."""
    above = {"L2": L1, "L3": L2, "memory": L3 * groups}
    return {name: sum(n for n, apart in accesses if apart > above[name]) for name in BANDWIDTH}


def all_flops(cell: str, size: Size) -> float:
    """Products of the way forward and gates, as `elman.frames` counts them."""
    return product_flops(cell, size).forward + GATE * size.B * size.T * size.H * PEER_GATES[cell]


def shares(cell: str, size: Size, cores: int) -> int:
    """Threads that share out the units of one sequence."""
    if size.B > 1:
        return 1
    plan = make_plan(CELLS[cell], size.I, size.H, np.dtype("float32"))
    return plan.shares(max(1, min(cores, int(all_flops(cell, size) / size.T / SHARE))))


def phases(cell: str, size: Size, cores: int) -> dict[str, Phase]:
    """The three phases that are parallel, and what is done around them."""
    b, t, i, h = size
    g, (zr, sr), flops = PEER_GATES[cell], ROWS[cell], product_flops(cell, size)
    hp, band = ceil(h / VECTOR) * VECTOR, 8 if b >= 16 else 4 if b >= 4 else 1  # sequences of a tile, and of a thread
    rows = min(b, ceil(ceil(b / band) / cores) * band)  # of the busiest thread
    n = shares(cell, size, cores)
    part, groups = rows / b / n, ceil(ceil(b / rows) * n / GROUP)
    w, r, panel = (i + h) * g * hp * FLOAT, h * g * hp * FLOAT, 2 * VECTOR * FLOAT
    z, s, x = (t * b * n * FLOAT for n in (zr * hp, sr * hp, i))
    home = z + s + x + 3 * w  # bytes between two uses of what a step keeps
    shard = min(rows, 32) if w <= SHARD_BYTES else rows
    step = shard * FLOAT * (i + 2 * sr * hp + zr * hp)  # bytes of a shard's rows in one step

    def through(weights: float, depth: int, columns: int) -> list[tuple[float, float]]:
        runs, row = t * ceil(rows / shard), shard * depth * FLOAT
        again = depth * panel + band * depth * FLOAT
        return [
            (weights * runs, weights + step),  # the panels, once per step
            (weights * runs * (ceil(shard / band) - 1), again),  # and once more for every further tile of rows
            (row * runs, weights + step),  # the rows, once
            (row * runs * (ceil(columns / 2 / VECTOR) - 1), row + depth * panel),  # and for every further panel
        ]

    # One sequence takes panels in alternating order: half of the first level still holds what comes first.
    kept = min(w / n, L1 / 2) * t if b == 1 else 0
    forward = [*through(w / n, i + h, g * hp / n), (-kept, w / n + step), (2 * part * (z + s), home), (part * x, home)]
    forward += [(2 * part * z, step + w), (part * s, step + w)]  # gates: z from the product and back, last states
    backward = [*through(r / n, g * h, hp / n), (2 * part * z, home), (part * s, home)]
    backward += [(part * (z + s), step + r), (4 * part * s, step + r)]  # z into the product, s[t + 1], d
    plan = make_plan(CELLS[cell], i, h, np.dtype("float32"))
    count, parts = ceil(g * hp / 2 / VECTOR), plan.parts(b)
    mine, bt = ceil(count * parts / cores), b * t / parts  # items: panels of a part; rows (t, b) of a part
    k, sums, together = 256 if i + h <= 384 else 128, (i + h) * panel, min(count, mine)  # k rows in a block
    # Panels that share what is fetched of x and h.
    chunk = together if hp >= PACKED and together >= 6 else min(PANELS, together)
    runs, block = mine * ceil(bt / k), k * (i + h) * FLOAT
    near, inputs = min(cores, GROUP) if cores > parts else 1, bt * (i + h) * FLOAT * ceil(mine / chunk)
    weight = [(bt * panel * mine, home), (inputs / near, home), (inputs * (1 - 1 / near), L2 + 1)]  # z; x and h
    weight += [(n, chunk * (sums + k * panel) + block) for n in (block * runs * (1 - 1 / chunk), 2 * sums * runs)]
    weight += [(k * panel * runs * ceil((i + h) / 8), k * panel + 8 * k * FLOAT)]  # the panel, per tile
    tile, unit = TILE[band] * PEAK, t * b * hp * part * 1e-9
    return {
        "forward": Phase(flops.forward * part / tile, GATES_NS[cell][0] * unit, traffic(forward, groups)),
        "recursion": Phase(flops.recursion * part / tile, GATES_NS[cell][1] * unit, traffic(backward, groups)),
        "weights": Phase(flops.weight_gradients * mine / count / parts / TILE[8] / PEAK, 0.0, traffic(weight, groups)),
        # Adam reads p, g, m, v and writes three; packing reads and writes both matrices; parts are added up.
        "rest": Phase(0.0, 0.0, traffic([((10 * w + 2 * (w + r)) / cores, home), ((parts - 1) * w, home)], groups)),
    }


def step_seconds(cell: str, size: Size, cores: int) -> tuple[float, str]:
    """The step, and the two things that take most of it."""
    shared = shares(cell, size, cores) > 1
    cores = cores if shared or all_flops(cell, size) > (SERIAL if size.B > 1 else SERIAL_ROW) else 1
    parts = dict.fromkeys(("products", *BANDWIDTH, "gates"), 0.0)
    for phase in phases(cell, size, cores).values():
        took = phase.seconds(cores)
        slowest = max(took, key=took.__getitem__)
        parts[slowest] += took[slowest]
        parts["gates"] += phase.gates
    parts["Python"], parts["launches"] = PYTHON, LAUNCH * LAUNCHES * (cores > 1)
    parts["meetings"] = 2 * size.T * MEETING * shared
    total = sum(parts.values())
    return total, ", ".join(f"{n} {parts[n] / total:.0%}" for n in sorted(parts, key=parts.__getitem__)[:-3:-1])


def main() -> None:
    """Print the operations and bytes of every size, then times by cores."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cell", default="lstm", choices=list(PEER_GATES))
    cell = parser.parse_args().cell
    lines = [["B, T, I, H", "forward", "recursion", "weights", *(f"MB from {n}" for n in BANDWIDTH)]]
    lines[0] += [f"FLOP per byte from {n}" for n in BANDWIDTH]
    times = [["B, T, I, H", *(f"{n} cores" if n > 1 else "1 core" for n in CORES), "limits of 1", "limits of 32"]]
    for size in SIZES.values():
        label, found = ", ".join(map(str, size)), phases(cell, size, 1).values()
        passed = {n: sum(p.passed[n] for p in found) for n in BANDWIDTH}
        ratios = [f"{step_flops(cell, size) / n:.0f}" if n else "-" for n in passed.values()]
        flops = [f"{n / 1e6:.0f}" for n in product_flops(cell, size)]
        lines.append([label, *flops, *(f"{n / 1e6:.1f}" for n in passed.values()), *ratios])
        steps = {n: step_seconds(cell, size, n) for n in CORES}
        share = {n: step_flops(cell, size) / seconds / PEAK / n for n, (seconds, _) in steps.items()}
        figures = [f"{1e3 * seconds:.2f} ({share[n]:.0%})" for n, (seconds, _) in steps.items()]
        times.append([label, *figures, steps[1][1], steps[32][1]])
    print(f"{cell}: MFLOP of the products, and what one core fetches\n{aligned(lines, True)}\n")
    print(f"{cell}: milliseconds of a step (share of the peak of so many cores)\n{aligned(times, True)}")


if __name__ == "__main__":
    main()
