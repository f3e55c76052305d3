"""The benchmarks beside the package: cases, law checks, verdicts, and that README quotes what was measured."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from gradsim.chain import Chain
from gradsim.theory.registry import find
from gradsim.timing import Timing, Work

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "bench").exists():
    pytest.skip("needs the source tree", allow_module_level=True)

from bench import evidence, law_check, one_thread, peer_lstm, peer_numpy, peers, system  # noqa: E402
from bench.cases import BATCHED, CASES, LINEAR, LSTM, NORMED, RECURRENT, RELU, Case, Target  # noqa: E402

LAW_CHAIN = Chain(activation="linear", width=64, depth=20, gain=1.0)


def log_norms(n=4096, gain=1.0, width=64, spread=1.0):
    """ln||g_0|| of linear chains of 20 layers, `spread` times too far from the mean."""
    chi2 = np.random.default_rng(11).chisquare(width, size=(n, 20))
    logs = 0.5 * np.log(gain**2 * chi2 / width).sum(axis=1)
    return logs.mean() + spread * (logs - logs.mean())


def test_right_law_passes():
    tests = law_check.against_law("us", log_norms(), find(LAW_CHAIN))
    assert [test.what for test in tests] == ["mean", "variance"]
    assert not law_check.failures(tests)
    assert all(test.p > 0.01 for test in tests)


@pytest.mark.parametrize(
    "wrong, caught",
    [({"gain": 1.01}, "mean"), ({"width": 56}, "variance"), ({"spread": 1.1}, "variance")],
)
def test_wrong_law_fails(wrong, caught):
    tests = law_check.against_law("us", log_norms(**wrong), find(LAW_CHAIN))
    assert caught in [test.what for test in law_check.failures(tests)]


def test_dead_or_overflowed_chain_fails():
    sample = log_norms(100)
    sample[3] = -np.inf
    assert law_check.failures(law_check.against_law("us", sample, find(LAW_CHAIN)))
    assert law_check.failures(law_check.against_each_other("peer", sample, log_norms(100)))


def test_samples_against_each_other():
    ours = log_norms(4096)
    peer = np.random.default_rng(4).permutation(ours)[:2000]
    assert not law_check.failures(law_check.against_each_other("peer", peer, ours))
    assert law_check.failures(law_check.against_each_other("peer", peer + 0.1, ours))
    far = 1.25 * (peer - peer.mean()) + peer.mean()
    (failed,) = law_check.failures(law_check.against_each_other("peer", far, ours))
    assert failed.what == "variance"


def test_level_is_shared_out():
    tests = [law_check.LawTest("us", "mean", 10, 5e-4), *[law_check.LawTest("us", "mean", 10, 0.5)] * 9]
    assert law_check.failures(tests[:1]) == tests[:1]
    assert law_check.failures(tests) == []
    assert law_check.failures([law_check.LawTest("us", "mean", 10, float("nan"))])


def test_cases_are_those_promised():
    shapes = {(case.kind, case.width) for case in CASES}
    assert shapes == {(kind, n) for kind in (LINEAR, RELU) for n in (64, 256, 1024)} | {
        (RECURRENT, 256),
        (LSTM, 256),
        (NORMED, 400),
    }
    wanted = {(case.key, target.against): target.times for case in CASES for target in case.targets}
    assert wanted[("linear_256", "torch|jax")] == 7 and wanted[("linear_256", "numpy")] == 11
    assert wanted[("linear_64", "torch|jax")] == wanted[("linear_1024", "torch|jax")] == 6
    assert {wanted[(f"relu_{n}", "")] for n in (64, 256, 1024)} == {4.5}
    assert wanted[("recurrent_256", BATCHED)] == 10 and wanted[("recurrent_256", "numpy loop")] == 1.2
    assert wanted[("lstm_256", "torch")] == 3 and wanted[("batch_400", "torch autograd")] == 2
    assert {case.key: case.floor for case in CASES if case.floor} == {"linear_256": 3, "batch_400": 1.5}
    for case in CASES:
        law = find(case.chain)
        exact = law is not None and law.validity == "exact"
        assert exact == (case.kind not in (RECURRENT, LSTM, NORMED))
        assert case.scale == pytest.approx(case.chain.gains[0] / case.width**0.5)


@pytest.mark.parametrize("kind", [LINEAR, RELU, RECURRENT])
def test_numpy_variants_draw_the_same_law(kind):
    case = Case(kind, 16, 4, (8,), (), {})
    reference = at_input(peers.ours_on(case, 2000))
    for name, make in peer_numpy.variants(case).items():
        units = 1000 // 8 if "batch" in name else 1000
        work = make(units)
        assert work.weights == (1000 if "batch" not in name else units * 8) * case.weights
        sample = at_input(work)
        alive, ours = sample[np.isfinite(sample)], reference[np.isfinite(reference)]
        assert not law_check.failures(law_check.against_each_other(name, alive, ours)), name


def test_lstm_of_numpy_draws_the_same_law():
    case = Case(LSTM, 16, 4, (2,), (), {})
    work = peers.ours_on(case, 1000)
    assert work.weights == 1000 * case.weights == 1000 * 2 * 4 * 4 * 16**2
    for name, make in peer_lstm.numpy_variants(case).items():
        assert make(1000).weights == work.weights
        assert not law_check.failures(law_check.against_each_other(name, at_input(make(1000)), at_input(work))), name


def at_input(work: Work):
    return peers.at_input([work.run()])


def test_reused_buffers_hold_a_whole_chain():
    draw = peer_numpy.reusing(np.random.default_rng(0), 3)
    kept = [draw((2, 2)) for _ in range(4)]
    assert kept[0] is kept[3]
    assert len({id(w) for w in kept}) == 3


def measured_256():
    """A measurement of the linear case at n = 256 that meets everything."""
    case = next(case for case in CASES if case.key == "linear_256")
    ratios = {
        "numpy loop PCG64": 13.0,
        "numpy loop SFC64 out=": 12.0,
        "torch bmm 2 randn": 7.5,
        "torch loop randn": 8.0,
        "jax map 32 scan": 13.0,
        "floor": 0.4,
    }
    return {
        "case": case.name,
        "key": case.key,
        "weights_per_chain": case.weights,
        "gradsim_ns": 0.7,
        "gradsim_ns_min": 0.6,
        "variants": {
            name: {"ns": 0.7 * ratio, "ns_min": 0.6 * ratio, "ratio": ratio} for name, ratio in ratios.items()
        },
        "law": [{"who": "gradsim", "what": "mean", "n": 100, "p": 0.4}],
    }


@pytest.fixture
def versions(monkeypatch):
    monkeypatch.setattr(peers, "version", lambda name: "1.2.3")


def test_targets_take_the_fastest_of_those_meant(versions):
    document = peers.summarise([measured_256()], 0.99, quick=True)
    assert document["problems"] == []
    rows = {row["against"]: (row["ratio"], row["met"]) for row in document["targets"]}
    assert rows == {
        "torch bmm 2 randn": (7.5, True),
        "numpy loop SFC64 out=": (12.0, True),
        "floor": (2.5, True),
    }
    assert "met" in peers.targets_table(document)


def test_missed_targets_are_said(versions):
    measured = measured_256()
    measured["variants"]["jax map 32 scan"]["ratio"] = 6.9
    measured["variants"]["floor"]["ratio"] = 0.3
    document = peers.summarise([measured], 0.99, quick=True)
    missed = [row["against"] for row in document["targets"] if not row["met"]]
    assert missed == ["jax map 32 scan", "floor"]
    assert peers.targets_table(document).count("MISSED") == 2


def test_handicapped_peer_fails_the_benchmark(versions):
    measured = measured_256()
    # Known to take 5.5 / 9 of NumPy's time.
    for name in ("torch bmm 2 randn", "torch loop randn"):
        measured["variants"][name]["ratio"] = 13.0 * 5.5 / 9 * 1.31
    (problem,) = peers.summarise([measured], 0.99, quick=True)["problems"]
    assert "torch takes" in problem and "not given its chance" in problem


def test_wrong_law_and_second_thread_fail_the_benchmark(versions):
    measured = copy.deepcopy(measured_256())
    measured["law"].append({"who": "torch bmm 2 randn", "what": "variance", "n": 100, "p": 1e-9})
    wrong, threads = peers.summarise([measured], 1.9, quick=True)["problems"]
    assert "torch bmm 2 randn draws another law" in wrong
    assert "1.90 processors" in threads


def test_screening_keeps_the_fastest_of_every_family():
    def timing(ratio):
        return Timing([ratio], [1.0], [0])

    timings = {
        "floor": timing(0.3),
        peer_numpy.PLAIN: timing(99.0),
        "numpy batch 2": timing(10.0),
        "numpy loop SFC64 out=": timing(40.0),
        "torch loop randn": timing(4.0),
        "torch bmm 4 randn": timing(9.0),
        "torch bmm 64 randn": timing(20.0),
        "torch compile 4": timing(90.0),
        "jax loop scan": timing(30.0),
    }
    kept = set(peers.worth_repeating(timings))
    assert kept == set(timings) - {"torch bmm 64 randn", "torch compile 4"}


def test_target_families():
    assert Target("torch|jax", 1).covers("jax map") and not Target("torch|jax", 1).covers("numpy loop")
    assert Target("", 1).covers("anything")


def test_processors_are_counted():
    used = one_thread.Processors()
    sum(range(200_000))
    assert 0.0 <= used.used() <= 1.5


def test_collected_tests_are_counted():
    assert evidence.collected("a::b\n\n12 tests collected in 0.1s\n") == 12
    assert evidence.collected("7/9 tests collected (2 deselected) in 0.1s\n") == 7
    with pytest.raises(ValueError, match="did not say"):
        evidence.collected("no tests ran\n")


def made_up_evidence():
    kernel = {"kernel": "linear backward n=256", "ns_per_weight": 0.71, "numpy_ratio": 13.2, "floor_ratio": None}
    target = peers.targets_of(CASES[1], measured_256())
    machine = {"processor": "A processor"}
    libraries = {"torch": "2.0"}
    return {
        "peers": {
            "date": "2020-01-02",
            "machine": machine,
            "libraries": libraries,
            "law_tests": 99,
            "targets": target,
        },
        "kernels": {"kernels": [kernel]},
        "threads": {"ratio": 1.912},
        "memory": {"most_above_import_mb": 99.6, "above_import_mb": {"10": 99.6, "1000000": 98.0}},
        "startup": {"help_s": 0.151, "tiny_run_s": 1.234},
        "compile": {"compile_s": 33.3, "everything_s": 66.6, "quick_run_s": 44.4},
        "tests": {"default": 1234, "all": 1240},
        "quick": {"command": "gradsim run quick", "seconds": 9.6, "printed": "a table\n"},
        "scale": {"command": "gradsim run scale", "seconds": 99.5, "printed": "another\n"},
        "architectures": {"command": "gradsim run architectures", "seconds": 99.5, "printed": "a third\n"},
        "deferred": {
            "relu": [
                {"width": 256, "ns_per_unit": 2.44, "dense_ratio": 140.4},
                {"width": 65_536, "ns_per_unit": 2.61},
            ],
            "recurrent": {"dense_ratio": 26.6},
            "wide": {"seconds": 1.84, "peak_mb": 388.6},
            "many": {"seconds": 40.6, "peak_mb": 300.0},
        },
    }


def test_every_part_is_quoted():
    measured = made_up_evidence()
    assert set(measured) == set(evidence.PARTS)
    said = evidence.quotes(measured)
    assert said["linear_256_torch"] == "7.5"
    assert (said["deferred_256_ns"], said["deferred_256_ratio"]) == ("2.4", "140")
    assert said["deferred_65536_ns"] == "2.6" and "deferred_65536_ratio" not in said
    assert (said["deferred_recurrent_ratio"], said["deferred_wide_mb"], said["deferred_many_s"]) == ("27", "389", "41")
    assert said["linear_256_numpy"] == "12.0"
    assert said["linear_256_floor"] == "2.5"
    assert said["threads_ratio"] == "1.91"
    assert said["memory_chains"] == "1,000,000"
    assert said["tests"] == "1,234"
    assert said["quick_table"] == "\n```text\na table\n```\n"
    assert (said["scale_command"], said["quick_seconds"]) == ("gradsim run scale", "10")
    assert "| torch bmm 2 randn | 5.25 | 7.5 | ≥ 7 |" in said["peer_table"]
    assert "| linear backward n=256 | 0.71 | 13.2 |  |" in said["kernel_table"]
    assert evidence.quotes({}) == {}


def test_markers_are_filled():
    text = "of <!-- evidence:tests -->?<!-- /evidence --> and <!-- evidence:help_s --><!-- /evidence --> s"
    full = evidence.filled(text, {"tests": "12", "help_s": "0.15"})
    assert evidence.quoted(full) == [("tests", "12"), ("help_s", "0.15")]
    assert evidence.filled(full, {"tests": "13", "help_s": "0.15"}) == full.replace("12", "13")
    with pytest.raises(KeyError):
        evidence.filled(text, {"tests": "12"})


def test_parts_are_kept_where_others_are_measured_again(tmp_path, monkeypatch):
    output = tmp_path / "evidence.json"
    evidence.save(output, made_up_evidence())
    monkeypatch.setitem(evidence.PARTS, "threads", lambda quick: {"ratio": 1.5})
    assert evidence.main(["--only", "threads", "--quick", "--output", str(output)]) == 0
    document = json.loads(output.read_text(encoding="utf-8"))
    assert document["quotes"]["threads_ratio"] == "1.50"
    assert document["quotes"]["tests"] == "1,234"
    with pytest.raises(SystemExit):
        evidence.main(["--only", "nothing", "--output", str(output)])


def test_readme_quotes_the_evidence():
    quoted = evidence.quoted(evidence.README.read_text(encoding="utf-8"))
    said = evidence.load(evidence.EVIDENCE).get("quotes", {})
    assert quoted == [(name, said.get(name)) for name, _ in quoted]


def test_a_failing_process_is_an_error():
    with pytest.raises(RuntimeError, match="no such thing"):
        system.python("-c", "raise SystemExit('no such thing')")


def test_asv_configuration():
    configuration = json.loads((ROOT / "bench" / "asv.conf.json").read_text(encoding="utf-8"))
    assert (ROOT / "bench" / configuration["benchmark_dir"] / "kernels.py").exists()
