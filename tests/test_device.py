"""`device = "cuda"` from end to end: without a GPU one line and nothing written; with one, the results of the CPU.

A GPU is numba's CUDA simulator, in a process of its own, with faults as `simulated_gpu` has them.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

import gradsim
from gradsim.errors import DeviceError
from gradsim.kernels.cuda import device
from gradsim.plan import plan
from gradsim.progress import BarProgress, LineProgress, Meter, Notices, Progress
from tests.test_cli import strict_json
from tests.test_runner import Clock

ROOT = Path(__file__).resolve().parent.parent
# The second cell is the deeper one, which "lost" is about.
TINY = ("--width", "2", "--depth", "3,4", "--chains", "4", "--seed", "5", "--dtype", "float64")
CHAINS = 4
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def start(fault: str, *arguments: str, **options) -> subprocess.Popen[str]:
    """The command line on a simulated GPU."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "simulated_gpu.py"), fault, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, "NUMBA_ENABLE_CUDASIM": "1"},
        **options,
    )


def simulated(folder: Path, fault: str, *arguments: str) -> tuple[int, list[str]]:
    """The exit status of a run there, and what it said."""
    process = start(fault, "run", "--device", "cuda", *TINY, *arguments, cwd=folder)
    _, err = process.communicate(timeout=240)
    assert "Traceback" not in err
    return process.returncode, err.splitlines()


def contents(path: Path) -> str:
    """The digest of all that is in a result but where it comes from."""
    return strict_json(
        subprocess.check_output(
            [sys.executable, "-m", "gradsim", "info", str(path), "--json"], text=True, env=ENVIRONMENT
        )
    )["content_sha256"]


class TestWithoutAGpu:
    """Each cause: one line with the reason and what helps, exit status 1, nothing on disk."""

    @pytest.fixture(params=["no package", "no driver", "no device", "no compiler", "a package that does not load"])
    def reason(self, request, monkeypatch):
        from numba import cuda
        from numba.cuda.cudadrv.error import CudaSupportError

        def refuse(error):
            def current_context():
                raise error

            return current_context

        available, context = {
            "no package": (True, lambda: None),
            "no driver": (False, refuse(CudaSupportError("Error at driver init: \n\nlibrary cannot\nbe found.\n:"))),
            "no device": (True, refuse(RuntimeError("[100] CUDA_ERROR_NO_DEVICE"))),
            "no compiler": (False, lambda: None),
            "a package that does not load": (True, lambda: None),
        }[request.param]
        monkeypatch.setattr(cuda, "is_available", lambda: available)
        monkeypatch.setattr(cuda, "current_context", context)
        if request.param == "no package":
            find = importlib.util.find_spec
            monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "numba_cuda" else find(name))
        if request.param == "a package that does not load":
            monkeypatch.setitem(sys.modules, "numba.cuda", None)
            monkeypatch.delattr(numba, "cuda")
        return {
            "no package": "needs the package numba-cuda",
            "no driver": "(library cannot be found)",
            "no device": "([100] CUDA_ERROR_NO_DEVICE)",
            "no compiler": "(numba-cuda finds no NVVM, its compiler)",
            "a package that does not load": "numba.cuda",
        }[request.param]

    def test_a_run_is_refused(self, call, tmp_path, reason):
        done = call("run", "--device", "cuda", *TINY)
        assert done.status == 1
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith('gradsim: device = "cuda"')
        assert reason in line and "pip install 'gradsim[cuda12]' or 'gradsim[cuda13]'" in line
        assert os.listdir(tmp_path) == []

    def test_python_is_refused(self, tmp_path, reason):
        experiment = gradsim.Experiment({"width": 4}, chains=4, device="cuda")
        with pytest.raises(DeviceError, match="pip install"):
            gradsim.run(experiment, tmp_path / "out.h5")
        with pytest.raises(DeviceError, match="pip install"):
            gradsim.simulate(gradsim.Chain(width=4), chains=4, device="cuda")
        assert os.listdir(tmp_path) == []

    def test_what_a_run_would_take_is_said_all_the_same(self, call, tmp_path, reason):
        done = call("run", "quick", "--device", "cuda", "--dry-run")
        assert done.status == 0 and done.stderr == ""
        facts = dict(line.split(None, 1) for line in done.stdout.splitlines())
        assert facts["time"] == "unknown before the first block: how fast the GPU is shows then"
        assert facts["device"].startswith("cuda; ") and "of the GPU's memory a chain in flight" in facts["device"]
        assert facts["method"].endswith("of the GPU's memory a chain")
        assert os.listdir(tmp_path) == []

    def test_the_processor_needs_none(self, call, reason):
        assert call("run", "--device", "cpu", *TINY, "--quiet").status == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The results of a simulated GPU and of the CPU, in one folder, and what the first said."""
    folder = tmp_path_factory.mktemp("device")
    status, said = simulated(folder, "none", "-o", "cuda.h5", "--no-progress")
    assert status == 0, said
    subprocess.run(
        [sys.executable, "-m", "gradsim", "run", *TINY, "-o", "cpu.h5", "--quiet"],
        cwd=folder,
        check=True,
        env=ENVIRONMENT,
    )
    return folder, said


class TestResults:
    def test_they_are_those_of_the_processor(self, made):
        folder, _ = made
        with gradsim.open(folder / "cuda.h5") as found, gradsim.open(folder / "cpu.h5") as expected:
            assert len(found) == len(expected) == 2
            for cell, other in zip(found, expected, strict=True):
                assert cell.chain == other.chain and cell.quantities == other.quantities
                dead = np.isneginf(other.log_grad_norm[:, 0])
                assert 0 < dead.sum() < CHAINS, "some of either kind"
                for name in cell.quantities:
                    np.testing.assert_allclose(cell[name], other[name], rtol=0, atol=2e-6, err_msg=name)
                np.testing.assert_array_equal(np.isneginf(cell.log_grad_norm), np.isneginf(other.log_grad_norm))
            assert found.experiment.device == "cuda" and found.experiment.hash != expected.experiment.hash

    def test_another_seed_would_be_seen(self, made):
        """Control: the comparison above fails for other chains."""
        folder, _ = made
        with gradsim.open(folder / "cuda.h5") as found:
            chain = found[0].chain
            other = gradsim.simulate(chain, chains=CHAINS, seed=6, dtype="float64")
            assert not np.allclose(found[0].log_grad_norm, other.log_grad_norm, rtol=0, atol=1e-3)

    def test_where_they_come_from(self, made):
        folder, _ = made
        with gradsim.open(folder / "cuda.h5") as found, gradsim.open(folder / "cpu.h5") as other:
            provenance = found.provenance
            assert provenance["gpu"] == "numba's simulator" and provenance["numba_cuda"]
            assert provenance["compute_capability"].count(".") == 1
            assert "gpu" not in other.provenance

    @pytest.mark.parametrize("command", ["info", "compare", "verify"])
    def test_commands_read_them(self, made, call, command):
        folder, _ = made
        done = call(command, str(folder / "cuda.h5"))
        assert done.status == 0
        assert command != "info" or "numba's simulator" in done.stdout

    def test_a_simulated_gpu_is_said(self, made):
        _, said = made
        assert sum("the GPU is simulated on the CPU" in line for line in said) == 1

    def test_a_complete_file_needs_no_gpu(self, made, call):
        folder, _ = made
        output = str(folder / "cuda.h5")
        assert call("run", "--device", "cuda", *TINY, "-o", output, "--resume", "--quiet").status == 0


class TestFaults:
    def test_fewer_chains_at_a_time_give_the_same_and_are_said_once(self, made, tmp_path):
        status, said = simulated(tmp_path, "small", "-o", "cuda.h5", "--no-progress")
        assert status == 0
        line = "the GPU's memory holds 2 chains at a time, not 4: it takes them in turns"
        assert [text for text in said if "memory" in text] == [line]
        assert contents(tmp_path / "cuda.h5") == contents(made[0] / "cuda.h5")

    def test_a_chain_that_does_not_fit_is_refused_with_its_size(self, tmp_path):
        status, said = simulated(tmp_path, "tiny", "--quiet")
        assert status == 1
        (line,) = said
        assert line.startswith("gradsim: one chain needs ") and "KiB of the GPU's memory" in line
        assert os.listdir(tmp_path) == []

    def test_a_lost_device_ends_the_run_and_it_can_be_run_again(self, made, tmp_path):
        status, said = simulated(tmp_path, "lost", "-o", "cuda.h5", "--quiet")
        assert status == 1
        (line,) = said
        assert line.startswith("gradsim: the GPU failed (CudaAPIError: ")
        assert "unspecified launch failure" in line and "GRADSIM_DEBUG=1" in line
        assert not (tmp_path / "cuda.h5").exists()
        assert simulated(tmp_path, "none", "-o", "cuda.h5", "--quiet", "--resume")[0] == 0
        assert os.listdir(tmp_path) == ["cuda.h5"]
        assert contents(tmp_path / "cuda.h5") == contents(made[0] / "cuda.h5")

    def test_a_compiler_that_fails_is_one_line(self, tmp_path):
        status, said = simulated(tmp_path, "compiler", "--quiet")
        assert status == 1
        (line,) = said
        assert line.startswith("gradsim: cannot compile a kernel for this GPU (NvvmError: unsupported line after line")
        assert len(line) < 600
        assert os.listdir(tmp_path) == []

    def test_a_signal_is_heard_between_two_launches(self, tmp_path):
        process = start(
            "slow", "run", "--device", "cuda", "--width", "4", "--depth", "99", "--chains", "2", cwd=tmp_path
        )
        # Past the one small chain that has the kernels ready.
        while process.stdout.readline() != "launched 2\n":
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=240)
        assert process.returncode == 143
        assert err.splitlines()[-1] == "gradsim: interrupted by SIGTERM: the run is dropped and run.h5 not written"
        assert os.listdir(tmp_path) == []


class TestPlan:
    def planned(self, chains=10**6, **fields):
        return plan(gradsim.Experiment(fields, chains=chains, device="cuda"), 7, available=2**50)

    def test_blocks_keep_a_gpu_busy(self):
        """A thousand chains at the least, and more where they are small."""
        slow, usual = self.planned(width=4096, depth=1000), self.planned(width=64, depth=50)
        assert slow.cells[0].block == 1024
        assert 10_000 < usual.cells[0].block < 500_000
        assert plan(gradsim.Experiment({"width": 4096, "depth": 1000}, chains=2000), 7, 2**50).cells[0].block == 64

    def test_what_blocks_record_stays_small(self):
        made = self.planned(chains=10_000, width=2, depth=200_000)
        assert made.cells[0].block * made.cells[0].bytes_result < 2**28

    def test_threads_of_the_processor_do_not_count(self):
        made = self.planned(width=64)
        assert made.threads == 1
        assert made.blocks == plan(made.experiment, 1, available=2**50).blocks

    @pytest.mark.parametrize(
        "fields",
        [
            {"width": 70, "depth": 20},
            {"width": 33, "depth": 9, "kind": "lstm", "gain": 1.0},
            {"width": 33, "depth": 9, "activation": "tanh", "batch": 5},
        ],
    )
    def test_the_gpus_memory_is_what_the_engine_takes(self, fields):
        from gradsim.kernels import cpu

        made = self.planned(chains=128, **fields)
        chain, quantities = made.cells[0].chain, made.experiment.quantities
        _, make, rows = cpu.kernel_of(chain, "dense")
        parts = make(chain, quantities, "float32", "dense")._asdict()
        shared = {"spec", "progress", "key", "links"}
        taken = sum(part.nbytes for name, part in parts.items() if name not in shared)
        taken += 4 * len(rows) * (chain.depth + 1)
        assert taken <= made.gpu_bytes(1) < 1.1 * taken + 2000
        assert made.gpu_bytes(64) == 64 * made.gpu_bytes(1)
        assert made.gpu_bytes(10**9) == 128 * made.gpu_bytes(1), "no more than a block"


class TestProgress:
    def test_nothing_is_foretold_before_a_block_is_done(self):
        clock = Clock()
        meter = Meter(1000, 10.0, clock, foretold=False)
        assert meter.seconds_left is None and meter.block_seconds_left(5.0) is None
        assert str(meter) == "0 of 1,000 chains (0 %)"
        clock.now += 2.0
        meter.advance(500, 5.0)
        assert meter.seconds_left == meter.block_seconds_left(5.0) == 2.0

    def test_notices_alone(self, capsys):
        progress = Notices(sys.stderr)
        progress.begin(10, 1.0)
        progress.compiling()
        progress.say("this")
        progress.advance(10, 1.0)
        assert capsys.readouterr().err == "this\n"

    @pytest.mark.parametrize("kind", ["bar", "lines", "nothing"])
    def test_notices_beside_progress(self, capsys, kind):
        progress = {"bar": BarProgress, "lines": lambda: LineProgress(sys.stderr), "nothing": Progress}[kind]()
        with progress:
            progress.begin(10, 1.0)
            progress.say("the GPU's memory [holds] few")
        assert ("the GPU's memory [holds] few\n" in capsys.readouterr().err) == (kind != "nothing")


SIMULATES = "gradsim.simulate(gradsim.Chain(width=4, depth=2), chains=4)"
RUNS = "assert status_of(['run', '--width', '4', '--depth', '2', '--chains', '4', '--quiet']) == 0"


@pytest.mark.parametrize(("statement", "loads"), [(SIMULATES, False), (RUNS, False), ("from numba import cuda", True)])
def test_a_run_on_the_processor_imports_nothing_of_cuda(tmp_path, statement, loads):
    """And a control, which does."""
    names = ("numba.cuda", "numba_cuda", "cuda.bindings", "cuda.core", "gradsim.kernels.cuda", "gradsim.backends.cuda")
    code = (
        f"import sys, gradsim; from gradsim.cli import status_of\n{statement}\n"
        f"sys.exit(any(name.startswith({names!r}) for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (int(loads), "")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (device.OutOfMemory(), device.OutOfMemory),
        (MemoryError(), MemoryError),
        (DeviceError("one chain"), DeviceError),
        (ValueError("odd"), DeviceError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_what_a_fault_of_the_device_is(error, expected):
    with pytest.raises(expected) as caught, device.reported():
        raise error
    assert (caught.value is error) == (not isinstance(error, ValueError))
