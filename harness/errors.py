"""Errors that a user can act on: one line each, with the exit code of the command that meets them.

Exit codes: 0 nothing failed, 1 a record (or file) failed, 2 the command was used wrongly, 3 a fault of this
program, 4 a run could not finish, 130 interrupted. Raised anywhere, rendered once, in `harness.cli`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HarnessError(Exception):
    """Base of every error that names what is wrong, where, and what to do next, in one line."""

    exit_code = 3


class UsageError(HarnessError):
    """The command, an option, a configuration key or a plugin's settings are wrong."""

    exit_code = 2


class RecordError(HarnessError):
    """A record folder or an artifact file is not what it says it is."""

    exit_code = 1


class ArtifactError(RecordError):
    """An artifact file is truncated, altered, beyond its caps or not an artifact at all."""


class DataError(HarnessError):
    """Text or tokens cannot be obtained, or are not what their hash says."""

    exit_code = 4


class RunError(HarnessError):
    """A run could not finish: disk, memory, a loss that is not a number, a budget too small."""

    exit_code = 4


class SmallBudgetError(RunError):
    """A timed budget holds no step and export, which is known once both were timed."""


class MissingExtraError(UsageError):
    """A command needs packages that are not installed; `missing_extra` makes one."""


def missing_extra(what: str, extra: str) -> MissingExtraError:
    """Return the error that says which optional dependencies `what` needs, and how to install them."""
    return MissingExtraError(
        f"{what} needs packages that are not installed. Run: pip install 'claims-harness[{extra}]'"
    )


def suggest(word: str, known: Iterable[str]) -> str:
    """Say which known name is near `word`, then name all: "Did you mean 'a'? Known: a, b"."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    return f"{hint}Known: {', '.join(names) or 'none'}."
