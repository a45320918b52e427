"""A virtual environment for each peer under bench/.envs, made once and reused while its requirements stay the same."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

BENCH = Path(__file__).parent.parent
ENVIRONMENTS = BENCH / ".envs"


def environment(name: str, requirements: tuple[str, ...], alone: tuple[str, ...] = ()) -> Path:
    """The Python of an environment that has `requirements`; building one from source can take minutes.

    alone: installed without what they ask for, of which `requirements` has what they use.
    """
    folder = ENVIRONMENTS / name
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    wanted = "\n".join((*requirements, *alone)) + "\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"making {folder} with {', '.join(requirements)}", file=sys.stderr)
    venv.create(folder, with_pip=True, clear=True)
    constraints = BENCH.parent / "constraints.txt"
    install = [python, "-m", "pip", "install", "-q"]
    # Whoever names exact versions here means them: constraints are for the rest.
    pins = {name.split("==")[0] for name in requirements if "==" in name}
    rest = folder / "constraints.txt"
    lines = constraints.read_text().splitlines()
    rest.write_text("\n".join(line for line in lines if line.split("==")[0] not in pins) + "\n")
    subprocess.run([*install, "-c", rest, *requirements], check=True)
    if alone:
        subprocess.run([*install, "--no-deps", *alone], check=True)
    stamp.write_text(wanted)
    return python


def cache(name: str) -> Path:
    """A folder for files a benchmark makes and keeps."""
    folder = ENVIRONMENTS / "files" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
