"""Running: blocks to a file or to memory, progress, signals. A fake backend stands in for the kernels."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

import gradsim
from gradsim.interruption import RunInterrupted, Signals
from gradsim.plan import Block, plan
from gradsim.progress import BarProgress, LineProgress, Meter, Progress, duration
from gradsim.provenance import available_threads, describe, git_revision, processor_name
from gradsim.runner import check_threads, progress_on
from tests import fake_backend

LINEAR = gradsim.Chain(activation="linear", width=8, depth=5, gain=1.0)


@pytest.fixture
def backend(monkeypatch):
    """A fresh fake backend in the place of the real one."""
    backend = fake_backend.fresh()
    monkeypatch.setitem(sys.modules, "gradsim.backends", fake_backend.as_module(backend))
    return backend


def experiment(**settings):
    chain = {"activation": "linear", "width": [8, 16], "depth": 5, "gain": 1.0}
    return gradsim.Experiment(chain, **{"chains": 200, "block": 64, **settings})


def kill(signum):
    os.kill(os.getpid(), signum)


class TestSimulate:
    def test_gives_a_cell_in_memory(self, backend):
        cell = gradsim.simulate(LINEAR, chains=200, seed=3, threads=1)
        whole = fake_backend.arrays_of(gradsim.Experiment(LINEAR, chains=200, seed=3), Block(0, 0, 200))
        assert cell.chain == LINEAR
        assert cell.chains == cell.chains_done == 200
        np.testing.assert_array_equal(cell.log_grad_norm, whole["log_grad_norm"])
        assert cell.summary["log_grad_norm_count"][0] == 200

    def test_records_what_is_asked(self, backend):
        cell = gradsim.simulate(LINEAR, chains=64, quantities=["log_grad_norm"], dtype="float64")
        assert cell.quantities == ("log_grad_norm",)
        assert cell.dtype == "float64"

    @pytest.mark.parametrize(
        ("settings", "what"),
        [
            ({"chains": 0}, "chains = 0"),
            ({"chains": True}, "chains = true"),
            ({"seed": -1}, "seed = -1"),
            ({"seed": 2**64}, "seed"),
            ({"dtype": "float16"}, "dtype"),
            ({"threads": 0}, "threads = 0"),
            ({"threads": True}, "threads = True"),
            ({"threads": 1.5}, "threads = 1.5"),
        ],
    )
    def test_refuses_bad_settings(self, backend, settings, what):
        with pytest.raises(gradsim.ExperimentError, match=what):
            gradsim.simulate(LINEAR, **settings)


class TestRun:
    def test_writes_and_opens_a_file(self, backend, tmp_path):
        path = tmp_path / "out.h5"
        with gradsim.run(experiment(), path, threads=2) as results:
            assert len(results) == 2
            assert results.path == path
            for index, cell in enumerate(results):
                whole = fake_backend.arrays_of(experiment(), Block(index, 0, 200))
                np.testing.assert_array_equal(cell.log_grad_norm, whole["log_grad_norm"])
            assert results.provenance["threads"] == 2
            assert results.provenance["wall_seconds"] >= 0
            seconds = results.provenance["cell_seconds"]
            assert len(seconds) == 2
            assert 0 <= sum(seconds) <= results.provenance["wall_seconds"] + 0.01
        assert os.listdir(tmp_path) == ["out.h5"]
        assert backend.threads_seen == [2]

    def test_an_existing_file_is_left_alone(self, backend, tmp_path):
        path = tmp_path / "out.h5"
        path.write_text("mine")
        with pytest.raises(gradsim.OutputExistsError, match=r"resume=True.*overwrite=True"):
            gradsim.run(experiment(), path)
        assert path.read_text() == "mine"
        assert backend.threads_seen == [], "known before anything is simulated"

    def test_overwrite_replaces_only_at_completion(self, backend, tmp_path):
        path = tmp_path / "out.h5"
        path.write_text("mine")
        seen = []

        class Watching(Progress):
            def advance(self, chains, work):
                seen.append(path.read_text())

        gradsim.run(experiment(), path, overwrite=True, progress=Watching())
        assert seen == ["mine"] * 8
        assert len(gradsim.open(path)) == 2

    def test_resume_is_idempotent(self, backend, tmp_path):
        path = tmp_path / "out.h5"
        gradsim.run(experiment(), path, resume=True)
        before = path.read_bytes()
        assert len(gradsim.run(experiment(), path, resume=True)) == 2
        assert path.read_bytes() == before
        assert len(backend.threads_seen) == 1
        with pytest.raises(gradsim.OutputExistsError, match="seed"):
            gradsim.run(experiment(seed=1), path, resume=True)
        assert path.read_bytes() == before

    def test_resume_and_overwrite_exclude_each_other(self, backend, tmp_path):
        with pytest.raises(gradsim.ExperimentError, match="exclude"):
            gradsim.run(experiment(), tmp_path / "out.h5", resume=True, overwrite=True)

    def test_a_failing_backend_leaves_nothing(self, backend, monkeypatch, tmp_path):
        arrays_of = fake_backend.arrays_of

        def fail(experiment, block):
            if block.start > 0:
                raise MemoryError
            return arrays_of(experiment, block)

        monkeypatch.setattr(fake_backend, "arrays_of", fail)
        with pytest.raises(MemoryError):
            gradsim.run(experiment(), tmp_path / "out.h5")
        assert os.listdir(tmp_path) == []

    def test_the_count_of_blocks_does_not_show(self, backend, tmp_path):
        digests = set()
        for block in (64, 128, 4096):
            results = gradsim.run(experiment(block=block, record="summary", keep=70), tmp_path / f"{block}.h5")
            digests.add(results[1].summary["log_grad_norm_var"].tobytes())
        assert len(digests) == 1


class Interrupting(Progress):
    """Sends signals to this process after a number of blocks."""

    def __init__(self, after, *signums):
        super().__init__()
        self.after = after
        self.signums = signums

    def advance(self, chains, work):
        super().advance(chains, work)
        if self.meter.blocks == self.after:
            for signum in self.signums:
                kill(signum)


class TestSignals:
    @pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
    def test_a_run_ends_and_leaves_nothing(self, backend, tmp_path, name, status):
        before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        with pytest.raises(RunInterrupted) as caught:
            gradsim.run(experiment(), tmp_path / "out.h5", progress=Interrupting(3, getattr(signal, name)))
        assert caught.value.exit_code == status
        assert not caught.value.complete
        assert isinstance(caught.value, KeyboardInterrupt)
        assert os.listdir(tmp_path) == []
        after = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        assert before == after

    def test_a_second_one_is_heard_while_a_block_is_written(self, backend, monkeypatch, tmp_path):
        from gradsim.store.cells import CellWriter

        writing = CellWriter.add

        def disturbed(cell, *arguments):
            kill(signal.SIGINT)
            kill(signal.SIGINT)
            time.sleep(0.3)  # for the watcher
            writing(cell, *arguments)

        monkeypatch.setattr(CellWriter, "add", disturbed)
        with pytest.raises(RunInterrupted) as caught:
            gradsim.run(gradsim.Experiment(chain=LINEAR, chains=64), tmp_path / "out.h5")
        assert not caught.value.complete
        assert os.listdir(tmp_path) == []

    def test_simulate_is_interrupted_too(self, backend):
        with pytest.raises(RunInterrupted):
            gradsim.simulate(LINEAR, chains=640, progress=Interrupting(1, signal.SIGINT))

    def test_while_the_file_is_completed_the_first_is_only_noted(self, backend, monkeypatch, tmp_path):
        import gradsim.runner as runner

        monkeypatch.setattr(runner, "describe", lambda *_: kill(signal.SIGTERM) or {})
        with pytest.raises(RunInterrupted) as caught:
            gradsim.run(experiment(), tmp_path / "out.h5")
        assert caught.value.complete
        assert len(gradsim.open(tmp_path / "out.h5")) == 2

    def test_while_the_file_is_completed_the_second_drops_it(self, backend, monkeypatch, tmp_path):
        import gradsim.runner as runner

        monkeypatch.setattr(runner, "describe", lambda *_: [kill(signal.SIGTERM), kill(signal.SIGINT)])
        with pytest.raises(RunInterrupted) as caught:
            gradsim.run(experiment(), tmp_path / "out.h5")
        assert caught.value.exit_code == 143, "the first signal gives the status"
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize(("left", "dropped"), [(4.9, False), (5.1, True), (None, True)])
    def test_a_block_is_finished_where_little_of_it_remains(self, left, dropped):
        with Signals(lambda: left) as signals:
            signals.patiently()
            signals.check()
            kill(signal.SIGINT)
            assert signals.stop.wait(10.0 if dropped else 0.2) == dropped
            kill(signal.SIGINT)
            assert signals.stop.wait(2.0), "a second signal drops it at once"
            with pytest.raises(RunInterrupted):
                signals.check()

    def test_a_block_that_takes_longer_than_foretold_is_dropped(self, monkeypatch):
        monkeypatch.setattr("gradsim.interruption.PATIENCE_S", 0.05)
        with Signals(lambda: 0.0) as signals:
            signals.patiently()
            kill(signal.SIGINT)
            assert signals.stop.wait(10.0)

    def test_before_any_block_it_raises_at_once_and_only_once(self):
        with Signals(lambda: None) as signals:
            with pytest.raises(RunInterrupted):
                kill(signal.SIGHUP)
            kill(signal.SIGHUP)
            assert signals.stop.wait(10.0)

    def test_a_signal_may_come_while_the_main_thread_holds_the_event(self):
        for _ in range(200):
            with Signals(lambda: None) as signals:
                signals.patiently()
                with signals.stop._cond:
                    kill(signal.SIGTERM)
                assert signals.stop.wait(10.0)

    def test_ignored_and_handled_signals_are_left_alone(self):
        heard = []
        before = (
            signal.signal(signal.SIGHUP, signal.SIG_IGN),
            signal.signal(signal.SIGTERM, lambda *_: heard.append(1)),
        )
        try:
            with Signals(lambda: None) as signals:
                kill(signal.SIGHUP)
                kill(signal.SIGTERM)
                signals.check()
            assert heard == [1]
        finally:
            signal.signal(signal.SIGHUP, before[0])
            signal.signal(signal.SIGTERM, before[1])

    def test_other_threads_hear_none(self, backend, tmp_path):
        done = []
        thread = threading.Thread(target=lambda: done.append(gradsim.run(experiment(), tmp_path / "out.h5")))
        thread.start()
        thread.join(30)
        assert len(done) == 1


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class TestProgress:
    def test_meter_keeps_compilation_out_of_the_rate(self):
        clock = Clock()
        meter = Meter(1000, 10.0, clock)
        assert meter.rate is None
        assert meter.seconds_left == 10.0, "as the plan expects, until a block is done"
        meter.pause()
        clock.now += 40.0
        assert meter.block_seconds_left(1.0) is None
        assert meter.resume() == 40.0
        clock.now += 2.0
        meter.advance(100, 1.0)
        assert meter.rate == 50.0
        assert meter.seconds_left == 18.0
        clock.now += 0.5
        assert meter.block_seconds_left(1.0) == 1.5
        assert str(meter) == "100 of 1,000 chains (10 %), 40 chains/s, 18 s left"

    def test_lines_come_every_interval(self):
        clock, stream = Clock(), io.StringIO()
        progress = LineProgress(stream, interval=30.0, clock=clock)
        progress.begin(640, 10.0)
        for _ in range(10):
            clock.now += 10.0
            progress.advance(64, 1.0)
        lines = stream.getvalue().splitlines()
        assert len(lines) == 3
        stamp, text = lines[0].split("  ", 1)
        assert len(stamp) == len("2026-01-01 12:00:00")
        assert text == "192 of 640 chains (30 %), 6.4 chains/s, 1 min 10 s left"

    def test_compilation_is_announced(self):
        clock, stream = Clock(), io.StringIO()
        progress = LineProgress(stream, clock=clock)
        progress.begin(640, 10.0)
        progress.preparing()
        clock.now += 2.0
        progress.compiling()
        clock.now += 19.0
        progress.prepared()
        first, last = stream.getvalue().splitlines()
        assert "compiling kernels" in first
        assert last.endswith("compiled in 21 s")

    def test_loading_is_not_announced(self):
        stream = io.StringIO()
        progress = LineProgress(stream, clock=Clock())
        progress.begin(640, 10.0)
        progress.preparing()
        progress.prepared()
        assert stream.getvalue() == ""

    @pytest.mark.parametrize("compiles", [True, False])
    def test_what_is_compiled_is_announced_and_what_only_takes_long_is_not(self, backend, monkeypatch, compiles):
        clock, stream = Clock(), io.StringIO()

        def prepare(self, made, compiling):
            if compiles:
                compiling()
            clock.now += 19.0

        monkeypatch.setattr(backend, "prepare", prepare)
        gradsim.simulate(LINEAR, chains=64, progress=LineProgress(stream, clock=clock))
        said = stream.getvalue()
        assert ("compiling kernels" in said, "compiled in 19 s" in said) == (compiles, compiles)

    def test_a_closed_stream_ends_the_lines_only(self):
        stream = io.StringIO()
        progress = LineProgress(stream, interval=0.0)
        progress.begin(640, 10.0)
        stream.close()
        progress.advance(64, 1.0)
        progress.advance(64, 1.0)
        assert progress.meter.chains == 128

    def test_a_full_disk_ends_the_lines_only(self):
        with open("/dev/full", "w") as stream:
            progress = LineProgress(stream, interval=0.0)
            progress.begin(640, 10.0)
            progress.advance(64, 1.0)
            progress.advance(64, 1.0)
            assert progress.meter.chains == 128
            with pytest.raises(OSError, match="No space"):
                stream.close()

    def test_bar(self, capsys):
        with BarProgress() as bar:
            bar.begin(640, 10.0)
            bar.preparing()
            bar.compiling()
            bar.prepared()
            bar.advance(640, 10.0)
        assert bar.meter.chains == 640
        assert capsys.readouterr().out == "", "progress goes to standard error"

    def test_the_stream_decides(self):
        class Terminal(io.StringIO):
            def isatty(self):
                return True

        assert isinstance(progress_on(io.StringIO()), LineProgress)
        assert isinstance(progress_on(Terminal()), BarProgress)

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (0.04, "0.0 s"),
            (9.94, "9.9 s"),
            (9.96, "10 s"),
            (59.4, "59 s"),
            (59.6, "1 min 0 s"),
            (3599.0, "59 min 59 s"),
            (7500.0, "2 h 5 min"),
        ],
    )
    def test_duration(self, seconds, text):
        assert duration(seconds) == text


class TestProvenance:
    def test_says_where_a_result_comes_from(self):
        found = describe(threads=3, wall_seconds=1.23456)
        assert found["threads"] == 3
        assert found["wall_seconds"] == 1.235
        assert found["numpy"] == np.__version__
        assert found["processor"]
        assert found["gradsim"] == gradsim.__version__

    def test_revision_only_in_a_checkout(self, tmp_path):
        assert git_revision(tmp_path) is None
        (tmp_path / ".git").mkdir()
        assert git_revision(tmp_path) is None, "a broken checkout is none"

    def test_threads(self):
        assert check_threads(None) == available_threads() >= 1
        assert processor_name()


def test_plan_seconds_add_up():
    made = plan(experiment(), threads=2)
    assert made.seconds == pytest.approx(sum(made.block_seconds(block) for block in made.blocks))
