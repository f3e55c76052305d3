"""Tables and words for people."""

from __future__ import annotations

import math

import pytest

from gradsim import Chain
from gradsim.commands.views import bench_table, comparison_table, info_text, theory_table
from gradsim.tables import NARROWEST, WIDTH, Column, chain_in_words, counted, number, render


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"width": 64}, "relu n=64 L=50 he"),
        ({"activation": "linear", "gain": 1.5, "width": 8, "depth": 3}, "linear n=8 L=3 gain=1.5"),
        ({"kind": "recurrent", "width": 8, "gain": "kaiming"}, "recurrent relu n=8 T=50 kaiming"),
        ({"activation": "leaky_relu", "negative_slope": 0.2}, "leaky_relu slope=0.2 n=256 L=50 he"),
        (
            {"activation": "tanh", "init": "orthogonal", "bias": 0.05, "gain": 1.2},
            "tanh orthogonal n=256 L=50 gain=1.2 bias=0.05",
        ),
        ({"profile": [784, 256, 10], "gain": "xavier"}, "relu n=784,256,10 xavier"),
        ({"profile": [9] * 20}, "relu n=9,9,9,..,9,9 L=19 he"),
        ({"profile": [8, 4, 2], "gain": "torch"}, "relu uniform n=8,4,2 torch bias by layer"),
        (
            {"kind": "recurrent", "input_noise": 0.1, "input_scale": 2, "output_gradient": "ones"},
            "recurrent relu n=256 T=50 he input_scale=2 input_noise=0.1 g_L=ones",
        ),
        ({"skip": "rsqrt-depth", "width": 8}, "relu n=8 L=50 he skip=rsqrt-depth"),
        (
            {"skip": 0.5, "carry": 0, "norm": "rms", "norm_position": "pre", "norm_eps": 1e-5, "dropout": 0.1},
            "relu n=256 L=50 he skip=0.5 carry=0 rms-norm pre eps=1e-05 dropout=0.1",
        ),
        ({"norm": "batch", "clip": 2}, "relu n=256 L=50 he batch-norm batch=64 clip=2"),
        ({"batch": 4, "clip_value": 0.5}, "relu n=256 L=50 he batch=4 clip_value=0.5"),
        (
            {"kind": "lstm", "gain": 1, "forget_bias": 1, "probes": 3},
            "lstm n=256 T=50 gain=1 forget_bias=1 probes=3",
        ),
        ({"kind": "gru", "gain": "torch", "bias": 0, "width": 8}, "gru uniform n=8 T=50 torch"),
    ],
)
def test_chain_in_words(fields, words):
    assert chain_in_words(Chain(**fields).fields()) == words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (math.nan, "-"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        ("-inf", "-inf"),
        (0.0, "0.0000"),
        (-1.23456, "-1.2346"),
        (99999.0, "99999.0000"),
        (1e5, "1.00e+05"),
        (1.5e-7, "1.50e-07"),
    ],
)
def test_number(value, text):
    assert number(value) == text


def test_render_wraps_beside_the_other_rows_of_a_group():
    columns = (Column("n", right=True), Column("words", wraps=True), Column("end"))
    groups = [[["1", "alpha beta gamma delta", "x"], ["", "", "y"]], [["22", "short", "z"]]]
    assert render(columns, groups, 24).splitlines() == [
        " n  words            end",
        "--  ---------------  ---",
        " 1  alpha beta       x",
        "    gamma delta      y",
        "22  short            z",
    ]


NARROW = (Column("n", right=True), Column("words", wraps=True), Column("law", minor=True), Column("end"))
GROUPS = [[["1", "alpha beta gamma delta", "exact", "x"], ["", "", "exact", "y"]], [["22", "short", "", "z"]]]


def test_words_that_do_not_fit_beside_the_rows_go_above_them():
    assert render(NARROW, GROUPS, 16).splitlines() == [
        " n  law    end",
        "--  -----  ---",
        "alpha beta gamma",
        "delta",
        " 1  exact  x",
        "    exact  y",
        "short",
        "22         z",
    ]


def test_minor_columns_are_left_out_last():
    assert render(NARROW, GROUPS, 13).splitlines()[:2] == [" n  end", "--  ---"]


@pytest.mark.parametrize("width", [NARROWEST, 70, 80, 90])
def test_tables_fit_a_narrow_terminal(width):
    cells = [cell_document(LONG, "disagree", "exact"), cell_document(Chain(), "approximate", "mean field")]
    document = {"verdict": "disagree", "alpha": 0.01, "cells": cells}
    assert max(map(len, comparison_table(document, width=width).splitlines())) <= width
    law = {"mean": [-1234.5], "var": [1.0], "log_second_moment": [-1234.5], "p_dead": 1e-300, "rate": -1e-8}
    law |= {"quantity": "log_spectral_radius", "validity": "mean field", "source": "one " * 60}
    text = theory_table({"cells": [{"chain": LONG.fields(), "predictions": [law]}]}, width)
    assert max(map(len, text.splitlines())) <= width
    kernel = {"kernel": "recurrent orthogonal forward n=256", "ns_per_weight": 0.5, "numpy_ns_per_weight": 9.0}
    kernel |= {"numpy_ratio": 18.0, "floor_ns_per_weight": 0.25, "floor_ratio": 2.0}
    text = bench_table({"kernels": [kernel], "counting": "per weight", "machine": {}}, width)
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize(("count", "words"), [(0, "0 cells"), (1, "1 cell"), (4096, "4,096 cells")])
def test_counted(count, words):
    assert counted(count, "cell") == words


@pytest.mark.parametrize(
    ("rate", "text"), [(-5.6e-17, "0.0000"), (1.11e-16, "0.0000"), (-2.3e-10, "-2.30e-10"), (None, "-")]
)
def test_a_rate_that_is_zero_but_for_rounding_reads_zero(rate, text):
    law = {"mean": None, "var": None, "log_second_moment": None, "p_dead": 0.0, "rate": rate}
    law |= {"quantity": "log_grad_norm", "validity": "exact", "source": "a book"}
    lines = theory_table({"cells": [{"chain": Chain().fields(), "predictions": [law]}]}).splitlines()
    assert lines[2].split()[-3] == text


def cell_document(chain: Chain, verdict: str, validity: str) -> dict:
    test = {
        "quantity": "log_grad_norm",
        "layer": 0,
        "statistic": "increments",
        "theory": -12345.6789,
        "empirical": -1.2e-9,
        "standard_error": 0.1,
        "z": -1234.5,
        "p": 1e-300,
        "p_adjusted": 1e-299,
        "n": 4096,
        "validity": validity,
        "source": "a book",
        "verdict": verdict,
    }
    tests = [test, {**test, "statistic": "ks", "z": None, "p_adjusted": None, "theory": None}]
    return {"cell": 123, "chain": chain.fields(), "chains": 4096, "alive": 4096, "tests": tests}


LONG = Chain(kind="recurrent", activation="leaky_relu", init="rademacher", bias=0.123, input_noise=0.5, input_scale=3)


@pytest.mark.parametrize("validity", ["exact", "leading order", "mean field"])
def test_comparison_table_fits_and_says_the_verdict(validity):
    verdict = "disagree" if validity == "exact" else "approximate"
    document = {
        "verdict": "disagree" if validity == "exact" else "no exact law",
        "alpha": 0.01,
        "cells": [cell_document(LONG, verdict, validity), cell_document(Chain(), verdict, validity)],
    }
    text = comparison_table(document)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.count(verdict) >= 4
    last = text.splitlines()[-1]
    if validity == "exact":
        assert last == "disagree: 4 tests of exact laws, 4 rejected at 0.01 after Holm"
    else:
        assert last == "no exact law: nothing here can be rejected"
    plain = [line for line in text.splitlines() if "leaky_relu" in line]
    assert len(plain) == 1, "the chain is written once a cell"


def test_comparison_table_of_a_cell_without_a_law():
    document = {
        "verdict": "no exact law",
        "alpha": 0.05,
        "cells": [{"cell": 0, "chain": Chain().fields(), "chains": 64, "alive": 64, "rate": -0.25, "tests": []}],
    }
    line = comparison_table(document).splitlines()[2]
    assert line.split()[-8:] == ["none", "rate", "-", "-0.2500", "-", "-", "no", "law"]


def test_comparison_table_colours_verdicts_only():
    document = {"verdict": "agree", "alpha": 0.01, "cells": [cell_document(Chain(), "agree", "exact")]}
    assert comparison_table(document, lambda verdict: f"<{verdict}>").count("<agree>") == 2


def test_theory_table_numbers_its_sources():
    law = {
        "quantity": "log_grad_norm",
        "layer": [0, 1],
        "mean": [1e-17, 0.0],
        "var": [0.25, 0.0],
        "log_second_moment": ["inf", 0.0],
        "p_dead": 0.0,
        "rate": None,
        "validity": "exact",
        "source": "one " * 60,
    }
    document = {
        "cells": [
            {"chain": LONG.fields(), "predictions": [law]},
            {"chain": Chain().fields(), "predictions": [{**law, "var": None}]},
            {"chain": Chain(activation="linear").fields(), "predictions": []},
        ]
    }
    text = theory_table(document)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.count("[1]") == 3 and "[2]" not in text
    assert "0.500" in text and "inf" in text and "none" in text


def test_info_text():
    document = {
        "file": "a.h5",
        "bytes": 12345,
        "complete": True,
        "title": "",
        "seed": 7,
        "method": "dense",
        "device": "cpu",
        "dtype": "float32",
        "record": "summary",
        "quantities": ["log_grad_norm"],
        "created": "2026-01-01T00:00:00Z",
        "gradsim_version": "0.1.0",
        "provenance": {"python": "3.12.0", "threads": 2, "wall_seconds": 1.25},
        "cells": [
            {
                "cell": 0,
                "chain": Chain().fields(),
                "chains": 4096,
                "chains_done": 4096,
                "log_grad_norm_mean": None,
                "log_grad_norm_var": None,
                "rate": -0.0123,
                "dead": 4096,
                "nonfinite": 0,
                "seconds": 1.5,
            }
        ],
    }
    text = info_text(document)
    narrow = info_text({**document, "quantities": ["log_grad_norm"] * 9, "seed": 2**64 - 1}, NARROWEST)
    assert max(map(len, narrow.splitlines())) <= NARROWEST
    assert "12,345 bytes, complete" in text
    assert "title" not in text
    assert "2 threads, 1.2 s" in text
    assert text.splitlines()[-1].split()[-4:] == ["-0.0123", "4,096", "0", "1.50"]


def test_bench_table():
    kernel = {
        "kernel": "linear backward n=256",
        "ns_per_weight": 0.5,
        "numpy_ns_per_weight": 9.0,
        "numpy_ratio": 18.0,
        "floor_ns_per_weight": None,
        "floor_ratio": None,
    }
    machine = {"processor": "A processor", "threads": 1, "wall_seconds": 0.0}
    lines = bench_table({"kernels": [kernel], "counting": "per weight", "machine": machine}).splitlines()
    assert lines[2].split() == ["linear", "backward", "n=256", "0.500", "9.000", "18.00", "-", "-"]
    assert lines[-2:] == ["One thread; ns per weight.", "A processor, 1 thread."]
