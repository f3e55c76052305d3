"""Where gradients would leave number formats: against formats themselves, walks made by hand, and theory."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import gradsim
from gradsim.chain import Chain
from gradsim.commands.overflow_views import overflow_text
from gradsim.documents import json_ready
from gradsim.overflow import FORMATS, Crossing, crossings, log_largest_entry
from gradsim.results import Cell
from gradsim.theory.registry import find

IEEE = {"float16": np.float16, "float32": np.float32, "float64": np.float64}


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_formats_are_numpys_and_bfloat16_is_the_upper_half_of_float32(form: Any) -> None:
    if form.name in IEEE:
        info = np.finfo(IEEE[form.name])
        expected = (info.max, info.smallest_normal, info.smallest_subnormal)
    else:
        expected = tuple(np.array([0x7F7F0000, 0x00800000, 0x00010000], np.uint32).view(np.float32).tolist())
    assert (form.largest, form.smallest_normal, form.smallest) == tuple(float(value) for value in expected)


def stored(form: Any, value: float) -> float:
    """A value in a format: NumPy's, or for bfloat16 a float32 rounded to its upper half."""
    if form.name in IEEE:
        with np.errstate(over="ignore", under="ignore"):
            return float(IEEE[form.name](value))
    bits = np.float32(value).view(np.uint32)
    rounded = (int(bits) + 0x7FFF + (int(bits) >> 16 & 1)) >> 16 << 16
    return float(np.array([rounded], np.uint32).view(np.float32)[0])


@pytest.mark.parametrize("form", FORMATS[:3], ids=lambda form: form.name)
def test_a_format_is_left_where_rounding_to_nearest_leaves_it(form: Any) -> None:
    """float16 keeps 65519 as 65504 and 1.01 2^-25 as 2^-24."""
    overflow, subnormal, underflow = (math.exp(log) for log in form.log_bounds)
    # bfloat16 comes by way of float32, whose subnormals are coarser.
    nearness = 1e-4 if form.name == "bfloat16" else 1e-9
    near = 1.0 - nearness, 1.0 + nearness
    assert [stored(form, overflow * factor) for factor in near] == [form.largest, math.inf]
    assert [stored(form, underflow * factor) for factor in near] == [0.0, form.smallest]
    spacing = form.smallest / form.smallest_normal
    below, above = (form.smallest_normal * (1.0 - spacing * share) for share in (0.6, 0.4))
    assert stored(form, below) < form.smallest_normal == stored(form, above)
    assert below < subnormal < above


def test_the_thresholds_of_float64_follow_the_same_rule() -> None:
    overflow, _, underflow = FORMATS[3].log_bounds
    assert overflow == pytest.approx(1024 * math.log(2.0), abs=1e-12)
    assert underflow == pytest.approx(-1075 * math.log(2.0), abs=1e-12)


def test_a_power_of_two_on_a_threshold_is_rounded_away() -> None:
    """0.5^25 = 2^-25 lies half way between 0 and the smallest float16, and becomes 0; 0.5^14 has full precision."""
    for depth in (40, 10):
        chain = Chain(activation="linear", init="identity", gain=0.5, width=1, depth=depth)
        found = crossings(gradsim.simulate(chain, 4), find(chain))
        assert of(found, "float16", "underflow").theory_depth == 25
        assert of(found, "float16", "subnormal").theory_depth == 15
        assert of(found, "float32", "underflow").theory_depth == 150
        assert of(found, "float16", "underflow").median == (15 if depth == 40 else None)
        assert of(found, "float16", "subnormal").median == (25 if depth == 40 else None)


def test_a_power_of_two_that_is_one_too_large_for_a_format_overflows_it() -> None:
    """2^128 is half way beyond the largest float32 but for one part in 2^25, which its recorded logarithm does not
    show: at the threshold is beyond it.
    """
    chain = Chain(activation="linear", init="identity", gain=2.0, width=1, depth=1100)
    found = crossings(gradsim.simulate(chain, 4), find(chain))
    for name, power in (("float16", 16), ("bfloat16", 128), ("float32", 128), ("float64", 1024)):
        crossing = of(found, name, "overflow")
        assert (crossing.theory_depth, crossing.median) == (power, 1100 - power)
    with np.errstate(over="ignore"):
        assert np.isinf(np.float32(2.0**128)) and np.isfinite(np.float32(2.0**127))


def test_a_chain_propagated_in_a_format_is_another_matter() -> None:
    """0.9^l lies below all of float16 from l = 165 on; each step rounded to float16, it never becomes 0."""
    chain = Chain(activation="linear", init="identity", gain=0.9, width=1, depth=300)
    found = of(crossings(gradsim.simulate(chain, 4), find(chain)), "float16", "underflow")
    assert found.median == found.theory_layer == 300 - 165
    assert np.float16(0.9**165) == 0.0 < np.float16(0.9**164)
    for gain, left in ((0.9, 4), (0.51, 1), (0.5, 0)):
        g = np.float16(1.0)
        for _ in range(3000):
            g = np.float16(g * np.float16(gain))
        assert float(g) == left * 2.0**-24


def cell_of(logs: np.ndarray, **fields: Any) -> Cell:
    chain = Chain(**({"width": 4, "depth": logs.shape[1] - 1} | fields))
    return Cell(chain, {"log_grad_norm": logs.astype(np.float32), "log_grad_max": logs.astype(np.float32)})


def of(found: tuple[Crossing, ...], form: str, event: str) -> Crossing:
    (crossing,) = (each for each in found if (each.format, each.event) == (form, event))
    return crossing


def straight(rates: np.ndarray, depth: int) -> np.ndarray:
    """Trajectories that grow by a rate per layer, going backward from 0."""
    return np.multiply.outer(rates, np.arange(depth, -1, -1.0))


def test_median_and_spread_are_over_all_chains_those_that_never_do_coming_last() -> None:
    # ln 65504 = 11.09: at rates 1 to 12 over ten layers it is passed after 10 / rate layers, and never at rates of 1.
    rates = np.array([1.0] * 10 + [1.2] * 10 + [2.0] * 60 + [12.0] * 20)
    found = of(crossings(cell_of(straight(rates, 10)), None), "float16", "overflow")
    # 12 passes in the first layer, 2 in the sixth, 1.2 in the tenth.
    assert (found.early, found.median, found.late) == (9, 4, None)
    assert (found.chains, found.crossed, found.never, found.dead, found.unknown) == (100, 90, 10, 0, 0)
    assert of(crossings(cell_of(straight(rates[6:], 10)), None), "float16", "overflow").late == 0
    assert (found.theory_depth, found.theory_layer) == (None, None)


def test_a_gradient_becomes_imprecise_before_it_becomes_zero() -> None:
    found = crossings(cell_of(straight(np.full(20, -1.0), 20)), None)
    # ln 2^-14 = -9.70 and ln 2^-25 = -17.33.
    assert of(found, "float16", "subnormal").median == 20 - 10
    assert of(found, "float16", "underflow").median == 20 - 18
    assert of(found, "float16", "overflow").crossed == 0
    assert of(found, "bfloat16", "underflow").never == 20


def test_dead_chains_and_lost_ones_are_counted_apart() -> None:
    logs = straight(np.full(10, 2.0), 10)
    logs[0, :8] = -np.inf  # dies in the third layer
    logs[1, :2] = -np.inf  # dies after it has passed
    logs[2, :8] = np.nan  # is lost before
    logs[3, :2] = np.nan  # is lost after
    found = of(crossings(cell_of(logs), None), "float16", "overflow")
    assert (found.crossed, found.never, found.dead, found.unknown) == (8, 0, 1, 1)
    assert (found.early, found.median, found.late) == (4, 4, None)
    # A gradient that is exactly zero in the law is no underflow.
    assert of(crossings(cell_of(logs), None), "float16", "underflow").crossed == 0


@pytest.mark.parametrize("n", [1, 2, 16, 300])
def test_largest_entry_of_a_uniform_direction(n: int) -> None:
    """Against 20,000 draws; wrong by chance with probability 1e-4 (z = 3.9), and the law of twice as many must fail."""
    z = np.random.default_rng(n).normal(size=(20_000, n))
    sample = np.log(np.abs(z).max(axis=1)) - np.log(np.linalg.norm(z, axis=1))
    error = sample.std() / math.sqrt(len(sample))
    assert abs(sample.mean() - log_largest_entry(n)) <= 3.9 * error + 1e-10
    assert abs(sample.mean() - log_largest_entry(2 * n)) > 3.9 * error


def test_the_toy_model_overflows_where_it_is_known_to() -> None:
    """1.5^L: by float16, 32 and 64 at L = 28, 219 and 1751."""
    chain = Chain(activation="linear", init="identity", gain=1.5, width=1, depth=300)
    found = crossings(gradsim.simulate(chain, 8), find(chain))
    for form, depth in (("float16", 28), ("bfloat16", 219), ("float32", 219)):
        crossing = of(found, form, "overflow")
        assert (crossing.early, crossing.median, crossing.late) == (300 - depth,) * 3
        assert (crossing.theory_depth, crossing.theory_layer) == (depth, 300 - depth)
    far = of(found, "float64", "overflow")
    assert (far.theory_depth, far.theory_layer, far.never) == (1751, None, 8)


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_theory_is_where_half_of_the_chains_have_crossed(activation: str) -> None:
    """The mean of ln max|g| passes where its median does, give or take the layer that the spread of the walk takes.

    Half of the chains pass a layer early or late as their value there is above or below: with drift 0.69 and a
    deviation of at most 0.6 over 20 layers, the first passage of the median is within two layers of the mean's; the
    theory of half the growth is not.
    """
    chain = Chain(activation=activation, width=64, depth=40, gain=2.0 if activation == "linear" else 2.0 * 2**0.5)
    cell = gradsim.simulate(chain, 400)
    crossing = of(crossings(cell, find(chain)), "float16", "overflow")
    assert crossing.theory_layer is not None and crossing.median is not None
    assert abs(crossing.median - crossing.theory_layer) <= 2
    slow = find(chain.replace(gain=float(chain.gains[0]) / 2**0.5))
    slower = of(crossings(cell, slow), "float16", "overflow")
    assert slower.theory_layer is None or abs(crossing.median - slower.theory_layer) > 2


def test_summary_mode_looks_at_what_is_kept(tmp_path: Any) -> None:
    experiment = gradsim.Experiment(chain={"width": 8, "depth": 30, "gain": 4.0}, chains=200, record="summary", keep=50)
    with gradsim.run(experiment, tmp_path / "out.h5") as results:
        (cell,) = gradsim.compare(results).cells
    assert of(cell.overflow, "float16", "overflow").chains == 50


def test_without_the_largest_entry_nothing_is_said() -> None:
    cell = gradsim.simulate(Chain(width=4, depth=3), 20, quantities=["log_grad_norm"])
    assert crossings(cell, None) == ()
    assert overflow_text([{"cell": 0, "overflow": []}, {"cell": 1, "overflow": None}]) == ""


def test_commands_say_it(call: Any) -> None:
    flags = ("--activation", "linear", "--width", "8", "--depth", "30", "--gain", "4", "--chains", "50")
    assert call("run", *flags, "-o", "out.h5").status == 0
    for command in ("info", "compare"):
        text = call(command, "out.h5").stdout
        row = next(line.split() for line in text.splitlines() if " float16 " in line)
        assert row[1:3] == ["float16", "inf"]
        document = json.loads(call(command, "out.h5", "--json").stdout)
        crossing = document["cells"][0]["overflow"][0]
        assert (crossing["format"], crossing["event"], crossing["chains"]) == ("float16", "overflow", 50)
        assert row[3] == str(crossing["median"])
    level = json_ready([{"cell": 0, "overflow": [vars(each) for each in crossings(cell_of(np.zeros((5, 4))), None)]}])
    assert overflow_text(level).endswith("stays within float16, bfloat16, float32 and float64")
