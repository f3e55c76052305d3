"""What is paid before anything is simulated."""

from __future__ import annotations


class Startup:
    """Whole processes."""

    def timeraw_import(self) -> str:
        """`import gradsim`."""
        return "import gradsim"

    def timeraw_help(self) -> str:
        """`gradsim --help`, its text out of asv's way."""
        return (
            "import contextlib, io\n"
            "from gradsim.cli import status_of\n"
            "with contextlib.redirect_stdout(io.StringIO()):\n"
            "    status_of(['--help'])\n"
        )

    def timeraw_kernels(self) -> str:
        """The compiled kernels' module, which brings Numba."""
        return "import gradsim.kernels.cpu"
