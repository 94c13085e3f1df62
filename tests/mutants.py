"""Make the mutants, run the gradient check on each, print which survive. Run with NUMBA_DISABLE_JIT=1.

A mutant changes one token: an operator, an index or a constant, a factor or term dropped, a variable exchanged for
another, an assignment left out.
"""

import ast
import copy
import inspect
import json
import sys
import textwrap
from dataclasses import replace
from functools import partial
from unittest import mock

import numpy as np

from elman import recurrence
from elman.cells import CELLS, layer_norm
from elman.jit import DISABLED, Function
from elman.kernels import losses as loss_kernels
from elman.kernels import pointwise, scan, simd, skips, units
from elman.losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CosineSimilarity,
    Hinge,
    Huber,
    KLDivergence,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    Quantile,
    SparseCategoricalCrossentropy,
    SquaredHinge,
)
from elman.testing import losses as loss_battery
from elman.testing.cells import Path, Problem, check_cell_gradients, check_values
from elman.testing.compare import check_close, check_derivative
from elman.testing.exact import Runner

# Names never exchanged for another: arrays, loop variables, modules.
FIXED = ("j", "z", "w", "dw", "at", "lo", "hi", "np")
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
LIMITS = "zero, half, one, limit = (options.dtype.type(0), options.dtype.type(0.5), options.dtype.type(1), "
# Mutants that compute the same numbers, with the reason.
EQUIVALENT = {
    # 0, or NaN where the variance overflows: whether it is added or taken away.
    ("norms", "return (mean, kind(1) / np.sqrt(variance) - (variance - variance))"),
    # This branch is taken for y = 0 (and NaN) only, where the product is 0 whatever its factor.
    ("relu", "kind(1) if y > kind(0) else kind(1) * y"),
    ("relu", "kind(1) if y > kind(0) else kind(0) / y"),
    ("relu", "kind(1) if y > kind(0) else y"),
    ("relu", "kind(1) if y > kind(0) else kind(0)"),
    # Where the product is 0 for every number, it serves NaN alone.
    ("hard_sigmoid", "return slope if y > high - high and y < high else high - high"),
    ("relu6", "return slope if y > high - high and y < high else high - high"),
    # Where q is not clipped, c is q; elsewhere d is 0.
    ("categorical", "dot += d * c"),
    ("categorical", "d = zero if q < low or q > high else -t / q"),
    # c is e or delta there, and delta > 0.
    ("huber", "c = -delta if e < -delta else c"),
    # From about 18 on both formulas agree to the last bit.
    ("log_cosh", f"{LIMITS}options.dtype.type(21))"),
    ("log_cosh", f"{LIMITS}options.dtype.type(19))"),
    # The sum of a - mean is 0, so its multiples may be added: the same number, less exactly.
    ("norms", "total += (a[k, j] + mean) * (a[k, j] - mean)"),
    ("norms", "total += a[k, j] * (a[k, j] - mean)"),
    ("norms", "total += (a[k, j] - mean) * (a[k, j] + mean)"),
    ("norms", "total += (a[k, j] - mean) * a[k, j]"),
    # Where hi would be less than lo the loop is empty either way.
    ("_restore", "hi = np.uint64(max(begin - rows, min(end, used)) * units)"),
    ("_restore", "hi = np.uint64(max(begin, min(end, used)) * units)"),
    ("_restore", "hi = np.uint64(max(rows, min(end, used)) * units)"),
    # Here one thread has all shares, the first of which begins at 0.
    *[(f"units._{way}_shard", "for j in range(at.lo, at.units):") for way in ("forward", "backward")],
    # The scratch row may be zero too.
    *[("units._backward_shard", f"for r in range({n}):") for n in ("d.shape[2]", "d.shape[2] - 0", "d.shape[1] - 1")],
    # At such a step nothing comes from later: any finite number serves.
    ("_set_aside", "z[r, j] = 1"),
    ("leaky_relu", "kind(1) if y >= kind(0) else kind(0.2)"),
    ("leaky_relu", "kind(1) if y >= kind(0) else kind(0.2) - kind(0) * y"),
    ("leaky_relu", "kind(1) if y >= kind(0) else kind(0.2) + kind(0)"),
    ("leaky_relu", "kind(1) if y >= kind(0) else kind(0.2) + kind(0) / y"),
}


def mutants(tree, parts=None):
    """(description, tree) of every one-token mutant of an ast, or of parts of it."""
    places = [n for n in ast.walk(tree)]
    chosen = [n for part in parts or [tree] for n in ast.walk(part)]
    names = sorted({n.id for n in chosen if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load) and len(n.id) <= 2})
    for k, node in enumerate(places):
        if node not in chosen:
            continue
        for change in list(changes(node, names)):
            mutant = copy.deepcopy(tree)
            twin = [n for n in ast.walk(mutant)][k]
            before = ast.unparse(twin)
            result = ast.copy_location(change(twin), node)
            mutant = Replace(twin, result).visit(mutant) if result is not twin else mutant
            ast.fix_missing_locations(mutant)
            after = "nothing" if isinstance(result, ast.Pass) else ast.unparse(result)
            if before != after:
                yield f"line {getattr(twin, 'lineno', 0)}: {before} -> {after}", mutant


class Replace(ast.NodeTransformer):
    def __init__(self, old, new):
        self.old, self.new = old, new

    def visit(self, node):
        return self.new if node is self.old else self.generic_visit(node)


def changes(node, names):
    """Functions that change a node, or give what stands in its place."""
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield lambda n: assigned(n, "op", OPERATORS[type(n.op)]())
        yield lambda n: n.left
        yield lambda n: n.right
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield lambda n: n.operand
    elif isinstance(node, ast.AugAssign):
        yield lambda n: assigned(n, "op", ast.Sub())
        yield lambda n: ast.Assign([n.target], n.value)
        yield lambda n: ast.Pass()
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield lambda n: assigned(n, "value", n.value + 1)
        if node.value:
            yield lambda n: assigned(n, "value", n.value - 1)
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
        yield lambda n: ast.Pass()
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "derivative":
        yield lambda n: assigned(
            n, "args", [ast.Name("gate" if n.args[0].id == "act" else "act", ast.Load()), n.args[1]]
        )
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
        if node.id in FIXED:
            return
        for other in names:
            if other not in (node.id, *FIXED):
                yield lambda n, other=other: assigned(n, "id", other)


def assigned(node, field, value):
    setattr(node, field, value)
    return node


def caught(check):
    """Whether a check fails, in whatever way a wrong formula can make it fail."""
    try:
        with np.errstate(all="ignore"):
            check()
    except (AssertionError, IndexError, ArithmeticError, TypeError, NameError, ValueError, AttributeError):
        return True
    return False


# ---- cells

# Small, but with three steps, two bands of sequences (four and one) and a tail of units;
SIZE, ACTIVATIONS = (5, 3, 2, 3), ("tanh", "sigmoid")
PATHS = ("gradient of outputs and last states", "gradient of the last states")


def check(cell):
    problem = Problem.draw(cell, SIZE, ACTIVATIONS, 5)
    check_cell_gradients(problem, np.random.default_rng(6), paths=PATHS[:1])
    check_cell_gradients(problem, np.random.default_rng(7), paths=PATHS[1:])


def cell_mutants(cell):
    """(description, cell) for every mutant of the backward functions of a cell."""
    factory = cell.kernels
    source = textwrap.dedent(inspect.getsource(factory))
    tree = ast.parse(source)
    functions = [n for n in tree.body[0].body if isinstance(n, ast.FunctionDef)]
    for k, function in enumerate(functions):
        if not function.name.endswith("backward"):
            continue
        for description, mutant in mutants(function):
            whole = copy.deepcopy(tree)
            index = whole.body[0].body.index([n for n in whole.body[0].body if isinstance(n, ast.FunctionDef)][k])
            whole.body[0].body[index] = mutant
            space = dict(vars(inspect.getmodule(factory)))
            exec(compile(ast.fix_missing_locations(whole), "<mutant>", "exec"), space)
            yield f"{function.name}, {description}", replace(cell, name="mutant", kernels=space[factory.__name__])


def helper_mutants():
    """(description, change) of the helpers of layer_norm.py; ``change()`` puts one in and returns what undoes it."""
    for name in ("_sum", "_squares", "_products", "_moments", "_through_norm"):
        yield from swapped(layer_norm, name)


def dropping(tree):
    """The loops of a function that recurrent dropout alone runs."""
    branches = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "drop.size > 0"]
    return [loop for branch in branches for loop in branch.body if isinstance(loop, ast.For)]


def swapped(module, name, inside=lambda tree: [tree]):
    """(line that changed, change) of every mutant, in some parts, of a function that others of its module call."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(getattr(module, name)))).body[0]
    tree.decorator_list = []
    original = ast.unparse(tree).splitlines()
    for _, mutant in mutants(tree, inside(tree)):
        after = ast.unparse(mutant).splitlines()
        description = next(a.strip() for a, b in zip(after, original, strict=False) if a != b)
        space = dict(vars(module))
        exec(compile(ast.fix_missing_locations(ast.Module([mutant], [])), "<mutant>", "exec"), space)

        def change(found=space[name]):
            before = getattr(module, name)
            by_address = [f for f in vars(module).values() if isinstance(f, Function) and f.python is before]

            def bind(function):
                setattr(module, name, function)
                for kernel in by_address:
                    kernel.python = function

            bind(found)
            return lambda: bind(before)

        yield description, change


# ---- masks, recurrent dropout and zoneout in the recurrence itself

SCAN = (
    (skips, "_copy"),
    (skips, "_carry"),
    (skips, "_set_aside"),
    (skips, "_restore"),
    (skips, "_expected"),
    (skips, "_element"),
    (skips, "_zone_out"),
    (skips, "_hold"),
    (skips, "_release"),
    (scan, "_forward_shard", dropping),
    (scan, "_backward_step", dropping),
)


class Paths:
    """All a recurrence gives on paths with masks, dropout, zoneout and checkpoints, against what it gave at first.

    What it gave at first is right by the batteries. Memory begins as NaN; masked steps hold gates that overflow.
    """

    def __init__(self):
        rng = np.random.default_rng(3)
        # Four bands, of 4, 4, 4 and 1 sequences, in two shards.
        holes, size = rng.random((13, 4)) < 0.6, (13, 4, 2, 3)
        holes[:2] = [True, False, False, False], [False, True, False, True]
        lengths = np.arange(4) < np.array([4, 4, 4, 3, 3, 3, 2, 2, 2, 1, 1, 0, 0])[:, None]
        late = np.arange(4) >= np.array([1, 0, 3, 2, 0, 1, 4, 2, 0, 3, 0, 1, 2])[:, None]
        drop = (rng.random((13, 3)) < 0.6) * 1.625
        drop[0] = 0, 1.625, 1.625
        self.problems = [
            replace(Problem.draw(CELLS[name], size, activations, 5), path=Path("", *path))
            for name, activations, *path in (
                ("gru_reset_before", ("tanh", "sigmoid"), holes, drop, None),
                ("peephole_lstm", ("linear", "sigmoid"), lengths, drop, 2),
                ("gru_reset_before", ("linear", "sigmoid"), lengths, drop, None),
                ("peephole_lstm", ("linear", "sigmoid"), late, None, None),
                ("mingru", ("tanh", "sigmoid"), None, None, None),
                ("peephole_lstm", ("linear", "sigmoid"), holes, drop, 2, (0.3, 0.6)),
                ("gru_reset_before", ("tanh", "sigmoid"), None, None, None, (0.4,)),
            )
        ]
        self.expected = [self.run(p) for p in self.problems]

    @np.errstate(all="ignore")
    def run(self, problem):
        r = Runner(problem, np.float64)
        r.cut(8)
        if problem.path.mask is not None:
            r.x[~problem.path.mask] = np.finfo(np.float64).max
            r.parameters[0] *= 4
        r.everything()
        r.poison()
        norms = np.full((problem.size[1], problem.size[0]), np.nan)
        tape = r.recurrence.forward(r.x, r.parameters, r.state, training=True, sequences=True, **r.options)
        found = [tape.outputs.copy(), *(s.copy() for s in tape.state)]
        targets = [np.full_like(p, np.nan) for p in r.parameters]
        dx = tape.run_backward(r.d_outputs, r.d_state, targets, input_gradient=True, norms=norms)
        found += [dx.copy(), *targets, *(v.copy() for v in tape.state_gradients()), norms]
        tape = r.recurrence.forward(r.x, r.parameters, None, training=False, sequences=True, **r.options)
        return [*found, tape.outputs.copy(), *(s.copy() for s in tape.state)]

    def check(self):
        for problem, expected in zip(self.problems, self.expected, strict=True):
            for got, wanted in zip(self.run(problem), expected, strict=True):
                check_close("path", got, wanted, 1e-9)


# ---- one long sequence


def loops(tree):
    """The loops inside of that over time."""
    over_time = [n for n in tree.body if isinstance(n, ast.For)]
    return [loop for loop in ast.walk(tree) if isinstance(loop, ast.For) and loop not in over_time]


# Not what computes offsets: the twins of the tiles write wherever these point.
ONE = ((units, "_forward_shard", loops), (units, "_backward_shard", loops))


class OnePaths(Paths):
    """One sequence in three shares, done one after the other, against what it gives as a batch."""

    def __init__(self):
        panel = simd.VECTORS * simd.lanes(np.dtype(np.float64))
        self.problems = [
            Problem.draw(CELLS[name], size, ACTIVATIONS, 5)
            for name, size in (
                ("lstm", (1, 3, 2, 3 * panel - 1)),
                ("gru_reset_before", (1, 2, panel + 1, 3)),
            )
        ]
        self.expected = [self.found(Runner(p, np.float64)) for p in self.problems]

    @np.errstate(all="ignore")
    def run(self, problem):
        r = Runner(problem, np.float64)
        r.single(3)
        # Without compilation one thread does it all, however many there seem to be.
        with mock.patch.object(recurrence, "usable_threads", lambda: 3), mock.patch("numba.set_num_threads"):
            r.everything()
            r.poison()
            return self.found(r)

    def found(self, r):
        tape = r.recurrence.forward(r.x, r.parameters, None, training=True, sequences=True)
        targets, outputs = [np.full_like(p, np.nan) for p in r.parameters], tape.outputs.copy()
        # Fortran's order, so that units lie apart.
        dx = tape.run_backward(np.asfortranarray(r.d_outputs)[:, -2:], None, targets, input_gradient=True)
        return [outputs, dx.copy(), *targets, *r.everything()]


# ---- derivatives of activations


def derivative_sources():
    """Name and ast of the second formula of every row of the table of activations."""
    tree = ast.parse(inspect.getsource(pointwise))
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and node.target.id == "_FORMULAS":
            for key, pair in zip(node.value.keys, node.value.values, strict=True):
                yield key.value, pair.elts[1]


def made(expression, space):
    return eval(compile(ast.fix_missing_locations(ast.Expression(expression)), "<mutant>", "eval"), space)


def derivative_mutants():
    """(name, source, function) of every mutant; the source is None for the original."""
    sources = dict(derivative_sources())
    for name, tree in sources.items():
        yield name, None, made(tree, vars(pointwise))
        for _, mutant in mutants(tree):
            yield name, ast.unparse(mutant.body), made(mutant, vars(pointwise))
    helper = ast.parse(textwrap.dedent(inspect.getsource(pointwise._inside)))
    for _, mutant in mutants(helper.body[0]):
        space = dict(vars(pointwise))
        exec(compile(ast.Module([mutant], []), "<mutant>", "exec"), space)
        for name in ("hard_sigmoid", "relu6"):
            yield name, ast.unparse(mutant.body[-1]), made(sources[name], space)


def check_formula(name, derivative):
    """A derivative, written in the output y, against differences of the activation, on both sides of every kink."""
    code = pointwise.ACTIVATIONS[name]
    for x in (-3.7, -2.3, -0.9, -0.4, 0.3, 0.8, 1.7, 2.9, 5.6, 6.8):
        y = pointwise.activate(code, np.float64(x))
        slope = float(derivative(y, np.float64))
        check_derivative(name, lambda h, x=x: float(pointwise.activate(code, np.float64(x + h))), slope, 1.0, 1e-6)


# ---- losses

LOSSES = {
    "squared": MeanSquaredError(),
    "absolute": MeanAbsoluteError(),
    "percentage": MeanAbsolutePercentageError(),
    "squared_logarithmic": MeanSquaredLogarithmicError(),
    "pinball": Quantile((0.3, 0.5)),
    "huber": Huber(0.8),
    "log_cosh": LogCosh(),
    "poisson": Poisson(),
    "hinge": Hinge(),
    "squared_hinge": SquaredHinge(),
    "binary": BinaryCrossentropy(label_smoothing=0.1),
    "binary_logits": BinaryCrossentropy(True, 0.2),
    "categorical": CategoricalCrossentropy(label_smoothing=0.1),
    "categorical_logits": CategoricalCrossentropy(True, 0.2),
    "sparse": SparseCategoricalCrossentropy(),
    "sparse_logits": SparseCategoricalCrossentropy(True),
    "divergence": KLDivergence(),
    "cosine": CosineSimilarity(),
}


def check_small_norms(loss, y, p):
    """Norms that are held, where differences would step out of a small ball, and norms above, of small square."""
    for small, large in ((1e-4, 1), (1, 1e-4), (1e-9, 1), (1, 1e-9)):
        loss_battery._check_value("loss", loss, small * y, large * p, None)
    gradient = np.empty((1, 3))
    loss.value_and_gradient(y[:1], 1e-9 * p[:1], None, gradient)
    near, far = np.empty_like(p), np.empty_like(p)
    loss.value_and_gradient(y, 1e-4 * p, None, near)
    loss.value_and_gradient(y, p, None, far)
    check_close("loss", 1e-4 * near, far, 1e-12)
    check_close("loss", gradient * 1e-7, -y[:1] / np.linalg.norm(y[0]), 1e-9)


def check_loss(loss):
    """Value and gradient of ordinary rows, and of one with outputs beyond every clip."""
    rng = np.random.default_rng(9)
    y, p = loss_battery.draw_outputs(loss, rng, 6, 3)
    if getattr(loss, "from_logits", False):
        p[:4] = [800.0, 798.0, 799.0], [-900.0, 900.0, -900.0], [-1e3, -100.0, -1e3], [-2e3, -1900.0, -2e3]
    elif hasattr(loss, "from_logits") or isinstance(loss, (KLDivergence, MeanSquaredLogarithmicError)):
        p[:3] = [-0.4, 1.7, 0.6], [3.0, -0.4, -0.3], [-0.1, -0.2, 2.0]
        if loss.labels:
            y[:3] = 0, 0, 1
    if isinstance(loss, LogCosh):
        p[1] = y[1] + [25.0, -30.0, 0.1]
    if isinstance(loss, (MeanAbsoluteError, MeanAbsolutePercentageError)):
        p[0] = y[0]  # where the central difference of |e| is 0 as well
    if isinstance(loss, (KLDivergence, MeanSquaredLogarithmicError)):
        y[1] = 0.0
    if isinstance(loss, CosineSimilarity):
        check_small_norms(loss, y, p)
    if isinstance(loss, Quantile) and len(loss.quantiles) > 1:
        p[1, 1] = y[1, 1]  # the same for the median
        check_loss(type(loss)((0.3,)))
    for w in (None, rng.uniform(0.5, 2, 6)):
        loss_battery._check_value("loss", loss, y, p, w)
        loss_battery._check_gradient("loss", loss, y, p, w, rng)


def loss_mutants(name):
    """(line that changed, loss) for every mutant of a loss kernel."""
    loss = LOSSES[name]
    tree = ast.parse(inspect.getsource(getattr(loss_kernels, name).python)).body[0]
    tree.decorator_list = []
    before = ast.unparse(tree).splitlines()
    for _, mutant in mutants(tree):
        space = dict(vars(loss_kernels))
        after = ast.unparse(mutant).splitlines()
        description = next(a.strip() for a, b in zip(after, before, strict=True) if a != b)
        exec(compile(ast.fix_missing_locations(ast.Module([mutant], [])), "<mutant>", "exec"), space)
        wrong = type("Mutant", (type(loss),), {"kernel": Function(space[name], lambda dtype: ())})
        yield description, wrong(**loss.get_config())


def recurrence_mutants():
    """(name, mutants, check) of the functions that all cells, or all of a module, share."""

    def norms():
        check(CELLS["layer_norm_lstm"])
        check_values(Problem.draw(CELLS["layer_norm_lstm"], SIZE, ACTIVATIONS, 5))
        with np.errstate(all="ignore"):  # a variance that overflows gives NaN, not a row of zeros
            assert np.isnan(layer_norm._moments(np.array([[-1e200, 1e200]]), 0, 0, 2)[1])

    yield "norms", helper_mutants(), norms
    paths = Paths()
    for place in SCAN:
        yield place[1], swapped(*place), paths.check
    one = OnePaths()
    for place in ONE:
        yield f"units.{place[1]}", swapped(*place), one.check


def main():
    assert DISABLED, "run with NUMBA_DISABLE_JIT=1"
    loss_kernels.CHUNK = 6  # two rows per chunk
    counts, survivors, originals = {}, [], []
    for cell in list(CELLS.values()):
        if caught(lambda cell=cell: check(cell)):
            originals.append(cell.name)
        for description, mutant in cell_mutants(cell):
            counts[f"cell {cell.name}"] = counts.get(f"cell {cell.name}", 0) + 1
            if not caught(lambda mutant=mutant: check(mutant)):
                survivors.append(f"cell {cell.name}: {description}")
    for name, alternatives, run in recurrence_mutants():
        if caught(run):
            originals.append(name)
        for description, change in alternatives:
            counts[name] = counts.get(name, 0) + 1
            undo = change()
            if (name, description) not in EQUIVALENT and not caught(run):
                survivors.append(f"{name}: {description}")
            undo()
    for name, body, derivative in derivative_mutants():
        if body is None:
            if caught(partial(check_formula, name, derivative)):
                originals.append(name)
            continue
        counts[f"derivative {name}"] = counts.get(f"derivative {name}", 0) + 1
        if (name, body) not in EQUIVALENT and not caught(partial(check_formula, name, derivative)):
            survivors.append(f"derivative {name}: {body}")
    for name in LOSSES:
        if caught(partial(check_loss, LOSSES[name])):
            originals.append(f"loss {name}")
        for description, mutant in loss_mutants(name):
            counts[f"loss {name}"] = counts.get(f"loss {name}", 0) + 1
            if (name, description) not in EQUIVALENT and not caught(partial(check_loss, mutant)):
                survivors.append(f"loss {name}: {description}")
    json.dump({"counts": counts, "survivors": survivors, "originals": originals}, sys.stdout)


if __name__ == "__main__":
    main()
