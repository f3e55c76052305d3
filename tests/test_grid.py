"""Grids: axes, ranges, overrides and the text of flags."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsim.errors import ExperimentError
from gradsim.grid import count_cells, expand, override, parse_flag, read_table


def test_cells_are_the_product_in_the_order_written_the_last_axis_fastest() -> None:
    table = read_table({"gain": [1, 2], "activation": "relu", "width": [3, 4, 5]})
    cells = list(expand(table))
    assert [(cell["gain"], cell["width"]) for cell in cells] == [(g, w) for g in (1.0, 2.0) for w in (3, 4, 5)]
    assert list(cells[0]) == ["gain", "activation", "width"]
    assert count_cells(table) == len(cells) == 6


def test_a_flat_list_is_one_profile_and_a_list_of_lists_is_an_axis() -> None:
    assert read_table({"profile": [3, 4, 5]}) == {"profile": (3, 4, 5)}
    assert read_table({"profile": [[3, 4], [5, 6, 7]]}) == {"profile": [(3, 4), (5, 6, 7)]}
    assert read_table({"profile": [[3, 4]]}) == {"profile": [(3, 4)]}
    assert read_table({"profile": np.array([[3, 4], [5, 6]])}) == {"profile": [(3, 4), (5, 6)]}


def test_ranges_are_what_numpy_makes_of_them() -> None:
    gains = read_table({"gain": {"from": 0.5, "to": 2.5, "num": 41}})["gain"]
    assert gains == pytest.approx(np.linspace(0.5, 2.5, 41))
    assert 0.6 in gains, "rounded, so that a range and a list name the same chains"  # type: ignore[operator]
    gains = read_table({"gain": {"from": 1e-3, "to": 1e3, "num": 7, "scale": "log"}})["gain"]
    assert gains == [0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0]
    widths = read_table({"width": {"from": 16, "to": 1024, "num": 7, "scale": "log"}})["width"]
    assert widths == [16, 32, 64, 128, 256, 512, 1024]
    assert all(type(width) is int for width in widths)  # type: ignore[union-attr]


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.integers(2, 50), st.sampled_from(["linear", "log"]))
def test_a_range_keeps_its_ends_and_its_order(start: float, stop: float, num: int, scale: str) -> None:
    if math.isclose(start, stop, rel_tol=1e-6):
        return
    values = read_table({"gain": {"from": start, "to": stop, "num": num, "scale": scale}})["gain"]
    assert isinstance(values, list)
    assert (values[0], values[-1], len(values)) == (start, stop, num)
    assert values == sorted(values, reverse=stop < start)


BAD_TABLES: list[tuple[dict[str, Any], list[str]]] = [
    ({"width": []}, ["width = []", "empty axis"]),
    ({"profile": []}, ["profile = []", "empty axis"]),
    ({"width": [64, 64]}, ["width", "64 twice"]),
    ({"gain": [1, 1.0]}, ["gain", "1.0 twice"]),
    ({"gain": ["he", 2, "kaiming"]}, ['gain holds "he" and "kaiming", which are the same']),
    ({"gain": ["xavier", "glorot"]}, ['gain holds "xavier" and "glorot", which are the same']),
    ({"width": [64, True]}, ["width = true"]),
    ({"width": [[64]]}, ["width = [64]"]),
    ({"profile": [[3, 4], 5]}, ["profile = 5"]),
    ({"width": {"from": 1, "to": 3, "num": 9}}, ["width", "twice"]),
    ({"width": {"from": 1.5, "to": 3, "num": 2}}, ["width = 1.5", "integer"]),
    ({"gain": {"from": 0, "to": 3, "num": 2, "scale": "log"}}, ["gain", "from = 0", "log scale"]),
    ({"gain": {"from": 0, "to": math.inf, "num": 2}}, ["gain", "to = inf", "finite"]),
    ({"gain": {"from": -1, "to": 1, "num": 2}}, ["gain = -1"]),
    ({"gain": {"from": 0, "to": 1}}, ["gain", "num"]),
    ({"gain": {"from": 0, "to": 1, "num": 1}}, ["num = 1", "from 2"]),
    ({"gain": {"from": 0, "to": 1, "num": True}}, ["num = true"]),
    ({"gain": {"from": 0, "to": 1, "num": 10**9}}, ["num = 1000000000", "10000"]),
    ({"gain": {"from": 0, "to": 1, "nmu": 2}}, ["nmu", 'did you mean "num"']),
    ({"gain": {"from": 0, "to": 1, "num": 2, "scale": "sqrt"}}, ['scale = "sqrt"', '"linear", "log"']),
    ({"activation": {"from": 0, "to": 1, "num": 2}}, ["activation", "no range"]),
    ({"width": list(range(1, 20_000))}, ["width", "19999", "10000"]),
]


@pytest.mark.parametrize(("raw", "parts"), BAD_TABLES, ids=[repr(raw)[:50] for raw, _ in BAD_TABLES])
def test_a_bad_axis_is_one_line(raw: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ExperimentError) as caught:
        read_table(raw)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_overrides_replace_fields_and_follow_the_axes_of_the_table() -> None:
    table = read_table({"width": [3, 4], "gain": [1, 2], "depth": 5})
    assert list(override(table, {"width": [8, 9]})) == ["gain", "depth", "width"]
    assert override(table, {"profile": (3, 4)}) == {"gain": [1.0, 2.0], "profile": (3, 4)}
    table = read_table({"profile": [3, 4], "gain": 1})
    assert override(table, {"depth": 7}) == {"gain": 1.0, "depth": 7}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("width", "64", 64),
        ("width", "64,256", [64, 256]),
        ("width", " 64 , 256 ", [64, 256]),
        ("width", "16:64:4", [16, 32, 48, 64]),
        ("gain", "0.5:2.5:5", [0.5, 1.0, 1.5, 2.0, 2.5]),
        ("gain", "he", "he"),
        ("gain", "he,1", ["he", 1.0]),
        ("gain", "1e-3", 0.001),
        ("input_scale", "2", 2.0),
        ("activation", "linear,relu", ["linear", "relu"]),
        ("profile", "784,256,10", (784, 256, 10)),
        ("profile", ["784,256,10"], (784, 256, 10)),
        ("profile", ["3,4", "5,6"], [(3, 4), (5, 6)]),
        ("seed", "18446744073709551615", 2**64 - 1),
        ("chains", "7", 7),
        ("title", "a, b: c", "a, b: c"),
        ("dtype", "float64", "float64"),
        ("quantities", "log_grad_max,log_grad_norm", ("log_grad_norm", "log_grad_max")),
        ("block", "auto", "auto"),
        ("block", "128", 128),
    ],
)
def test_flags(name: str, text: str | list[str], value: object) -> None:
    assert parse_flag(name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("width", "64,-3", ["--width", "width = -3", "integer"]),
        ("width", "", ["--width", 'width = ""']),
        ("width", "64,,3", ["--width", 'width = ""']),
        ("width", "64,64", ["--width", "64 twice"]),
        ("width", "6.5", ["--width", "6.5"]),
        ("width", "true", ["--width", '"true"']),
        ("gain", "nan", ["--gain", "gain = nan"]),
        ("gain", "1:2", ["--gain", "FROM:TO:NUM"]),
        ("gain", "1:2:x", ["--gain", 'num = "x"']),
        ("input_scale", "0", ["--input-scale", "input_scale = 0"]),
        ("profile", "784", ["--profile", "profile = [784]"]),
        ("seed", "1,2", ["--seed", 'seed = "1,2"']),
        ("seed", "18446744073709551616", ["--seed", "18446744073709551615"]),
        ("device", "tpu", ["--device", '"tpu"', "cpu, cuda"]),
        ("method", "sparse", ["--method", "dense, deferred"]),
        ("quantities", "lyapunov", ["--quantities", "log_grad_norm among them"]),
        ("widht", "3", ["--widht", 'did you mean "width"']),
    ],
)
def test_a_bad_flag_is_one_line_naming_the_flag(name: str, text: str, parts: list[str]) -> None:
    with pytest.raises(ExperimentError) as caught:
        parse_flag(name, text)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)
