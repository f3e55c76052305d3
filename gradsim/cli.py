"""The command line: ``gradsim COMMAND``. It parses, calls and prints; no science.

Every failure is one line on standard error and an exit status: 1 failed, 2 bad usage or experiment or an
output in the way, 3 an exact law rejected, 128 + n interrupted by signal n. GRADSIM_DEBUG=1 shows the
traceback.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

import gradsim
from gradsim.commands.judging import compare_command, theory_command
from gradsim.commands.listing import bench_command, presets_command
from gradsim.commands.output import drop_stream, note
from gradsim.commands.reading import info_command, verify_command
from gradsim.commands.running import run_command
from gradsim.errors import GradsimError

__all__ = ["cli", "main", "status_of"]

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class OrderedGroup(click.Group):
    """A group that lists its commands as they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, in the order a user meets them."""
        return list(self.commands)


@click.group(
    cls=OrderedGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(gradsim.__version__, prog_name="gradsim", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, /) -> None:
    """Simulate how gradients grow or vanish in random deep networks, and hold that against theory.

    `gradsim run` draws thousands of chains, backpropagates through each, writes the norms to a file and
    compares them with the exact laws.
    """
    if ctx.invoked_subcommand is None:
        note(ctx.get_help())
        ctx.exit(EXIT_USAGE)


for _command in (
    run_command,
    info_command,
    verify_command,
    compare_command,
    theory_command,
    presets_command,
    bench_command,
):
    cli.add_command(_command)


#: Objects made between two looks for unreachable ones. Nearly all that loading a compiler makes lives to the end:
#: looking through it as often as by default, and once more at the end, takes a quarter of a short run.
_COLLECT_AFTER = 100_000


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status."""
    gc.set_threshold(_COLLECT_AFTER)
    status = status_of(arguments)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            drop_stream(stream)
    gc.freeze()
    sys.exit(status)


def status_of(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.
    """
    try:
        status = cli.main(
            args=None if arguments is None else list(arguments), prog_name="gradsim", standalone_mode=False
        )
    except SystemExit:
        # Click's own end when the reader of a help text has gone.
        return 0
    except click.exceptions.Abort:
        return _failed("interrupted", EXIT_INTERRUPTED)
    except click.ClickException as error:
        return _failed(_usage(error), error.exit_code)
    except GradsimError as error:
        return _failed(error.for_command_line, error.exit_code)
    except MemoryError:
        return _failed("out of memory: use a smaller width or depth, fewer threads or smaller blocks", EXIT_FAILED)
    except OSError as error:
        return _failed(_system_error(error), EXIT_FAILED)
    except Exception as error:
        text = f"internal error: {type(error).__name__}: {error}; GRADSIM_DEBUG=1 shows where: please report it"
        return _failed(text, EXIT_FAILED)
    return status if isinstance(status, int) else 0


def _failed(text: str, status: int) -> int:
    if os.environ.get("GRADSIM_DEBUG") == "1":
        traceback.print_exc()
    note(f"gradsim: {' '.join(text.split())}")
    return status


def _usage(error: click.ClickException) -> str:
    """A usage error on one line, with the command whose --help tells more."""
    text = error.format_message()
    context = getattr(error, "ctx", None)
    return f"{text} (see {context.command_path} --help)" if context is not None else text


def _system_error(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    advice = ": free some space" if error.errno in _DISK_FULL else ""
    return f"{where}{reason}{advice}"
