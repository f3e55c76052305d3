"""Files whose cells record different quantities: an LSTM's cell gradient, Lyapunov exponents of probes."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from gradsim.chain import Chain
from gradsim.quantities import STATISTICS
from gradsim.results import Cell
from gradsim.store import open_result, verify_file
from tests import synthetic

CHAIN = [
    {"width": 8, "depth": 5},
    {"kind": "lstm", "width": 6, "depth": 4, "probes": 3, "forget_bias": 1},
    {"kind": "gru", "width": 6, "depth": 4},
    {"width": 8, "depth": 5, "probes": [1, 8], "skip": "rsqrt-depth", "norm": "layer", "norm_eps": 1e-5},
]
HAS = [(), ("log_cell_grad_norm", "lyapunov"), (), (), ("lyapunov",)]


def experiment(**changes):
    return synthetic.experiment(**({"chain": CHAIN} | changes))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write(tmp_path_factory.mktemp("mixed") / "out.h5", experiment())


def test_each_cell_holds_what_its_chain_has(path: Path) -> None:
    plain = ("log_grad_norm", "log_activation_norm", "log_weight_grad_norm", "log_grad_max")
    with open_result(path) as results:
        assert [cell.quantities for cell in results] == [(*plain, *has) for has in HAS]
        assert [cell.chain for cell in results] == list(experiment().cells)
        for index, cell in enumerate(results):
            for name, values in synthetic.trajectories(experiment(), index).items():
                np.testing.assert_array_equal(cell[name], values)
            assert len(cell.summary) == len(cell.quantities) * (len(STATISTICS) + 1) + 2
        lstm = results[1]
        assert lstm.log_cell_grad_norm.shape == (200, 5)
        assert lstm.lyapunov.shape == (200, 3)
        assert lstm.summary["lyapunov_mean"].shape == (3,)
        assert lstm.summary["lyapunov_quantiles"].shape == (9, 3)
        with pytest.raises(AttributeError, match="log_cell_grad_norm was not recorded"):
            results[4].log_cell_grad_norm


def test_exponents_have_an_axis_of_probes(path: Path) -> None:
    with h5py.File(path) as file:
        assert ["probe" in file[f"cells/{index:04d}"] for index in range(5)] == [bool("lyapunov" in has) for has in HAS]
        cell = file["cells/0004"]
        assert cell["probe"][()].tolist() == list(range(8))
        assert cell["probe"].dtype == np.int32
        for name, axes in (("lyapunov", ["chain", "probe"]), ("summary/lyapunov_mean", ["probe"])):
            assert [cell[name].dims[at].keys()[0] for at in range(len(axes))] == axes
            assert cell[name].attrs["units"] == b"1"
            assert b"growth" in cell[name].attrs["long_name"]
        attributes = cell.attrs
        assert (attributes["skip"], attributes["skip_name"]) == (5**-0.5, b"rsqrt-depth")
        assert (attributes["norm"], attributes["norm_position"], attributes["norm_eps"]) == (b"layer", b"before", 1e-5)
        assert "activation" not in file["cells/0001"].attrs


@pytest.mark.parametrize("record", ["trajectories", "summary"])
def test_such_a_file_is_sound_in_either_mode(tmp_path: Path, record: str) -> None:
    of = experiment(record=record, chains=150, keep=70)
    assert verify_file(synthetic.write(tmp_path / "out.h5", of)) == []
    with open_result(tmp_path / "out.h5") as results:
        here = Cell.in_memory(of, synthetic.trajectories(of, 1), index=1)
        np.testing.assert_array_equal(results[1].summary["lyapunov_mean"], here.summary["lyapunov_mean"])
        assert len(results[1].lyapunov) == (70 if record == "summary" else 150)


def test_a_missing_or_foreign_quantity_is_found(path: Path, tmp_path: Path) -> None:
    from tests.test_verify import seal

    for number, change in enumerate(("del", "add")):
        spoilt = tmp_path / f"{number}.h5"
        spoilt.write_bytes(path.read_bytes())
        with h5py.File(spoilt, "r+") as file:
            if change == "del":
                del file["cells/0001/lyapunov"]
            else:
                file["cells/0000/lyapunov"] = np.zeros((200, 1), np.float32)
        seal(spoilt)
        (problem,) = verify_file(spoilt)
        assert problem == ("cell 1: lyapunov is missing" if change == "del" else "cell 0: lyapunov is unknown")


def test_asked_for_it_is_recorded_where_there_is_any(tmp_path: Path) -> None:
    of = experiment(quantities=["log_grad_norm", "lyapunov"])
    with open_result(synthetic.write(tmp_path / "out.h5", of)) as results:
        assert [cell.quantities[1:] for cell in results] == [(), ("lyapunov",), (), (), ("lyapunov",)]


def test_tables_and_datasets(path: Path) -> None:
    pytest.importorskip("xarray")
    with open_result(path) as results:
        tree = results.to_xarray()
        assert tree["cells/0001/lyapunov"].dims == ("chain", "probe")
        assert tree["cells/0001/lyapunov"].coords["probe"].values.tolist() == [0, 1, 2]
        assert "probe" not in tree["cells/0000"].dims
        table = results.to_dataframe()
    exponents = table[(table["quantity"] == "lyapunov") & (table["cell"] == 4)]
    assert exponents["layer"].tolist() == list(range(8))
    assert set(table.columns) >= {"skip", "skip_name", "norm", "probes", "forget_bias"}
    assert exponents["probes"].tolist() == [8] * 8


def test_the_page_names_all_that_such_a_file_holds(path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "file-format.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([^`]+)`", page))
    with h5py.File(path) as file:
        for cell in file["cells"].values():
            assert set(cell.attrs) - named == set()
            assert set(cell) - named == {"summary"} - named


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_xarray_opens_it_with_an_axis_of_probes(path: Path, engine: str) -> None:
    xarray = pytest.importorskip("xarray")
    with xarray.open_datatree(path, engine=engine) as tree:
        assert "phony" not in str(tree)
        for index, chain in enumerate(experiment().cells):
            assert Chain.from_fields(tree[f"cells/{index:04d}"].attrs) == chain
        exponents = tree["cells/0001/lyapunov"]
        assert exponents.dims == ("chain", "probe")
        assert exponents.coords["probe"].values.tolist() == [0, 1, 2]
        assert tree["cells/0001/summary/lyapunov_quantiles"].dims == ("quantile", "probe")
