"""Inputs and outputs in files and as integers: JSON (name -> nested lists) or .npz (name -> array).

Integers stand for entry * 2^-fraction. Inputs are rounded to the nearest such number, ties to even; outputs are written
exactly, so a claimed output that is no such number is not one that the model could give.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.core.errors import InvalidRequest, Unsupported
from shoal.proof.artifacts_manifest import Port
from shoal.proof.graph.ir import Ints
from shoal.proof.rejected import ProofRejected

Numbers = Mapping[str, npt.NDArray[Any]]
EXACT = 1 << 53
"""Integers below it are doubles."""


def read_numbers(file: Path, ports: Sequence[Port], alias: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays of all ports by their names; `alias` ("input", "output") is another name where there is one port.

    InvalidRequest for a file that cannot be read, names that do not fit, wrong shapes and what is no finite number. A
    flat list of the right length is taken in row-major order.
    """
    found = _read(file)
    if len(ports) == 1 and alias in found and ports[0].name not in found:
        found = {ports[0].name if name == alias else name: value for name, value in found.items()}
    wanted = {port.name for port in ports}
    if found.keys() != wanted:
        raise InvalidRequest(f"{file}: expected {', '.join(sorted(wanted))}, found {', '.join(sorted(found))}", alias)
    return {port.name: _shaped(file, port, found[port.name]) for port in ports}


def read_arrays(file: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of a file, whatever their names and shapes. InvalidRequest if one is not made of numbers."""
    found = {name: np.asarray(value) for name, value in _read(file).items()}
    for name, array in found.items():
        if array.dtype.kind not in "iuf":
            raise InvalidRequest(f"{file}: {name}: expected numbers, found {array.dtype}", "numbers")
    return found


def to_integers(ports: Sequence[Port], numbers: Numbers) -> dict[str, Ints]:
    """Inputs by tensor, rounded to their scales. InvalidRequest for numbers outside the calibrated range."""
    return {port.tensor: _rounded(port, numbers[port.name]) for port in ports}


def from_claim(ports: Sequence[Port], numbers: Numbers) -> dict[str, Ints]:
    """Claimed outputs by tensor. ProofRejected for numbers that the model could not give."""
    found = {}
    for port in ports:
        _check_exact(port, np.asarray(numbers[port.name]))
        scaled = np.ldexp(np.asarray(numbers[port.name], np.float64), port.fraction)
        whole = np.rint(scaled)
        wrong = (whole != scaled) | (whole < port.low) | (whole > port.high) | (np.abs(whole) >= EXACT)
        if wrong.any():
            place = _place(wrong)
            claimed = np.asarray(numbers[port.name])[place]
            grid = f"a multiple of 2^{-port.fraction} from {port.low} to {port.high} of them"
            raise ProofRejected("output", f"{port.name}{list(place)}: expected {grid}, found {claimed}")
        found[port.tensor] = whole.astype(np.int64)
    return found


def _check_exact(port: Port, claimed: npt.NDArray[Any]) -> None:
    """Whole numbers beyond 53 bits would be taken for their neighbours."""
    if claimed.dtype.kind in "iu" and ((claimed > EXACT) | (claimed < -EXACT)).any():
        place = _place((claimed > EXACT) | (claimed < -EXACT))
        raise ProofRejected("output", f"{port.name}{list(place)}: expected at most 53 bits, found {claimed[place]}")


def to_numbers(ports: Sequence[Port], integers: Mapping[str, Ints]) -> dict[str, npt.NDArray[np.float64]]:
    """Integers by tensor as the numbers they stand for, exactly. Unsupported for integers no double holds."""
    found = {}
    for port in ports:
        entries = integers[port.tensor]
        if entries.size and int(np.abs(entries).max()) >= EXACT:
            raise Unsupported(f"output {port.name!r}: it has more than 53 bits; compile with rounded outputs")
        found[port.name] = np.ldexp(entries.astype(np.float64), -port.fraction)
    return found


def write_numbers(file: Path, numbers: Numbers) -> None:
    """As .npz where the name says so, else as JSON. Doubles are written so that they read back as they were."""
    if file.suffix == ".npz":
        named: dict[str, Any] = dict(numbers)
        np.savez(file, **named)
        return
    file.write_text(json.dumps({name: np.asarray(array).tolist() for name, array in numbers.items()}) + "\n")


def _read(file: Path) -> dict[str, Any]:
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        found = json.loads(file.read_text())
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, RecursionError) as error:
        raise InvalidRequest(f"{file}: expected numbers in JSON or .npz, found {error}", "file") from error
    if not isinstance(found, dict):
        raise InvalidRequest(f"{file}: expected a map of names to numbers, found {type(found).__name__}", "file")
    return found


def _shaped(file: Path, port: Port, value: Any) -> npt.NDArray[Any]:
    where = f"{file}: {port.name}"
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InvalidRequest(
            f"{where}: expected shape {port.shape}, found lists of several lengths", "shape"
        ) from error
    if array.dtype.kind not in "iuf":
        raise InvalidRequest(f"{where}: expected numbers, found {array.dtype}", "numbers")
    if array.ndim == 1 and array.size == int(np.prod(port.shape)):
        array = array.reshape(port.shape)
    if array.shape != port.shape:
        raise InvalidRequest(f"{where}: expected shape {port.shape}, found {array.shape}", "shape")
    if not np.isfinite(array).all():
        place = _place(~np.isfinite(array))
        raise InvalidRequest(f"{where}{list(place)}: expected a finite number, found {array[place]}", "numbers")
    return array


def _rounded(port: Port, array: npt.NDArray[Any]) -> Ints:
    scaled = np.rint(np.ldexp(np.asarray(array, np.float64), port.fraction))
    outside = (scaled < port.low) | (scaled > port.high)
    if outside.any():
        place = _place(outside)
        least, most = np.ldexp(float(port.low), -port.fraction), np.ldexp(float(port.high), -port.fraction)
        raise InvalidRequest(
            f"input {port.name}{list(place)}: expected {least:.6g} to {most:.6g}, found {array[place]:.6g}: compile "
            "with calibration inputs like this one",
            "input",
        )
    entries: Ints = scaled.astype(np.int64)
    return entries


def _place(mask: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    """The first true entry's index."""
    return tuple(int(index) for index in np.argwhere(mask)[0])
