"""`Experiment`: TOML and Python in, cells, JSON and hash out, and what bad input gets."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsim.chain import Chain
from gradsim.errors import ExperimentError, StorageError
from gradsim.experiment import Experiment

EXAMPLE = """
title = "He initialisation across widths"
seed = 7
chains = 100
[[chain]]
activation = ["linear", "relu"]
width = [64, 256]
depth = 50
gain = "he"
[[chain]]
kind = "recurrent"
gain = {from = 0.5, to = 1.5, num = 3}
width = 8
[run]
dtype = "float64"
record = "summary"
quantities = ["log_grad_max", "log_grad_norm"]
block = 128
keep = 10
"""


def test_a_file_gives_its_cells_in_order(tmp_path: Path) -> None:
    path = tmp_path / "example.toml"
    path.write_text(EXAMPLE)
    experiment = Experiment.from_toml(path)
    assert (experiment.title, experiment.seed, experiment.chains) == (
        "He initialisation across widths",
        7,
        100,
    )
    assert (experiment.dtype, experiment.record, experiment.block, experiment.keep) == (
        "float64",
        "summary",
        128,
        10,
    )
    assert experiment.quantities == ("log_grad_norm", "log_grad_max")
    assert (experiment.method, experiment.device, experiment.streams) == ("dense", "cpu", "independent")
    assert experiment.cells == (
        *(Chain(activation=activation, width=width) for activation in ("linear", "relu") for width in (64, 256)),
        *(Chain(kind="recurrent", gain=gain, width=8) for gain in (0.5, 1.0, 1.5)),
    )
    assert Experiment.from_text(EXAMPLE) == Experiment.from_toml(str(path)) == experiment


def test_python_and_file_make_the_same_experiment() -> None:
    experiment = Experiment(chain={"width": [64, 256]}, chains=5, seed=3)
    assert experiment == Experiment.from_text("chains=5\nseed=3\n[chain]\nwidth=[64,256]")
    assert experiment == Experiment.from_dict({"chains": 5, "seed": 3, "chain": [{"width": [64, 256]}]})
    chain = Chain(profile=[3, 4], gain="torch", activation="tanh")
    assert Experiment(chain=chain).cells == (chain,)
    assert Experiment(chain=[chain, {"width": [1, 2]}]).cells == (chain, Chain(width=1), Chain(width=2))
    assert Experiment().cells == Experiment.from_text("").cells == (Chain(),)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Experiment files as dictionaries, all of them allowed."""

    def axis(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.one_of(values, st.lists(values, min_size=1, max_size=3, unique=True))

    widths = st.lists(st.integers(1, 99), min_size=2, max_size=4)
    tables = st.one_of(
        st.fixed_dictionaries(
            {},
            optional={
                "kind": axis(st.sampled_from(["feedforward", "recurrent"])),
                "activation": axis(st.sampled_from(["linear", "relu", "tanh"])),
                "width": axis(st.integers(1, 99)),
                "depth": axis(st.integers(1, 99)),
                "gain": axis(st.one_of(st.floats(0.5, 3), st.sampled_from(["he", "torch", "xavier", "lecun"]))),
                "bias": axis(st.floats(0.5, 3)),
                "init": axis(st.sampled_from(["gaussian", "uniform", "orthogonal"])),
            },
        ),
        st.fixed_dictionaries(
            {"profile": st.one_of(widths, st.lists(widths, min_size=1, max_size=3, unique_by=tuple))}
        ),
    )
    return {
        "title": draw(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=20)),
        "seed": draw(st.integers(0, 2**64 - 1)),
        "chains": draw(st.integers(1, 2**32)),
        "chain": [
            dict(draw(st.permutations(sorted(table.items()))))
            for table in draw(st.lists(tables, min_size=1, max_size=3))
        ],
        "run": draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "dtype": st.sampled_from(["float32", "float64"]),
                    "record": st.sampled_from(["trajectories", "summary"]),
                    "streams": st.sampled_from(["independent", "common"]),
                    "block": st.one_of(st.just("auto"), st.integers(1, 10**6)),
                },
            )
        ),
    }


@settings(derandomize=True, max_examples=40, deadline=None)
@given(documents())
def test_json_gives_the_experiment_back(document: dict[str, Any]) -> None:
    experiment = Experiment.from_dict(document)
    again = Experiment.from_json(experiment.to_json())
    assert again == experiment
    assert again.cells == experiment.cells
    assert [chain.gain_name for chain in again.cells] == [chain.gain_name for chain in experiment.cells]
    assert again.hash == experiment.hash
    assert hash(again) == hash(experiment)


def test_json_is_resolved_and_keeps_the_order_of_axes() -> None:
    document = json.loads(Experiment.from_text(EXAMPLE).to_json())
    first, second = document["chain"]
    assert list(first)[:4] == ["activation", "width", "depth", "gain"]
    assert second["gain"] == [0.5, 1.0, 1.5]
    assert (first["init"], first["bias"], second["depth"], second["input_noise"]) == (
        "gaussian",
        0.0,
        50,
        0.0,
    )
    assert document["run"]["streams"] == "independent"


def test_quantities_are_by_default_those_that_some_cell_has() -> None:
    plain = ("log_grad_norm", "log_activation_norm", "log_weight_grad_norm", "log_grad_max")
    assert Experiment().quantities == plain
    mixed = Experiment([{"probes": [1, 2], "width": 4}, {"kind": ["lstm", "gru"]}])
    assert mixed.quantities == (*plain, "log_cell_grad_norm", "lyapunov")
    assert [mixed.quantities_of(chain)[4:] for chain in mixed.cells] == [(), ("lyapunov",), ("log_cell_grad_norm",), ()]
    assert Experiment.from_json(mixed.to_json()) == mixed
    few = Experiment({"probes": [1, 2], "width": 4}, quantities=["lyapunov", "log_grad_norm"])
    assert [few.quantities_of(chain) for chain in few.cells] == [("log_grad_norm",), ("log_grad_norm", "lyapunov")]


def test_an_experiment_without_later_fields_keeps_its_hash() -> None:
    """As it was before skip, norm, gates and the others existed."""
    table = {"activation": ["relu", "tanh"], "kind": ["feedforward", "recurrent"], "width": 8}
    assert Experiment(table).hash == "0ac03110fb4b8f2b4d2cbf606682fa505a526d17cd05030cd3fa7207abf51be7"


def test_json_of_a_grid_of_architectures_gives_it_back() -> None:
    tables = [
        {"kind": ["feedforward", "recurrent"], "norm": ["none", "batch", "layer"], "skip": [0, "inv-depth"]},
        {"kind": ["recurrent", "lstm", "gru"], "clip": [0, 1]},
        {"norm": ["batch", "rms"], "norm_position": ["before", "after"], "dropout": 0.5},
    ]
    experiment = Experiment(tables)
    again = Experiment.from_json(experiment.to_json())
    assert again == experiment
    assert again.cells == experiment.cells
    assert again.hash == experiment.hash


def test_the_hash_covers_what_determines_the_numbers_and_nothing_else() -> None:
    base = Experiment(chain={"width": [3, 4]})
    same = [
        {"title": "x"},
        {"chains": 9},
        {"block": 64},
        {"keep": 5},
        {"chain": [{"width": 3}, {"width": 4}]},
        {"chain": {"width": [3, 4], "gain": "kaiming"}},
    ]
    other = [
        {"seed": 1},
        {"dtype": "float64"},
        {"record": "summary"},
        {"streams": "common"},
        {"quantities": ["log_grad_norm"]},
        {"chain": {"width": [4, 3]}},
        {"chain": {"width": [3, 4], "gain": 1}},
    ]
    for change in same:
        assert Experiment(**({"chain": {"width": [3, 4]}} | change)).hash == base.hash, change
    hashes = {Experiment(**({"chain": {"width": [3, 4]}} | change)).hash for change in other}
    assert len(hashes | {base.hash}) == len(other) + 1
    assert len(base.hash) == 64


def test_overrides_act_on_every_table_and_their_axes_come_last() -> None:
    experiment = Experiment.from_text(EXAMPLE, {"width": "2,3", "chains": "5", "dtype": "float32", "gain": 1})
    assert (experiment.chains, experiment.dtype) == (5, "float32")
    assert [(c.kind, c.activation, c.width) for c in experiment.cells] == [
        *(("feedforward", activation, width) for activation in ("linear", "relu") for width in (2, 3)),
        *(("recurrent", "relu", width) for width in (2, 3)),
    ]
    assert {c.gain for c in experiment.cells} == {1.0}
    profiles = Experiment.from_text('[chain]\nwidth=3\ngain=["he","lecun"]', {"profile": ("3,4", "5,6")})
    assert [(c.gain, c.profile) for c in profiles.cells] == [
        (gain, profile) for gain in ("he", "lecun") for profile in ((3, 4), (5, 6))
    ]
    assert Experiment.from_dict({}, {"quantities": ["log_grad_norm", "log_grad_max"]}).quantities == (
        "log_grad_norm",
        "log_grad_max",
    )


REFUSED: list[tuple[str, list[str]]] = [
    ("chians = 1", ["chians", 'did you mean "chain']),
    ("seed = -1", ["seed = -1", "18446744073709551615"]),
    ("seed = 18446744073709551616", ["seed = 18446744073709551616"]),
    ("seed = 1.0", ["seed = 1.0", "integer"]),
    ("chains = true", ["chains = true"]),
    ("chains = 0", ["chains = 0"]),
    ("title = 3", ["title = 3"]),
    ('title = "a\\nb"', ["title", "one line"]),
    ("[run]\ndevice = 'tpu'", ["run", 'device = "tpu"', "cpu, cuda"]),
    ("[chain]\ninit = 'identity'\n[run]\nmethod = 'deferred'", ["run", 'init = "identity"', 'method = "dense"']),
    ("[run]\nmethod = 'exact'", ["run", 'method = "exact"', "dense, deferred"]),
    ("[run]\ndtpye = 'x'", ["run", "dtpye", 'did you mean "dtype"']),
    ("[run]\ndtype = 'float16'", ["dtype", "float32, float64"]),
    ("[run]\nblock = 0", ["block = 0", "auto"]),
    ("[run]\nkeep = 0", ["keep = 0"]),
    ("[run]\nquantities = []", ["quantities = []"]),
    ("[run]\nquantities = ['log_grad_max']", ["quantities", "log_grad_norm among them"]),
    ("[run]\nquantities = ['log_grad_norm', 'log_grad_norm']", ["quantities", "each once"]),
    ("[run]\nquantities = ['log_grad_norm', 'lyapunov']", ["run", "no cell has lyapunov", "probes > 1"]),
    ("[run]\nquantities = ['log_grad_norm', 'log_cell_grad_norm']", ["no cell has log_cell_grad_norm", '"lstm"']),
    ("[run]\nquantities = ['log_grad_norm', 'loss']", ['"loss"', "lyapunov"]),
    ("[chain]\nskip = [0, 1]\ncarry = 0.5", ["at skip = 0", "carry = 0.5 without skip"]),
    ("[chain]\nnorm = ['none', 'batch']\nprobes = 2", ["probes = 2", 'norm = "batch"']),
    ("[run]\nquantities = [['log_grad_norm'], {}]", ["quantities"]),
    ("[[run]]", ["run", "one table"]),
    ("chain = 3", ["chain = 3", "[[chain]]"]),
    ("chain = []", ["chain = []"]),
    ("chain = [3]", ["3", "table"]),
    ("[chain]\nwidth = []", ["width = []", "empty axis"]),
    ("[chain]\ngain = nan", ["gain = nan"]),
    ("[chain]\nwidth = 1979-05-27", ["width", "integer"]),
    ("[chain]\nprofile = [3, 4]\nwidth = 3", ["profile", "width = 3"]),
    ("[chain]\nprofile = [3, 4]\nkind = 'recurrent'", ["profile", "feedforward"]),
    ("[[chain]]\n[[chain]]\nwidth = -3", ["chain 2", "width = -3"]),
    (
        "[chain]\nactivation = ['leaky_relu', 'relu']\nnegative_slope = 0.1",
        ['activation = "relu"', "negative_slope"],
    ),
    (
        "[chain]\nwidth = {from = 1, to = 200, num = 200}\ngain = {from = 1, to = 2, num = 51}",
        ["10200 cells", "10000"],
    ),
    ("[chain]\ngain = {from = 1, to = 2, num = 9000}", ["bytes", "60000"]),
    ("seed = 1\n[chain\nwidth = 3", ["TOML", "line 2"]),
    ("seed = 1\nseed = 2", ["TOML", "line 2"]),
    ("x = " + "[" * 3000, ["nested too deeply"]),
    ("[run]\nquantities = [{" + "a." * 3000 + "a = 1}]", ["quantities", "list of names"]),
    ("seed = " + "9" * 5000, ["an integer has too many digits"]),
    ("seed = 0x" + "9" * 5000, ["seed = a number of thousands of digits"]),
    ("[run]\nquantities = [0x" + "9" * 5000 + "]", ["quantities", "list of names"]),
]


@pytest.mark.parametrize(("text", "parts"), REFUSED, ids=[text[:40] for text, _ in REFUSED])
def test_bad_input_is_one_line_naming_the_file(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ExperimentError) as caught:
        Experiment.from_toml(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_python_errors_name_the_argument() -> None:
    with pytest.raises(ExperimentError, match='unknown key "widht"; did you mean "width"'):
        Experiment(chain={"widht": 3})
    with pytest.raises(ExperimentError, match='unknown key "chians"'):
        Experiment(chians=3)
    with pytest.raises(ExperimentError, match="chain 2: width = -3"):
        Experiment(chain=[{}, {"width": -3}])
    with pytest.raises(ExperimentError, match=r"--width: width = -3"):
        Experiment.from_dict({}, {"width": "3,-3"})
    with pytest.raises(ExperimentError, match="widht"):
        Experiment.from_dict({}, {"widht": 3})


def test_files_that_are_no_experiment(tmp_path: Path) -> None:
    binary, large = tmp_path / "binary.toml", tmp_path / "large.toml"
    binary.write_bytes(b"\x89HDF\r\n\x1a\n")
    large.write_bytes(b"#" * 1_000_001)
    for path, reason in (
        (tmp_path / "missing.toml", "no such file"),
        (binary / "below.toml", "no such file"),
        (tmp_path, "folder"),
        (binary, "UTF-8"),
        (large, "larger"),
    ):
        with pytest.raises(ExperimentError, match=reason) as caught:
            Experiment.from_toml(path)
        assert str(path) in str(caught.value)


def test_a_file_with_a_byte_order_mark_and_dos_lines_is_read(tmp_path: Path) -> None:
    path = tmp_path / "dos.toml"
    path.write_bytes(b"\xef\xbb\xbfseed = 3\r\n[chain]\r\nwidth = 5\r\n")
    assert Experiment.from_toml(path).seed == 3


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(ExperimentError, match="not a regular file"):
            Experiment.from_toml(path)


def test_a_pipe_that_is_open_already_is_read() -> None:
    reader, writer = os.pipe()
    with open(reader, "rb"):
        os.write(writer, b"seed = 3")
        os.close(writer)
        assert Experiment.from_toml(f"/dev/fd/{reader}").seed == 3


def test_an_unreadable_file_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    secret = tmp_path / "secret.toml"
    secret.write_text("")
    monkeypatch.setattr("gradsim.experiment_text.open", refuse, raising=False)
    with pytest.raises(StorageError, match=r"secret\.toml: cannot be read: Permission denied"):
        Experiment.from_toml(secret)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 100_000, '{"seed": 1e400}', '{"seed": NaN}'])
def test_json_that_is_no_experiment_is_refused(text: str) -> None:
    with pytest.raises(ExperimentError):
        Experiment.from_json(text)


def test_experiments_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Experiment().seed = 3  # type: ignore[misc]


NAMES = [
    "title",
    "seed",
    "chains",
    "chain",
    "run",
    "width",
    "profile",
    "gain",
    "quantities",
    "block",
    "from",
    "num",
    "x",
]
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)),
    max_leaves=6,
)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=3),
    st.dictionaries(st.sampled_from(NAMES), ANYTHING),
)
def test_whatever_a_document_holds_it_is_an_experiment_or_one_line(
    document: dict[str, Any], overrides: dict[str, Any]
) -> None:
    try:
        Experiment.from_dict(document, overrides, "f.toml")
    except ExperimentError as error:
        assert str(error).isprintable()
