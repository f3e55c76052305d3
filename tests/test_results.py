"""`Cell` and `Results`: in memory and from a file, as arrays, datasets and tables."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import subprocess
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray

import gradsim
from gradsim.chain import Chain
from gradsim.errors import GradsimError, ResultFileError
from gradsim.quantities import QUANTILES, STATISTICS
from gradsim.results import Cell, LazyArrays, Results
from gradsim.store import open_result
from gradsim.summary import summarise
from tests import synthetic


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write(tmp_path_factory.mktemp("results") / "result.h5", synthetic.experiment())


@pytest.fixture
def results(path: Path) -> Results:
    return open_result(path)


def cell_in_memory(index: int = 0) -> Cell:
    of = synthetic.experiment()
    return Cell.in_memory(of, synthetic.trajectories(of, index), index=index)


# --- a cell


def test_a_cell_in_memory_and_one_in_a_file_are_alike(results: Results) -> None:
    for index, there in enumerate(results):
        here = cell_in_memory(index)
        for name in ("chain", "chains", "chains_done", "dtype", "record", "quantities", "index"):
            assert getattr(here, name) == getattr(there, name), name
        for name in here.quantities:
            assert here[name].tobytes() == there[name].tobytes()
        assert here.summary.keys() == there.summary.keys()
        for name in here.summary:
            assert here.summary[name].tobytes() == there.summary[name].tobytes()
        xarray.testing.assert_identical(here.to_xarray(), there.to_xarray())
        pd.testing.assert_frame_equal(here.to_dataframe(), there.to_dataframe())


def test_a_cell_made_of_arrays() -> None:
    arrays = {"log_grad_norm": np.zeros((10, 4), np.float32)}
    cell = Cell(Chain(depth=3, width=5), arrays)
    assert (cell.chains, cell.chains_done, cell.record) == (10, 10, "trajectories")
    assert cell.quantities == ("log_grad_norm",)
    assert cell.log_grad_norm is cell["log_grad_norm"]
    assert cell.summary["log_grad_norm_count"].tolist() == [10] * 4
    assert "log_grad_norm" in cell
    assert "log_grad_max" not in cell
    assert "width=5" in repr(cell)


def test_a_cell_with_more_chains_than_are_stored() -> None:
    arrays = {"log_grad_norm": np.ones((70, 4), np.float32)}
    kept = {"log_grad_norm": arrays["log_grad_norm"][:5]}
    cell = Cell(Chain(depth=3, width=5), kept, chains=70, record="summary", summary=summarise(arrays))
    assert cell.chains == 70
    assert len(cell.log_grad_norm) == 5
    assert cell.summary["log_grad_norm_count"].tolist() == [70] * 4
    assert cell.to_xarray().sizes["chain"] == 5


def test_a_quantity_that_was_not_recorded() -> None:
    cell = Cell(Chain(depth=3, width=5), {"log_grad_norm": np.zeros((10, 4), np.float32)})
    with pytest.raises(KeyError, match="log_grad_max was not recorded in this cell; there is log_grad_norm"):
        cell["log_grad_max"]
    with pytest.raises(AttributeError, match="log_grad_max was not recorded"):
        cell.log_grad_max
    with pytest.raises(AttributeError, match="no attribute 'log_grad'"):
        cell.log_grad
    assert not hasattr(cell, "log_activation_norm")
    assert "log_grad_norm" in dir(cell)


# --- a file


def test_results_are_a_sequence_of_cells(results: Results) -> None:
    assert isinstance(results, Sequence)
    assert len(results) == 4
    assert [cell.index for cell in results] == [0, 1, 2, 3]
    assert results[-1].chain == results[3].chain == synthetic.experiment().cells[3]
    assert [cell.index for cell in results[1:3]] == [1, 2]
    for index in (4, -5):
        with pytest.raises(IndexError, match="of 4 cells"):
            results[index]


def test_results_carry_experiment_provenance_and_attributes(results: Results, path: Path) -> None:
    assert results.experiment == synthetic.experiment()
    assert results.provenance.items() >= synthetic.PROVENANCE.items()
    assert results.attributes["format"] == "gradsim"
    assert results.attributes["seed"] == str(2**64 - 1)
    assert json.loads(results.attributes["experiment"])["title"] == "größer"
    assert results.path == path
    assert str(path) in repr(results)


def test_gradsim_open_is_this(path: Path) -> None:
    assert len(gradsim.open(str(path))) == 4


def test_arrays_are_read_when_used_and_then_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    get = h5py.Dataset.__getitem__
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda self, key: read.append(self.name) or get(self, key))
    cell = open_result(path)[1]
    assert read == []
    first = cell.log_grad_norm
    assert cell["log_grad_norm"] is first
    assert read == ["/cells/0001/log_grad_norm"]
    cell.summary["dead"]
    assert read[1:] == ["/cells/0001/summary/dead"]


def test_what_is_read_cannot_be_written_to(results: Results) -> None:
    with pytest.raises(ValueError, match="read-only"):
        results[0].log_grad_norm[0, 0] = 1.0


def test_results_are_usable_before_in_and_after_a_with_block(path: Path) -> None:
    results = open_result(path)
    before = results[0].log_grad_norm
    with results as same:
        assert same is results
        inside, late = results[0].log_grad_norm, results[1]
    assert before.tobytes() == inside.tobytes() == results[0].log_grad_norm.tobytes()
    assert late.log_grad_max.shape == (200, 6)
    results.close()
    assert results[0].log_grad_norm.shape == (200, 6)


def test_nothing_stays_open_outside_of_a_with_block(path: Path) -> None:
    def names() -> list[str]:
        return [str(link.resolve()) for link in Path("/proc/self/fd").iterdir() if link.exists()]

    results = open_result(path)
    results[0].log_grad_norm
    assert str(path) not in names()
    with results:
        assert str(path) in names()
    assert str(path) not in names()


def test_iterating_does_not_keep_what_it_has_passed(results: Results) -> None:
    passed = []
    for cell in results:
        cell.log_grad_norm
        passed.append(weakref.ref(cell))
    gc.collect()
    assert [reference() for reference in passed] == [None, None, None, cell]


def test_a_file_replaced_since_it_was_opened_is_not_mixed_with_the_old(tmp_path: Path) -> None:
    path = synthetic.write(tmp_path / "r.h5", synthetic.tiny())
    results = open_result(path)
    synthetic.write(path, synthetic.tiny(seed=1), overwrite=True)
    with pytest.raises(ResultFileError, match="was replaced since it was opened: open it again"):
        results[0].log_grad_norm
    path.unlink()
    with pytest.raises(ResultFileError):
        results[0].log_grad_norm


@pytest.mark.parametrize("again", [lambda thing: pickle.loads(pickle.dumps(thing)), copy.copy, copy.deepcopy])
def test_results_and_cells_are_pickled_and_copied(path: Path, again: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with open_result(path.name) as results:
        cell = results[1]
        used = results[2]
        used.log_grad_norm, used.summary["dead"]
        copies = again(results), again(cell), again(used)
    if again is not copy.copy:  # a shallow copy shares its reader with the original
        monkeypatch.chdir("/")
    assert len(copies[0]) == len(results)
    assert copies[0].experiment == results.experiment
    assert copies[0].attributes == results.attributes
    for copied, index in ((copies[0][0], 0), (copies[1], 1), (copies[2], 2)):
        original = open_result(path)[index]
        assert copied.chain == original.chain
        for name in original.quantities:
            np.testing.assert_array_equal(copied[name], original[name])
            assert not copied[name].flags.writeable
        np.testing.assert_array_equal(copied.summary["dead"], original.summary["dead"])


def test_a_pickled_result_whose_file_is_gone_says_so(tmp_path: Path) -> None:
    path = synthetic.write(tmp_path / "out.h5", synthetic.tiny())
    text = pickle.dumps(open_result(path)[0])
    path.unlink()
    with pytest.raises(ResultFileError, match=r"out\.h5"):
        pickle.loads(text).log_grad_norm


def test_a_cell_in_memory_is_pickled() -> None:
    of = synthetic.tiny()
    cell = Cell.in_memory(of, synthetic.trajectories(of, 0))
    cell.summary
    copied = pickle.loads(pickle.dumps(cell))
    np.testing.assert_array_equal(copied.log_grad_norm, cell.log_grad_norm)
    np.testing.assert_array_equal(copied.summary["dead"], cell.summary["dead"])


def test_lazy_arrays_are_a_mapping() -> None:
    arrays = LazyArrays(["a", "b"], lambda name: np.full(2, ord(name)))
    assert list(arrays) == ["a", "b"]
    assert len(arrays) == 2
    assert arrays["b"].tolist() == [98, 98]
    with pytest.raises(KeyError):
        arrays["c"]


# --- xarray


def test_a_cell_as_a_dataset(results: Results, tmp_path: Path) -> None:
    data = results[2].to_xarray()
    data.to_netcdf(tmp_path / "cell.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "cell.nc", engine="netcdf4") as again:
        xarray.testing.assert_equal(again, data)
    assert dict(data.sizes) == {"chain": 200, "layer": 5, "weight": 1, "quantile": 9}
    assert data["log_grad_norm"].dims == ("chain", "layer")
    assert data["log_weight_grad_norm"].dims == ("chain", "weight")
    assert data["log_grad_norm_quantiles"].dims == ("quantile", "layer")
    assert data["weight"].values.tolist() == [1]
    assert data["log_grad_norm"].attrs["units"] == "1"
    assert data.attrs["kind"] == "recurrent"
    assert data.attrs["chains"] == 200


def test_results_as_a_tree(results: Results) -> None:
    tree = results.to_xarray()
    assert tree.attrs["format"] == "gradsim"
    assert len(tree["cells"].children) == 4
    xarray.testing.assert_identical(tree["cells/0001"].to_dataset(inherit=False), results[1].to_xarray())


# --- tables


def test_a_table_has_one_row_per_cell_quantity_and_layer(results: Results) -> None:
    frame = results.to_dataframe()
    assert len(frame) == 2 * (3 * 6 + 5) + (3 * 5 + 1) + (3 * 3 + 2)
    assert not frame.duplicated(["cell", "quantity", "layer"]).any()
    quantiles = [f"q{probability:g}" for probability in QUANTILES]
    assert list(frame.columns[-len(quantiles) - len(STATISTICS) - 4 :]) == [
        "quantity",
        "layer",
        *STATISTICS,
        *quantiles,
        "dead",
        "nonfinite",
    ]
    row = frame.query("cell == 1 and quantity == 'log_grad_norm' and layer == 0").iloc[0]
    assert (row["activation"], row["width"], row["depth"], row["chains"]) == ("relu", 8, 5, 200)
    summary = results[1].summary
    assert row["mean"] == summary["log_grad_norm_mean"][0]
    assert row["q0.5"] == summary["log_grad_norm_quantiles"][4, 0]
    assert (row["dead"], row["nonfinite"], row["count"]) == (4, 3, 193)
    assert frame["depth"].dtype == "Int64"
    assert pd.isna(frame.query("cell == 3")["width"]).all()
    assert frame.query("quantity == 'log_grad_max'")["dead"].isna().all()
    assert frame.query("cell == 3 and quantity == 'log_weight_grad_norm'")["layer"].tolist() == [1, 2]


@pytest.mark.parametrize("package", ["xarray", "pandas"])
def test_a_missing_package_is_one_clear_line(results: Results, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    convert = {"xarray": "to_xarray", "pandas": "to_dataframe"}[package]
    for holder in (results, results[0]):
        with pytest.raises(GradsimError, match=f"needs {package}, which is not installed: pip install"):
            getattr(holder, convert)()


def test_reading_needs_neither_pandas_nor_xarray_nor_scipy_nor_numba(path: Path) -> None:
    code = (
        "import sys, gradsim; results = gradsim.open(sys.argv[1]); results[0].summary['dead'];"
        "print(sorted({'pandas', 'xarray', 'scipy', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_h5py_is_imported_by_the_store_alone() -> None:
    package = Path(gradsim.__file__).parent
    importing = {
        source.relative_to(package).parts[0]
        for source in package.rglob("*.py")
        if "import h5py" in source.read_text() or "from h5py" in source.read_text()
    }
    assert importing == {"store"}
