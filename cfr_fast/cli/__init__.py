"""The command line: ``cfr``. Results go to standard output, progress and errors to standard error."""

from cfr_fast.cli.main import main

__all__ = ["main"]
