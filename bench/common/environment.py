"""A virtual environment for each peer under bench/.envs, made once and reused while its requirements stay the same."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

BENCH = Path(__file__).parent.parent
ENVIRONMENTS = BENCH / ".envs"


def environment(name: str, requirements: tuple[str, ...]) -> Path:
    """The Python of an environment that has `requirements`; building one from source can take minutes."""
    folder = ENVIRONMENTS / name
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    wanted = "\n".join(requirements) + "\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"making {folder} with {', '.join(requirements)}", file=sys.stderr)
    venv.create(folder, with_pip=True, clear=True)
    constraints = BENCH.parent / "constraints.txt"
    subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints, *requirements], check=True)
    stamp.write_text(wanted)
    return python


def cache(name: str) -> Path:
    """A folder for files a benchmark makes and keeps."""
    folder = ENVIRONMENTS / "files" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
