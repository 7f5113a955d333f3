"""Entry point: parse, run, and turn every error of the user's into one line and exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rich.console import Console

from cfr_fast.cli.parser import build_parser
from cfr_fast.errors import CFRError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; None takes the process's.

    Returns:
        The exit code: 0 done, 1 an error of ours, 2 bad input or an output that cannot be written,
        130 interrupted.
    """
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except CFRError as error:
        return _fail(str(error), 2)
    except BrokenPipeError:  # the reader of our output left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except Exception as error:
        if os.environ.get("CFR_FAST_TRACEBACK"):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        return _fail(f"unexpected {type(error).__name__}: {reason} (CFR_FAST_TRACEBACK=1 shows where)", 1)
    return 0


def _fail(message: str, code: int) -> int:
    Console(stderr=True, soft_wrap=True).print(f"cfr: {message}", style="red", markup=False, highlight=False)
    return code
