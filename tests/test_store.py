"""The result file: what is written is what is read, by gradsim, h5py, netCDF and xarray."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from datetime import datetime
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray

from gradsim.chain import Chain
from gradsim.experiment import Experiment
from gradsim.plan import Block
from gradsim.quantities import QUANTILES, STATISTICS
from gradsim.store import ResultWriter, open_result, verify_file
from gradsim.store import cells as store_cells
from gradsim.store.encoding import encode_chunk, fletcher32
from gradsim.store.schema import chunk_shape
from gradsim.summary import SummaryBuilder, summarise
from tests import synthetic


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file that the tests below only read."""
    return synthetic.write(tmp_path_factory.mktemp("store") / "result.h5", synthetic.experiment())


def text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# --- what the file says


def test_root_attributes(path: Path) -> None:
    of = synthetic.experiment()
    with h5py.File(path) as file:
        root = dict(file.attrs)
    assert sorted(root) == [
        "complete",
        "content_sha256",
        "created",
        "device",
        "dtype",
        "experiment",
        "experiment_hash",
        "file_sha256",
        "format",
        "format_version",
        "gradsim_version",
        "method",
        "provenance",
        "seed",
        "stream_version",
    ]
    assert text(root["format"]) == "gradsim"
    assert root["format_version"] == 1
    assert root["stream_version"] >= 1
    assert root["complete"] == 1
    assert text(root["seed"]) == "18446744073709551615"
    assert text(root["created"]) == "2026-01-02T03:04:05Z"
    assert text(root["experiment_hash"]) == of.hash
    assert Experiment.from_json(text(root["experiment"])) == of
    assert [text(root[name]) for name in ("method", "device", "dtype")] == ["dense", "cpu", "float32"]
    assert re.fullmatch("[0-9a-f]{64}", text(root["content_sha256"]))
    assert len(root["provenance"]) == 4096
    found = json.loads(text(root["provenance"]))
    assert found.items() >= synthetic.PROVENANCE.items()
    assert found["hdf5"] == h5py.version.hdf5_version


def test_file_sha256_is_that_of_the_bytes_with_its_digits_zeroed(path: Path) -> None:
    data = path.read_bytes()
    with h5py.File(path) as file:
        digits = text(file.attrs["file_sha256"]).encode()
    assert data.count(digits) == 1
    assert hashlib.sha256(data.replace(digits, b"0" * 64)).hexdigest().encode() == digits


def test_cell_attributes_are_the_resolved_chain(path: Path) -> None:
    of = synthetic.experiment()
    with h5py.File(path) as file:
        assert sorted(file["cells"]) == ["0000", "0001", "0002", "0003"]
        for name, chain in zip(sorted(file["cells"]), of.cells, strict=True):
            found = dict(file["cells"][name].attrs)
            assert found.keys() == chain.fields().keys() | {"chains", "chains_done"}
            assert found["chains"] == found["chains_done"] == 200
            assert text(found["activation"]) == chain.activation
        first = file["cells/0000"].attrs
        assert (first["gain"], text(first["gain_name"])) == (2**0.5, "he")
        profile = file["cells/0003"].attrs
        assert np.isnan(profile["gain"])
        assert profile["gain_per_layer"].tolist() == of.cells[3].gains.tolist()
        assert profile["profile"].tolist() == [4, 8, 2]
        assert not {"width", "depth"} & set(profile)


def test_datasets_have_their_shapes_types_axes_and_meaning(path: Path) -> None:
    with h5py.File(path) as file:
        for index, (layers, weights) in enumerate([(6, 5), (6, 5), (5, 1), (3, 2)]):
            cell = file["cells"][f"{index:04d}"]
            expected = {
                "layer": ("int32", (layers,), ["layer"]),
                "chain": ("int64", (200,), ["chain"]),
                "weight": ("int32", (weights,), ["weight"]),
                "log_grad_norm": ("float32", (200, layers), ["chain", "layer"]),
                "log_activation_norm": ("float32", (200, layers), ["chain", "layer"]),
                "log_weight_grad_norm": ("float32", (200, weights), ["chain", "weight"]),
                "log_grad_max": ("float32", (200, layers), ["chain", "layer"]),
                "summary/quantile": ("float64", (9,), ["quantile"]),
                "summary/dead": ("int64", (layers,), ["layer"]),
                "summary/nonfinite": ("int64", (layers,), ["layer"]),
            }
            for quantity in synthetic.experiment().quantities:
                axis, length = ("weight", weights) if "weight" in quantity else ("layer", layers)
                for statistic in STATISTICS:
                    expected[f"summary/{quantity}_{statistic}"] = ("float64", (length,), [axis])
                described = ("float64", (9, length), ["quantile", axis])
                expected[f"summary/{quantity}_quantiles"] = described
            found = {name for name, item in _walk(cell) if isinstance(item, h5py.Dataset)}
            assert found == expected.keys()
            for name, (dtype, shape, axes) in expected.items():
                dataset = cell[name]
                assert (str(dataset.dtype), dataset.shape) == (dtype, shape), name
                assert text(dataset.attrs["units"]) == "1"
                assert len(text(dataset.attrs["long_name"])) > 5
                if dataset.is_scale:
                    assert [name.rpartition("/")[2]] == axes
                else:
                    scales = [dimension[0].name for dimension in dataset.dims]
                    assert [scale.rpartition("/")[2] for scale in scales] == axes
            assert cell["layer"][:].tolist() == list(range(layers))
            assert cell["chain"][:].tolist() == list(range(200))
            assert cell["weight"][:].tolist() == list(range(1, weights + 1))
            assert cell["summary/quantile"][:].tolist() == list(QUANTILES)


def _walk(group: h5py.Group) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    group.visititems(lambda name, item: found.append((name, item)))
    return found


def test_trajectories_are_compressed_in_chunks_of_their_shape_alone(path: Path) -> None:
    with h5py.File(path) as file:
        dataset = file["cells/0000/log_grad_norm"]
        assert dataset.chunks == chunk_shape(200, 6)
        assert (dataset.compression, dataset.compression_opts) == ("gzip", 1)
        assert dataset.shuffle
        assert dataset.fletcher32
        assert np.isnan(dataset.fillvalue)


@pytest.mark.parametrize("layers", [1, 2, 40, 41, 101, 1000, 10_001])
@pytest.mark.parametrize("chains", [1, 63, 64, 65, 4096, 4097, 10_000, 2**20])
def test_chunk_shapes(chains: int, layers: int) -> None:
    rows, columns = chunk_shape(chains, layers)
    assert 1 <= rows <= min(chains + 63, 4096)
    assert rows == chains or rows % 64 == 0
    assert rows <= 64 or rows * columns <= 2**16
    assert rows <= 64 or rows * layers <= 2**20
    # Padding: under one column per chunk beside each other, under 64 rows per band.
    assert -(-layers // columns) * columns < layers + -(-layers // columns)
    assert -(-chains // rows) * rows < chains + 64 * -(-chains // rows)


@pytest.mark.parametrize("record", ["trajectories", "summary"])
def test_what_is_read_is_what_was_written(tmp_path: Path, record: str) -> None:
    of = synthetic.experiment(record=record, keep=70)
    results = open_result(synthetic.write(tmp_path / "r.h5", of, size=128))
    assert verify_file(tmp_path / "r.h5") == []
    assert results.experiment == of
    assert [cell.chain for cell in results] == list(of.cells)
    for index, cell in enumerate(results):
        made = synthetic.trajectories(of, index)
        kept = {name: values[:70] if record == "summary" else values for name, values in made.items()}
        for name, values in kept.items():
            assert cell[name].tobytes() == values.tobytes()
        builder = SummaryBuilder(made)
        builder.add(0, made)
        for name, values in builder.result(kept).items():
            assert cell.summary[name].tobytes() == values.tobytes(), name


def test_trajectories_too_large_to_hold_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = synthetic.experiment()
    held = synthetic.write(tmp_path / "held.h5", of).read_bytes()
    monkeypatch.setattr(store_cells, "HELD_BYTES", 0)
    assert synthetic.write(tmp_path / "streamed.h5", of).read_bytes() == held


def test_many_bands_and_chunks_side_by_side(tmp_path: Path) -> None:
    of = synthetic.tiny(chain={"depth": 300, "width": 1}, chains=2500)
    made = synthetic.trajectories(of, 0)
    path = synthetic.write(tmp_path / "r.h5", of, size=192)
    with h5py.File(path) as file:
        dataset = file["cells/0000/log_grad_norm"]
        assert all(length > 2 * size for length, size in zip(dataset.shape, dataset.chunks, strict=True))
        assert dataset[:].tobytes() == made["log_grad_norm"].tobytes()


# --- the same bytes, whenever and however it is written


def test_two_writes_give_the_same_bytes(tmp_path: Path, path: Path) -> None:
    for size in (64, 128, 256):
        again = synthetic.write(tmp_path / f"{size}.h5", synthetic.experiment(), size=size)
        assert again.read_bytes() == path.read_bytes()


def test_the_order_of_blocks_does_not_change_the_content(tmp_path: Path, path: Path) -> None:
    of = synthetic.experiment()
    with ResultWriter(tmp_path / "r.h5", of) as writer:
        for block in reversed(synthetic.blocks(of)):
            made = synthetic.trajectories(of, block.cell)
            writer.write(block, synthetic.part(made, block))
        writer.finish({"other": "provenance"})
    assert verify_file(tmp_path / "r.h5") == []
    assert _content(tmp_path / "r.h5") == _content(path)


def test_content_sha256_sees_one_changed_value(tmp_path: Path, path: Path) -> None:
    of = synthetic.experiment()
    with ResultWriter(tmp_path / "r.h5", of) as writer:
        for block in synthetic.blocks(of):
            made = synthetic.trajectories(of, block.cell)
            made["log_grad_max"][9, 1] += 1e-6
            writer.write(block, synthetic.part(made, block))
        writer.finish(synthetic.PROVENANCE, synthetic.CREATED)
    assert _content(tmp_path / "r.h5") != _content(path)


def _content(path: Path) -> object:
    return open_result(path).attributes["content_sha256"]


def test_created_is_now_in_utc(tmp_path: Path) -> None:
    with ResultWriter(tmp_path / "r.h5", synthetic.tiny()) as writer:
        synthetic.fill(writer)
        writer.finish({})
    created = datetime.fromisoformat(open_result(tmp_path / "r.h5").attributes["created"])
    assert abs((datetime.now(created.tzinfo) - created).total_seconds()) < 60
    assert created.utcoffset() is not None


# --- chunks encoded here are HDF5's


@pytest.mark.parametrize("kind", ["noise", "constant", "walk", "zeros"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (64, 5), (2048, 33), (4096, 17)])
def test_encoded_chunks_are_read_back_by_hdf5(tmp_path: Path, kind: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    made = {
        "noise": rng.integers(0, 2**32, shape, dtype=np.uint32).view(np.float32),
        "constant": np.full(shape, 1.1, np.float32),
        "walk": rng.normal(size=shape).cumsum(axis=1).astype(np.float32),
        "zeros": np.zeros(shape, np.float32),
    }[kind]
    for used in {shape[0], shape[0] // 2, 0}:
        made[used:] = 0
        with h5py.File(tmp_path / "c.h5", "w") as file:
            options = {"compression": 1, "shuffle": True, "fletcher32": True}
            dataset = file.create_dataset("x", shape, "f4", chunks=shape, **options)
            dataset.id.write_direct_chunk((0, 0), encode_chunk(made, used))
            assert dataset[:].tobytes() == made.tobytes()


def test_encoded_chunks_are_small() -> None:
    walk = np.random.default_rng(0).normal(size=(1024, 34)).cumsum(axis=1).astype(np.float32)
    filtered = zlib.compress(walk.view(np.uint8).reshape(-1, 4).T.tobytes(), 1)
    assert len(encode_chunk(walk, len(walk))) < 1.05 * len(filtered)
    assert len(encode_chunk(np.zeros_like(walk), len(walk))) < 1000


def test_fletcher32_folds_as_hdf5_does() -> None:
    assert fletcher32(b"") == 0
    assert fletcher32(b"\x00" * 100) == 0
    assert fletcher32(b"\xff\xff") == 0xFFFFFFFF
    # Fletcher's sums over the words 0x6162 0x6364 0x6566.
    first = (0x6162 + 0x6364 + 0x6566) % 65535
    second = (3 * 0x6162 + 2 * 0x6364 + 0x6566) % 65535
    assert fletcher32(b"abcdef") == second << 16 | first


# --- netCDF-4 and xarray


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_xarray_opens_it_with_named_axes_and_coordinates(path: Path, engine: str) -> None:
    of = synthetic.experiment()
    with xarray.open_datatree(path, engine=engine) as tree:
        assert "phony" not in str(tree)
        assert tree.attrs["format"] == "gradsim"
        assert Experiment.from_json(tree.attrs["experiment"]) == of
        for index, chain in enumerate(of.cells):
            cell = tree[f"cells/{index:04d}"]
            made = synthetic.trajectories(of, index)
            assert cell["log_grad_norm"].dims == ("chain", "layer")
            assert cell["log_grad_norm"].values.tobytes() == made["log_grad_norm"].tobytes()
            assert list(cell["log_grad_norm"].coords) == ["chain", "layer"]
            assert cell["log_weight_grad_norm"].dims == ("chain", "weight")
            # The layers of the cell are also those of its summary.
            summary = cell["summary"]
            assert summary["log_grad_norm_quantiles"].dims == ("quantile", "layer")
            assert summary["layer"].values.tolist() == list(range(chain.depth + 1))
            assert Chain.from_fields(cell.attrs) == chain
            assert "logarithm" in cell["log_grad_norm"].attrs["long_name"]


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_xarray_opens_one_group(path: Path, engine: str) -> None:
    with xarray.open_dataset(path, engine=engine, group="cells/0000") as data:
        assert dict(data.sizes) == {"chain": 200, "layer": 6, "weight": 5}
        assert data.attrs["activation"] == "linear"
        assert data.attrs["bias_name"] == ""
        # By label, which needs coordinates.
        assert np.isneginf(data["log_grad_norm"].sel(chain=5, layer=0))
    with xarray.open_dataset(path, engine=engine, group="cells/0000/summary") as data:
        assert data["log_grad_norm_mean"].dims == ("layer",)
        median = summarise(synthetic.trajectories(synthetic.experiment(), 0))["log_grad_norm_quantiles"][4]
        assert data["log_grad_norm_quantiles"].sel(quantile=0.5).values.tolist() == median.tolist()


# --- blocks that do not belong


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        (Block(0, 0, 201), "of 200"),
        (Block(0, 32, 64), "multiple of 64"),
        (Block(0, 0, 65), "multiple of 64"),
        (Block(0, 64, 128), "written before"),
        (Block(1, 0, 64), "complete"),
    ],
)
def test_a_wrong_block_is_refused_and_ends_the_writing(tmp_path: Path, block: Block, complaint: str) -> None:
    of = synthetic.experiment()
    with ResultWriter(tmp_path / "r.h5", of) as writer:
        made = synthetic.trajectories(of, 0)
        writer.write(Block(1, 0, 200), synthetic.trajectories(of, 1))
        writer.write(Block(0, 64, 192), synthetic.part(made, Block(0, 64, 192)))
        rows = {name: np.zeros((block.stop - block.start, made[name].shape[1]), np.float32) for name in made}
        with pytest.raises(ValueError, match=complaint):
            writer.write(block, rows)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [np.zeros((64, 6)), np.zeros((64, 5), np.float32)])
def test_an_array_of_another_type_or_shape_is_refused(tmp_path: Path, wrong: np.ndarray) -> None:
    of = synthetic.experiment()
    with ResultWriter(tmp_path / "r.h5", of) as writer:
        made = synthetic.part(synthetic.trajectories(of, 0), Block(0, 0, 64)) | {"log_grad_norm": wrong}
        with pytest.raises(ValueError, match=r"log_grad_norm is float32 \(64, 6\)"):
            writer.write(Block(0, 0, 64), made)


def test_a_file_is_not_finished_before_its_chains_are(tmp_path: Path) -> None:
    of = synthetic.experiment()
    with ResultWriter(tmp_path / "r.h5", of) as writer:
        writer.write(Block(0, 0, 200), synthetic.trajectories(of, 0))
        with pytest.raises(ValueError, match="lacks chains in 3 of 4 cells"):
            writer.finish({})
