"""From a chain to a cell with the real kernels, in memory and through a file."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ks_2samp

import gradsim
from gradsim import Chain, Experiment
from gradsim.kernels.reference import simulate_chain

RELU = Chain(width=2, depth=8)
TANH = Chain(kind="recurrent", activation="tanh", width=6, depth=5, gain=1.2, bias=0.1, input_noise=0.2)


def assert_same(one, other):
    np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


class TestSimulate:
    @pytest.mark.parametrize("streams", ["independent", "common"])
    @pytest.mark.parametrize("chain", [RELU, TANH], ids=repr)
    def test_each_chain_is_that_of_the_reference(self, chain, streams):
        cell = gradsim.simulate(chain, chains=70, seed=12, dtype="float64", streams=streams, threads=2)
        for index in (0, 1, 63, 64, 69):
            exact = simulate_chain(chain, 12, index, streams=streams)
            for name in cell.quantities:
                np.testing.assert_allclose(cell[name][index], exact[name], rtol=1e-6, atol=1e-6)

    def test_threads_change_no_bit(self):
        one, three = (gradsim.simulate(TANH, chains=300, threads=threads) for threads in (1, 3))
        for name in TANH.quantities:
            assert_same(one[name], three[name])
            assert_same(one.summary[f"{name}_var"], three.summary[f"{name}_var"])

    @pytest.mark.parametrize("chain", [RELU, TANH], ids=repr)
    def test_deferred_chains_are_others_of_the_same_law(self, chain):
        one, three = (gradsim.simulate(chain, chains=4000, method="deferred", threads=threads) for threads in (1, 3))
        dense = gradsim.simulate(chain, chains=4000, seed=1)
        wrong = gradsim.simulate(chain.replace(gain=2.0 * chain.gains[0]), chains=4000, seed=1)
        assert ks_2samp(np.asarray(one.log_grad_norm)[:, 0], np.asarray(wrong.log_grad_norm)[:, 0]).pvalue < 1e-4
        for name in chain.quantities:
            assert_same(one[name], three[name])
            # Kolmogorov and Smirnov's test of each layer: false alarms once in a thousand of these comparisons.
            # g_L has length 1 but for rounding.
            pairs = zip(*(np.round(np.asarray(cell[name]), 5).T for cell in (one, dense)), strict=True)
            values = [ks_2samp(a, b).pvalue for a, b in pairs]
            assert min(values) * len(values) > 1e-4

    def test_more_chains_begin_with_the_same(self):
        few, many = (gradsim.simulate(RELU, chains=chains, seed=1) for chains in (64, 200))
        assert_same(many.log_grad_norm[:64], few.log_grad_norm)

    def test_dead_chains_are_counted(self):
        cell = gradsim.simulate(RELU, chains=500, quantities=["log_grad_norm"])
        dead = np.isneginf(cell.log_grad_norm).sum(axis=0)
        assert dead[0] > 100
        assert dead[-1] == 0
        assert_same(cell.summary["dead"], dead)
        assert_same(cell.summary["nonfinite"], np.zeros(9))
        assert_same(cell.summary["log_grad_norm_count"], 500 - dead)

    def test_chains_that_leave_the_dtype_are_counted(self):
        saturated = Chain(activation="tanh", width=3, depth=4, gain=100.0)
        single, double = (gradsim.simulate(saturated, chains=300, dtype=dtype) for dtype in ("float32", "float64"))
        lost = np.isnan(single.log_grad_norm).sum(axis=0)
        assert lost[0] > 50
        assert (np.diff(lost) <= 0).all()
        assert lost[-1] == 0
        assert_same(single.summary["nonfinite"], lost)
        assert_same(single.summary["dead"], np.zeros(5))
        assert np.isnan(double.log_grad_norm).sum() < np.isnan(single.log_grad_norm).sum()

    def test_the_law_is_met_and_another_is_not(self):
        linear = Chain(activation="linear", width=24, depth=10, gain=1.0)
        cell = gradsim.simulate(linear, chains=3000, quantities=["log_grad_norm"])
        norms, law = cell.log_grad_norm[:, 0].astype(float), gradsim.predict(linear)
        error = np.sqrt(law.var[0] / 3000)
        assert abs(norms.mean() - law.mean[0]) < 4.5 * error
        off = gradsim.predict(linear.replace(gain=1.01))
        assert abs(norms.mean() - off.mean[0]) > 6 * error


class TestFiles:
    GRID = ({"activation": "relu", "width": [3, 66], "depth": 4}, {"kind": "recurrent", "width": 5, "depth": 6})

    def run(self, path, **settings):
        threads = settings.pop("threads", 2)
        e = Experiment(list(self.GRID), **{"chains": 300, "seed": 5, **settings})
        return gradsim.run(e, path, threads=threads)

    def test_a_file_holds_what_simulate_gives(self, tmp_path):
        with self.run(tmp_path / "a.h5") as results:
            for cell in results:
                alone = gradsim.simulate(cell.chain, chains=300, seed=5)
                for name in cell.quantities:
                    assert_same(cell[name], alone[name])
                    assert_same(cell.summary[f"{name}_mean"], alone.summary[f"{name}_mean"])

    def test_block_and_threads_change_no_content(self, tmp_path):
        ways = [{"block": 64, "threads": 1}, {"block": 192, "threads": 3}, {"block": "auto"}]
        for record in ("trajectories", "summary"):
            cells = []
            for number, way in enumerate(ways):
                path = tmp_path / f"{record}-{number}.h5"
                with self.run(path, record=record, keep=100, **way) as results:
                    cells.append([{**cell.summary, "kept": cell.log_grad_norm[:]} for cell in results])
            for other in cells[1:]:
                for one, two in zip(cells[0], other, strict=True):
                    assert one.keys() == two.keys()
                    for name in one:
                        assert_same(one[name], two[name])
