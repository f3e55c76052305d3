"""Writing, reading and summarising results; the memory of a run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gradsim.chain import Chain
from gradsim.experiment import Experiment
from gradsim.plan import plan

CHAIN = Chain(activation="relu", width=8, depth=50, gain="he")


class Store:
    """A result file of 16,384 chains of 50 layers."""

    params = ("trajectories", "summary")
    param_names = ("record",)

    def setup(self, record: str) -> None:
        """Made-up blocks, and a finished file to read."""
        generator = np.random.default_rng(0)
        self.folder = tempfile.TemporaryDirectory()
        self.experiment = Experiment(CHAIN, chains=16_384, record=record)
        self.blocks: list[tuple[Any, dict[str, Any]]] = []
        for block in plan(self.experiment).blocks:
            arrays = {
                name: generator.standard_normal(
                    (block.chains, 50 if name == "log_weight_grad_norm" else 51), dtype=np.float32
                )
                for name in self.experiment.quantities
            }
            self.blocks.append((block, arrays))
        self.path = Path(self.folder.name) / "read.h5"
        self._write(self.path)

    def teardown(self, record: str) -> None:
        """Remove the files."""
        self.folder.cleanup()

    def _write(self, path: Path) -> None:
        from gradsim.store import ResultWriter

        with ResultWriter(path, self.experiment, overwrite=True) as writer:
            for block, arrays in self.blocks:
                writer.write(block, arrays)
            writer.finish({})

    def time_write(self, record: str) -> None:
        """Every block and the finish, digests included."""
        self._write(Path(self.folder.name) / "written.h5")

    def time_verify(self, record: str) -> None:
        """Both digests."""
        from gradsim.store import verify_file

        verify_file(self.path)


class Memory:
    """Peak memory of a run in summary mode, imports included."""

    params = (1_024, 16_384)
    param_names = ("chains",)
    timeout = 300

    def peakmem_summary_run(self, chains: int) -> None:
        """ReLU chains, n = 8, L = 50."""
        from gradsim.runner import run

        with tempfile.TemporaryDirectory() as folder:
            experiment = Experiment(CHAIN, chains=chains, record="summary")
            run(experiment, Path(folder) / "out.h5").close()
