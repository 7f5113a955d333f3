"""The one kind of error that bad input raises."""

from __future__ import annotations


class CFRError(Exception):
    """Base of every error that cfr_fast raises on purpose."""


class InputError(CFRError, ValueError):
    """Input that cannot be used; the message names the argument, what was expected and what came.

    The command line prints it as one line and exits with code 2.
    """

    def __init__(self, argument: str, expected: str, got: str) -> None:
        super().__init__(f"{argument}: expected {expected}, got {got}")
        self.argument = argument


class OutputError(CFRError, OSError):
    """A result that cannot be written; nothing half-written stays behind."""


class NotFittedError(CFRError):
    """A model was asked for a prediction, or to be saved, before it was fitted."""

    def __init__(self) -> None:
        super().__init__(
            "this CFR model is not fitted: call fit(samples) first, or load one with CFR.load(path)"
        )
