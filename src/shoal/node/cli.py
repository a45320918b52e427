"""The `shoal` command. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 130 stopped by Ctrl-C.

Results go to stdout, everything else to stderr. Commands import what they need when they run, so that `--help` is
quick. A failure is one clear message; `shoal --debug ...` adds the traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    before_separator = arguments[: arguments.index("--")] if "--" in arguments else arguments
    is_debug = "--debug" in before_separator
    if is_debug:
        arguments.remove("--debug")
    _mend_streams()
    try:
        return _invoke(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if is_debug:
            raise
        return _fail(error)


def _mend_streams() -> None:
    """A stream the caller closed becomes the null device; a character its encoding lacks becomes a question mark."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  (for as long as the process lives)
        elif mode == "w" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _invoke(arguments: list[str]) -> int:
    from shoal.node.application import app

    try:
        app(arguments, prog_name="shoal")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    return 0


def _fail(error: Exception) -> int:
    """One message. What is neither ours nor the machine's is a bug, and says so."""
    from shoal.core.errors import BadConfig, ShoalError

    if isinstance(error, ShoalError | OSError):
        text = str(error)
    else:
        text = f"internal error, please report it (--debug shows where): {type(error).__name__}: {error}"
    print(f"shoal: {text}", file=sys.stderr)  # noqa: T201
    return 2 if isinstance(error, BadConfig) else 1
