"""The command line. A fake backend stands in for the kernels; `test_the_main_job` uses the real ones."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

import gradsim
from gradsim.cli import cli, status_of
from gradsim.commands.flags import take_overrides
from gradsim.commands.output import table_width
from gradsim.presets import list_presets
from gradsim.vocabulary import CHAIN_FIELDS, HEAD_FIELDS, RUN_FIELDS
from tests import fake_backend

LINEAR = ("--activation", "linear", "--width", "8", "--depth", "5", "--gain", "1", "--chains", "128")


@pytest.fixture
def result(call, tmp_path):
    """A result file of linear chains that agree with theory."""
    assert call("run", *LINEAR, "-o", "out.h5", "--quiet").status == 0
    return tmp_path / "out.h5"


def strict_json(text: str):
    """One JSON document and nothing else, without NaN or Infinity."""

    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


class TestHelp:
    def test_every_command_has_help(self):
        names = ["run", "info", "verify", "compare", "theory", "presets", "bench"]
        assert list(cli.commands) == names
        for arguments in ([], *[[name] for name in names]):
            for flag in ("--help", "-h"):
                done = CliRunner().invoke(cli, [*arguments, flag])
                assert done.exit_code == 0
                assert done.output.startswith("Usage: ")

    def test_commands_are_listed_whole(self):
        done = CliRunner().invoke(cli, ["--help"])
        assert "..." not in done.output.partition("Commands:")[2]

    def test_version(self, call):
        done = call("--version")
        assert (done.status, done.stdout) == (0, f"gradsim {gradsim.__version__}\n")

    def test_no_command_is_bad_usage_and_shows_the_help(self, call):
        done = call()
        assert done.status == 2
        assert done.stdout == ""
        assert "Commands:" in done.stderr

    @pytest.mark.parametrize("command", ["run", "theory"])
    def test_every_field_is_a_flag(self, command):
        flags = {flag for option in cli.commands[command].params for flag in option.opts}
        names = [*CHAIN_FIELDS, *HEAD_FIELDS, *RUN_FIELDS]
        assert {f"--{name.replace('_', '-')}" for name in names if name != "title"} <= flags

    @pytest.mark.parametrize("field", [*CHAIN_FIELDS.values(), *HEAD_FIELDS.values(), *RUN_FIELDS.values()])
    def test_the_help_says_what_a_field_is_and_its_default(self, field):
        assert field.meaning and not field.meaning.endswith(".")
        if field.name == "title":
            return
        said = " ".join(CliRunner().invoke(cli, ["run", "--help"]).output.split())
        assert f"{field.meaning}; {field.allowed}" in said
        flag = said[said.index(f" --{field.name.replace('_', '-')} ") :]
        assert ("[default: " in flag[: flag.index(field.allowed) + len(field.allowed) + 12]) == (
            field.name != "profile"
        )

    def test_defaults_are_shown_as_a_flag_takes_them(self):
        said = " ".join(CliRunner().invoke(cli, ["run", "--help"]).output.split())
        for text in ("Units in every layer; an integer from 1 to 2147483647 [default: 256]", "[default: all]"):
            assert text in said

    def test_help_fits_80_columns(self):
        for command in cli.commands:
            lines = CliRunner().invoke(cli, [command, "--help"], terminal_width=80).output.splitlines()
            assert max(map(len, lines)) <= 80

    def test_theory_shows_what_matters_to_it(self, call):
        text = CliRunner().invoke(cli, ["theory", "--help"]).output
        assert "--width" in text and "--gain" in text
        for name in (*HEAD_FIELDS, *RUN_FIELDS, "threads", "Run settings"):
            assert f"--{name}" not in text and f"\n{name}" not in text
        assert call("theory", "--seed", "1", "--dtype", "float64", "--width", "8").status == 0

    @pytest.mark.parametrize(
        ("arguments", "suggested"),
        [
            (("theory", "--dtyp", "x"), None),
            (("theory", "--chian", "3"), None),
            (("theory", "--forgetbias", "3"), "--forget-bias"),
            (("run", "--forgetbias", "3"), "--forget-bias"),
            (("run", "--dtyp", "x"), "--dtype"),
            (("theory", "--activatoin", "x"), "--activation"),
        ],
    )
    def test_only_what_is_shown_is_suggested(self, call, arguments, suggested):
        done = call(*arguments)
        assert done.status == 2
        for hidden in ("--dtype", "--chains", "--forget-bias", "--activation"):
            assert (f"'{hidden}'" in done.stderr) == (hidden == suggested)

    def test_fields_come_under_headings(self):
        text = CliRunner().invoke(cli, ["run", "--help"]).output
        options, chain, run = (text.index(heading) for heading in ("\nOptions:", "\nChain fields", "\nRun settings"))
        assert options < text.index("--dry-run") < chain < text.index("--width") < run < text.index("--dtype")


def test_the_main_job(monkeypatch, tmp_path, capsys):
    """Linear, ReLU and recurrent chains with the real kernels: run, compared, verified, read back."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(
        """
        chains = 512
        [[chain]]
        activation = ["linear", "relu"]
        width = 16
        depth = 8
        [[chain]]
        kind = "recurrent"
        activation = "linear"
        init = "orthogonal"
        width = 16
        depth = 8
        gain = 1
        """
    )
    assert status_of(["run", "small.toml", "--threads", "2"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1].startswith("agree: 13 tests of exact laws, none rejected")
    assert "small.h5: 3 cells of 512 chains" in printed.err
    assert status_of(["compare", "small.h5"]) == 0
    assert status_of(["verify", "small.h5"]) == 0
    chain = gradsim.Chain(activation="relu", width=16, depth=8)
    cell = gradsim.simulate(chain, chains=512, threads=1)
    with gradsim.open("small.h5") as results:
        assert results[1].chain == chain
        for name in cell.quantities:
            assert (results[1][name] == cell[name]).all(), "the same numbers, whatever the threads"


class TestRun:
    def test_ends_with_the_table(self, call, tmp_path):
        done = call("run", *LINEAR)
        assert done.status == 0
        assert "linear n=8 L=5 gain=1" in done.stdout
        assert done.stdout.splitlines()[-1].startswith("agree: 5 tests of exact laws, none rejected")
        assert done.stderr.startswith("run.h5: 1 cell of 128 chains, ")
        assert os.listdir(tmp_path) == ["run.h5"]

    def test_exits_0_whatever_theory_says(self, call):
        done = call("run", *LINEAR, "--activation", "relu")
        assert done.status == 0
        assert "disagree" in done.stdout

    def test_without_anything_runs_the_preset_quick(self, call):
        assert call("run", "--dry-run").stdout.splitlines()[0].split() == ["output", "quick.h5"]

    @pytest.mark.parametrize(
        ("arguments", "output", "cells"),
        [
            (("--width", "64"), "run.h5", "1"),
            (("--chains", "64"), "run.h5", "1"),
            (("--seed", "1"), "run.h5", "1"),
            (("--width", "8,16", "--gain", "0.5:1.5:3"), "run.h5", "6"),
            (("--profile", "8,4,2", "--profile", "8,2"), "run.h5", "2"),
            (("leaky", "--width", "8"), "leaky.h5", None),
            (("quick", "--width", "8"), "quick.h5", None),
            (("./quick",), "quick.h5", "2"),
            (("folder/mine.toml",), "mine.h5", "2"),
            (("./mine.toml", "--depth", "2,3"), "mine.h5", "4"),
            (("mine.toml", "-o", "other.h5"), "other.h5", "2"),
        ],
    )
    def test_which_experiment_and_which_output(self, call, tmp_path, arguments, output, cells):
        (tmp_path / "folder").mkdir()
        for folder in (tmp_path, tmp_path / "folder"):
            for name in ("mine.toml", "quick"):
                (folder / name).write_text("chains = 64\n[chain]\nwidth = [4, 8]\n")
        before = sorted(tmp_path.rglob("*"))
        done = call("run", *arguments, "--dry-run")
        assert done.status == 0
        facts = dict(line.split(None, 1) for line in done.stdout.splitlines())
        assert facts["output"] == output
        assert cells is None or facts["cells"] == cells
        assert sorted(tmp_path.rglob("*")) == before, "nothing is written"

    def test_dry_run_says_what_the_run_takes(self, call):
        done = call("run", "--dry-run", "--width", "64", "--chains", "1000", "--threads", "3")
        facts = dict(line.split(None, 1) for line in done.stdout.splitlines())
        assert list(facts) == ["output", "cells", "chains", "method", "blocks", "memory", "file", "time"]
        assert facts["chains"] == "1,000 a cell, 1,000 in all"
        assert facts["method"].startswith("dense; deferred would take ")
        assert facts["time"].endswith("on 3 threads, compilation apart")

    def test_dry_run_says_what_the_other_method_takes(self, call):
        facts = {}
        for flags in (("--method", "deferred", "--width", "100000"), ("--init", "uniform")):
            said = call("run", "--dry-run", "--depth", "10", "--chains", "100", *flags).stdout
            facts[flags[0]] = dict(line.split(None, 1) for line in said.splitlines())["method"]
        assert facts["--method"].startswith("deferred; dense would take about 2 h ")
        assert facts["--init"] == "dense; deferred is for gaussian and orthogonal weights alone"

    def test_one_of_a_kind_is_singular(self, call):
        assert call("run", *LINEAR, "--chains", "1").stderr.startswith("run.h5: 1 cell of 1 chain, ")
        assert "on 1 thread, " in call("run", "--dry-run", "--width", "8", "--threads", "1").stdout

    def test_a_preset_taken_in_place_of_a_file_is_said(self, call, tmp_path):
        (tmp_path / "quick").write_text("seed = 1")
        line = "quick: the preset of that name is taken, not the file ./quick\n"
        assert call("run", "quick", "--dry-run").stderr == line
        assert call("run", "quick", "--dry-run", "--quiet").stderr == ""
        assert call("run", "./quick", "--dry-run").stderr == ""
        assert call("run", "--dry-run").stderr == ""
        assert call("theory", "quick").stderr == line

    @pytest.mark.parametrize("flags", [(), ("--resume",), ("--overwrite",)])
    @pytest.mark.parametrize(
        "there", ["nothing", "complete", "another", "no result", "folder", "no folder", "parts", "foreign", "pipe"]
    )
    def test_a_dry_run_refuses_what_the_run_refuses(self, call, tmp_path, there, flags):
        output = {"no folder": "none/out.h5"}.get(there, "out.h5")
        if there in ("complete", "another"):
            call("run", *LINEAR, "--seed", "9" if there == "another" else "0", "-o", "out.h5")
        elif there == "no result":
            (tmp_path / "out.h5").write_text("mine")
        elif there == "folder":
            (tmp_path / "out.h5").mkdir()
        elif there == "pipe":
            os.mkfifo(tmp_path / "out.h5")
        elif there in ("parts", "foreign"):
            (tmp_path / "out.h5.parts").mkdir()
            if there == "parts":
                another = gradsim.Experiment({"width": 3})
                (tmp_path / "out.h5.parts" / "experiment.json").write_text(another.to_json())
            else:
                (tmp_path / "out.h5.parts" / "mine").write_text("mine")
        before = {path: path.stat() for path in tmp_path.rglob("*")}
        dry = call("run", *LINEAR, "-o", output, *flags, "--dry-run")
        assert {path: path.stat() for path in tmp_path.rglob("*")} == before, "nothing is written"
        wet = call("run", *LINEAR, "-o", output, *flags)
        assert dry.status == wet.status
        if wet.status:
            assert dry.stderr == wet.stderr

    def test_a_dry_run_says_what_becomes_of_the_file(self, call, result):
        done = call("run", *LINEAR, "-o", "out.h5", "--resume", "--dry-run")
        assert done.stdout == "out.h5: complete already, nothing would be run\n"
        done = call("run", *LINEAR, "-o", "out.h5", "--overwrite", "--dry-run")
        assert done.stdout.splitlines()[0] == "output  out.h5, to be replaced at completion"

    def test_default_names_do_not_collide(self, call, tmp_path):
        for _ in range(2):
            assert call("run", *LINEAR, "--quiet").status == 0
        (tmp_path / "run-3.h5.parts").mkdir()
        assert call("run", *LINEAR, "--quiet").status == 0
        assert sorted(os.listdir(tmp_path)) == ["run-2.h5", "run-3.h5.parts", "run-4.h5", "run.h5"]

    def test_an_output_in_the_way_names_both_flags(self, call, result):
        before = result.read_bytes()
        done = call("run", *LINEAR, "-o", "out.h5")
        assert done.status == 2
        assert "--resume" in done.stderr and "--overwrite" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert result.read_bytes() == before

    def test_resume_and_overwrite(self, call, result):
        before = result.read_bytes()
        assert call("run", *LINEAR, "-o", "out.h5", "--resume").status == 0
        assert result.read_bytes() == before
        assert call("run", *LINEAR, "-o", "out.h5", "--resume", "--seed", "5").status == 2
        assert call("run", *LINEAR, "-o", "out.h5", "--overwrite", "--seed", "5").status == 0
        assert gradsim.open(result).experiment.seed == 5
        assert call("run", *LINEAR, "--resume", "--overwrite").status == 2

    def test_resume_without_o_takes_the_plain_name(self, call, tmp_path):
        assert call("run", *LINEAR, "--resume").stderr.startswith("run.h5: 1 cell of 128 chains, ")
        assert call("run", *LINEAR, "--resume").stderr == "run.h5: complete already, nothing was run\n"
        assert os.listdir(tmp_path) == ["run.h5"]

    def test_quiet_says_nothing(self, call):
        done = call("run", *LINEAR, "--quiet")
        assert (done.stdout, done.stderr) == ("", "")

    def test_flags_reach_the_file(self, call):
        flags = ("--dtype", "float64", "--record", "summary", "--keep", "64", "--streams", "common")
        assert call("run", *LINEAR, "--quantities", "log_grad_norm", "--block", "64", *flags).status == 0
        experiment = gradsim.open("run.h5").experiment
        assert experiment.dtype == "float64"
        assert experiment.record == "summary"
        assert experiment.keep == 64
        assert experiment.streams == "common"
        assert experiment.quantities == ("log_grad_norm",)
        assert experiment.block == 64
        assert experiment.cells[0].width == 8

    def test_every_field_of_a_chain_is_reached_by_its_flag(self, call):
        flags = ("--skip", "rsqrt-depth,0.5", "--carry", "0.9", "--norm", "layer", "--norm-position", "pre,post")
        flags += ("--norm-eps", "1e-5", "--dropout", "0:0.5:3", "--batch", "4", "--clip", "2", "--activation", "gelu")
        assert call("run", *flags, "--width", "8", "--depth", "5", "--chains", "64", "--quiet").status == 0
        first, *_, last = gradsim.open("run.h5").experiment.cells
        shared = {"carry": 0.9, "norm": "layer", "norm_eps": 1e-5, "batch": 4, "clip": 2.0, "activation": "gelu"}
        for chain in (first, last):
            assert {name: getattr(chain, name) for name in shared} == shared
        assert (first.skip, first.norm_position, first.dropout) == ("rsqrt-depth", "pre", 0.0)
        assert (last.skip, last.norm_position, last.dropout) == (0.5, "post", 0.5)
        flags = ("--kind", "lstm", "--forget-bias=-1", "--probes", "3", "--width", "8", "--depth", "5")
        assert call("run", *flags, "--chains", "64", "-o", "lstm.h5", "--quiet").status == 0
        chain = gradsim.open("lstm.h5").experiment.cells[0]
        assert (chain.forget_bias, chain.probes) == (-1.0, 3)
        assert call("run", *flags, "--clip-value", "1", "--quiet").status == 2

    def test_the_last_of_a_repeated_flag_wins(self, call):
        assert call("run", *LINEAR, "--seed", "1", "--seed", "2", "--quiet").status == 0
        assert gradsim.open("run.h5").experiment.seed == 2


BAD_USAGE = {
    "unknown option": (("run", "--wdith", "8"), "--wdith"),
    "unknown command": (("walk",), "walk"),
    "unknown preset": (("run", "quik"), "did you mean quick"),
    "no such file": (("run", "none.toml"), "none.toml"),
    "negative width": (("run", "--width", "-3"), "width = -3"),
    "depth 0": (("run", "--depth", "0"), "depth = 0"),
    "text for a number": (("run", "--width", "wide"), 'width = "wide"'),
    "a number for a name": (("run", "--init", "1"), 'init = "1"'),
    "empty axis": (("run", "--width", ""), "width"),
    "infinite gain": (("run", "--gain", "inf"), "gain = inf"),
    "NaN gain": (("run", "--gain", "1,nan"), "gain = nan"),
    "seed beyond 64 bits": (("run", "--seed", str(2**64)), "seed"),
    "profile of a recurrent chain": (("run", "--profile", "4,4", "--kind", "recurrent"), "profile"),
    "fields that exclude each other": (("run", "--norm", "rms", "--norm-position", "pre"), "without skip"),
    "a skip by an unknown name": (("run", "--skip", "sqrt"), "rsqrt-depth, inv-depth"),
    "a quantity no cell has": (("run", "--quantities", "log_grad_norm,lyapunov"), "probes > 1"),
    "matrices that cannot be deferred": (
        ("run", "--method", "deferred", "--init", "uniform"),
        "only gaussian and orthogonal",
    ),
    "what brings a law that cannot be deferred": (("run", "--method", "deferred", "--kind", "lstm"), 'gain = "torch"'),
    "deferred, and too large": (("run", "--method", "deferred", "--width", "2000000000"), "of memory"),
    "an unknown device": (("run", "--device", "tpu"), "cpu, cuda"),
    "too large": (("run", "--width", "2000000", "--kind", "recurrent"), "of memory"),
    "a grid too large": (("run", "--width", "1:200:200", "--depth", "1:200:200"), "40000 cells"),
    "no threads": (("run", "--threads", "0"), "threads = 0"),
    "threads that are none": (("run", "--threads", "many"), "--threads"),
    "both formats": (("compare", "out.h5", "--json", "--csv"), "--json"),
    "alpha": (("compare", "out.h5", "--alpha", "1.5"), "alpha"),
    "alpha that is none": (("compare", "out.h5", "--alpha", "nan"), "alpha"),
    "a preset as JSON": (("presets", "quick", "--json"), "--json"),
    "an unknown preset to print": (("presets", "quik"), "did you mean quick"),
    "a missing file name": (("info",), "FILE"),
    "a field of the file": (("run", "bad.toml"), "bad.toml"),
    "a syntax error": (("run", "broken.toml"), "line 2"),
}


@pytest.mark.parametrize(("arguments", "words"), BAD_USAGE.values(), ids=BAD_USAGE)
def test_bad_usage_is_one_line_and_exit_2(call, tmp_path, arguments, words):
    (tmp_path / "bad.toml").write_text("[chain]\nwidht = 8\n")
    (tmp_path / "broken.toml").write_text("seed = 1\n[chain\n")
    done = call(*arguments)
    assert done.status == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("gradsim: ")
    assert words in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["bad.toml", "broken.toml"]


BAD_FILES = {
    "missing": None,
    "text": b"not a result\n",
    "empty": b"",
    "HDF5 in name only": b"\x89HDF\r\n\x1a\n" + bytes(512),
}


@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES)
@pytest.mark.parametrize("command", ["info", "verify", "compare"])
def test_bad_files_are_one_line_and_exit_1(call, tmp_path, command, content):
    if content is not None:
        (tmp_path / "bad.h5").write_bytes(content)
    done = call(command, "bad.h5")
    assert done.status == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "bad.h5" in done.stderr


class TestOutputs:
    def test_a_missing_folder(self, call):
        done = call("run", *LINEAR, "-o", "nowhere/out.h5")
        assert done.status == 1
        assert "nowhere" in done.stderr and len(done.stderr.splitlines()) == 1

    def test_a_folder_in_the_place_of_the_file(self, call, tmp_path):
        (tmp_path / "out.h5").mkdir()
        done = call("run", *LINEAR, "-o", "out.h5")
        assert done.status in (1, 2)
        assert len(done.stderr.splitlines()) == 1

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_read_only_folder(self, call, tmp_path):
        (tmp_path / "locked").mkdir(mode=0o500)
        assert call("run", *LINEAR, "-o", "locked/out.h5").status == 1


class TestFailures:
    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (MemoryError(), "out of memory"),
            (OSError(errno.ENOSPC, "No space left on device"), "No space left"),
            (PermissionError(errno.EACCES, "Permission denied", "a.h5"), "a.h5: Permission denied"),
            (
                ZeroDivisionError("of 1\nby 0"),
                "internal error: ZeroDivisionError: of 1 by 0; GRADSIM_DEBUG=1",
            ),
        ],
    )
    def test_are_one_line_and_exit_1(self, call, monkeypatch, tmp_path, error, words):
        def fail(experiment, block):
            raise error

        monkeypatch.setattr(fake_backend, "arrays_of", fail)
        done = call("run", *LINEAR)
        assert done.status == 1
        assert len(done.stderr.splitlines()) == 1
        assert words in done.stderr
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("arguments", [("theory", "--width", "8"), ("run", *LINEAR), ("theory", "--help")])
    def test_a_full_standard_output_is_one_line_without_o(self, call, monkeypatch, capsys, arguments):
        with open("/dev/full", "w") as full:
            monkeypatch.setattr("sys.stdout", full)
            done = call(*arguments)
            monkeypatch.undo()
            # What was left in the buffer, if anything was, finds no room here either.
            with suppress(OSError):
                full.close()
        assert done.status == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith("gradsim: ") and last.endswith("No space left on device: free some space")

    def test_messages_that_cannot_be_written_fail_nothing(self, tmp_path):
        with open("/dev/full", "w") as full:
            command = [sys.executable, fake_backend.__file__, "0", "run", *LINEAR, "-o", str(tmp_path / "out.h5")]
            # As a script it has its own folder on the path, not the one above.
            found = {**os.environ, "PYTHONPATH": str(Path(gradsim.__file__).parent.parent)}
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, text=True, timeout=60, env=found)
        assert done.returncode == 0
        assert done.stdout.splitlines()[-1].startswith("agree: ")

    def test_the_traceback_is_shown_on_request(self, monkeypatch, capsys, tmp_path):
        monkeypatch.setenv("GRADSIM_DEBUG", "1")
        assert status_of(["run", "--width", "0"]) == 2
        assert "Traceback" in capsys.readouterr().err

    def test_an_interrupt_outside_a_run(self, call, monkeypatch):
        def interrupt():
            raise KeyboardInterrupt

        monkeypatch.setattr("gradsim.presets.list_presets", interrupt)
        assert call("presets").status == 130


class TestInfoAndVerify:
    def test_info(self, call, result):
        done = call("info", "out.h5")
        assert done.status == 0
        assert "linear n=8 L=5 gain=1" in done.stdout
        assert "complete" in done.stdout

    def test_info_json(self, call, result):
        document = strict_json(call("info", "out.h5", "--json").stdout)
        assert document["complete"] is True
        assert document["bytes"] == result.stat().st_size
        (cell,) = document["cells"]
        assert cell["chain"]["width"] == 8
        assert cell["chains"] == cell["chains_done"] == 128
        assert cell["dead"] == 0
        assert -1 < cell["rate"] < 1
        assert cell["seconds"] >= 0

    def test_rate_and_time_of_every_architecture(self, call):
        flags = ("--kind", "recurrent,lstm", "--clip", "1,2", "--width", "8", "--depth", "5", "--chains", "64")
        done = call("run", *flags)
        assert done.status == 0
        assert done.stdout.count("rate") == done.stdout.count("no law") == 4
        cells = strict_json(call("info", "run.h5", "--json").stdout)["cells"]
        assert [cell["chain"]["kind"] for cell in cells] == ["recurrent"] * 2 + ["lstm"] * 2
        assert all(isinstance(cell["rate"], float) and cell["seconds"] >= 0 for cell in cells)
        assert call("verify", "run.h5").status == 0
        assert call("compare", "run.h5").status == 0
        assert "lstm uniform n=8 T=5 torch" in call("theory", *flags).stdout

    def test_verify(self, call, result):
        assert call("verify", "out.h5").status == 0
        content = bytearray(result.read_bytes())
        content[len(content) // 2] ^= 1
        result.write_bytes(content)
        done = call("verify", "out.h5")
        assert done.status == 1
        assert done.stdout == "" and len(done.stderr.splitlines()) == 1


class TestCompare:
    def test_agreement_exits_0(self, call, result):
        done = call("compare", "out.h5")
        assert done.status == 0
        assert done.stdout.splitlines()[-1].startswith("agree: ")
        assert "\x1b" not in done.stdout, "plain where it is no terminal"

    def test_rejection_exits_3(self, call):
        call("run", *LINEAR, "--activation", "relu", "-o", "wrong.h5")
        for flags in ((), ("--json",), ("--csv",)):
            assert call("compare", "wrong.h5", *flags).status == 3

    def test_json_has_the_documented_keys(self, call, result):
        document = strict_json(call("compare", "out.h5", "--json", "--alpha", "0.05").stdout)
        assert list(document) == ["file", "alpha", "verdict", "claim", "cells"]
        assert document["alpha"] == 0.05
        assert document["verdict"] == "agree"
        (cell,) = document["cells"]
        keys = ["cell", "chain", "chains", "alive", "p_dead", "detectable_gain_error", "rate", "tests", "overflow"]
        assert list(cell) == keys
        assert {test["statistic"] for test in cell["tests"]} >= {
            "mean",
            "variance",
            "ks",
            "deaths",
            "increments",
        }
        keys = "quantity layer statistic theory empirical standard_error z p p_adjusted n validity source"
        assert list(cell["tests"][0]) == [*keys.split(), "verdict"]

    def test_csv_has_a_line_for_each_test(self, call, result):
        lines = list(csv.DictReader(io.StringIO(call("compare", "out.h5", "--csv").stdout)))
        document = strict_json(call("compare", "out.h5", "--json").stdout)
        assert len(lines) == len(document["cells"][0]["tests"])
        assert float(lines[0]["theory"]) == document["cells"][0]["tests"][0]["theory"]
        assert lines[0]["chain"] == "linear n=8 L=5 gain=1"


class TestTheory:
    def test_table(self, call, tmp_path):
        done = call("theory", "--activation", "linear,relu,tanh", "--width", "16")
        assert done.status == 0
        assert "exact" in done.stdout and "mean field" in done.stdout
        assert os.listdir(tmp_path) == []

    def test_json(self, call):
        document = strict_json(call("theory", *LINEAR, "--json").stdout)
        (cell,) = document["cells"]
        assert cell["chain"]["activation"] == "linear"
        prediction = cell["predictions"][0]
        keys = "quantity layer mean var log_second_moment p_dead rate validity source"
        assert list(prediction) == keys.split()
        assert prediction["layer"] == [0, 1, 2, 3, 4, 5]
        assert prediction["validity"] == "exact"
        quantities = [prediction["quantity"] for prediction in cell["predictions"]]
        assert quantities == ["log_grad_norm", "log_activation_norm", "log_weight_grad_norm"]

    def test_a_preset(self, call):
        assert call("theory", "quick").stdout.count("exact") >= 4


class TestTableWidth:
    @pytest.mark.parametrize(
        ("terminal", "columns", "width"), [(True, "72", 72), (True, "300", 100), (True, "20", 64), (False, "72", 100)]
    )
    def test_is_that_of_a_terminal_within_bounds(self, monkeypatch, terminal, columns, width):
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
        assert table_width() == width

    @pytest.mark.parametrize(
        "command", [("run", *LINEAR), ("theory", "quick"), ("info", "out.h5"), ("compare", "out.h5"), ("presets",)]
    )
    def test_every_command_keeps_to_it(self, call, result, monkeypatch, command):
        for module in ("judging", "reading", "listing"):
            monkeypatch.setattr(f"gradsim.commands.{module}.table_width", lambda: 64)
        assert max(map(len, call(*command).stdout.splitlines())) <= 64


class TestPresets:
    def test_list(self, call):
        done = call("presets")
        assert done.status == 0
        lines = done.stdout.splitlines()
        assert any(line.startswith("quick ") for line in lines)
        toy = next(number for number, line in enumerate(lines) if line.startswith("toy "))
        assert lines[toy + 1].strip().startswith("claim: Ten layers")
        claims = sum(preset.claim is not None for preset in list_presets())
        assert done.stdout.count("claim: ") == claims > 10

    def test_json(self, call):
        presets = strict_json(call("presets", "--json").stdout)
        assert all(set(preset) == {"name", "title", "claim"} for preset in presets)
        claims = {preset["name"]: preset["claim"] for preset in presets}
        assert claims["toy"].startswith("Ten layers")
        assert claims["quick"] is None

    def test_print_one(self, call, tmp_path):
        text = call("presets", "quick").stdout
        (tmp_path / "again.toml").write_text(text)
        assert gradsim.Experiment.from_toml("again.toml") == gradsim.Experiment.from_text(text)


class TestBench:
    @pytest.fixture(autouse=True)
    def no_timing(self, monkeypatch):
        """Nothing is timed: `run_microbench` has tests of its own."""
        kernel = {"kernel": "linear", "ns_per_weight": 1.0, "numpy_ns_per_weight": 9.0, "numpy_ratio": 9.0}
        kernel |= {"floor_ns_per_weight": None, "floor_ratio": float("nan")}
        document = {"kernels": [kernel], "counting": "per weight", "machine": {"threads": 1}}
        monkeypatch.setattr("gradsim.microbench.run_microbench", lambda quick: {**document, "quick": quick})

    def test_table(self, call):
        done = call("bench")
        assert done.status == 0
        assert done.stdout.splitlines()[2].split() == ["linear", "1.000", "9.000", "9.00", "-", "-"]

    @pytest.mark.parametrize("quick", [False, True])
    def test_json(self, call, quick):
        document = strict_json(call("bench", "--json", *(["--quick"] if quick else [])).stdout)
        assert document["quick"] is quick
        assert document["kernels"][0]["floor_ratio"] is None


def test_take_overrides_leaves_the_rest():
    names = [*CHAIN_FIELDS, *HEAD_FIELDS, *RUN_FIELDS]
    values = {name: () for name in names if name != "title"}
    values |= {"width": ("8", "16"), "profile": ("2,3", "4,5"), "other": 1}
    assert take_overrides(values) == {"width": ("16",), "profile": ("2,3", "4,5")}
    assert values == {"other": 1}
