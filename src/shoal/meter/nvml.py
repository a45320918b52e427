"""Joules of NVIDIA GPUs: the driver's own counter, through its library, without a package of ours.

nvmlDeviceGetTotalEnergyConsumption (NVML API reference, Device Queries): millijoules since the driver was loaded,
Volta and newer.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Nvml:
    """Open handles of the GPUs that count energy."""

    library: ctypes.CDLL
    devices: tuple[ctypes.c_void_p, ...] = field(repr=False)

    def joules(self) -> float:
        """Since the driver was loaded, all GPUs together. OSError when one stopped answering."""
        return sum(_millijoules(self.library, device) for device in self.devices) / 1e3


def open_nvml(name: str = "libnvidia-ml.so.1") -> Nvml | None:
    """The GPUs of this machine whose energy can be read; None where there is none."""
    try:
        library = ctypes.CDLL(name)
        if library.nvmlInit_v2() != 0:
            return None
        devices = tuple(device for device in _devices(library) if _counts(library, device))
    except (OSError, AttributeError):
        return None
    return Nvml(library, devices) if devices else None


def _devices(library: ctypes.CDLL) -> list[ctypes.c_void_p]:
    count = ctypes.c_uint()
    if library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return []
    found = []
    for index in range(count.value):
        device = ctypes.c_void_p()
        if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) == 0:
            found.append(device)
    return found


def _counts(library: ctypes.CDLL, device: ctypes.c_void_p) -> bool:
    try:
        _millijoules(library, device)
    except OSError:
        return False
    return True


def _millijoules(library: ctypes.CDLL, device: ctypes.c_void_p) -> int:
    value = ctypes.c_ulonglong()
    code = library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(value))
    if code != 0:
        raise OSError(f"NVML answers {code} when asked for a GPU's energy")
    return value.value
