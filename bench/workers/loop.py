"""The worker's side: one JSON line in, one out. Standard output is kept for answers alone."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any


def peak_memory() -> dict[str, Any]:
    return {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def serve(commands: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """Answer until standard input ends. Whatever libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    commands = {"memory": peak_memory, **commands}
    for line in sys.stdin:
        arguments = json.loads(line)
        answers.write(json.dumps(commands[arguments.pop("do")](**arguments)) + "\n")
        answers.flush()
