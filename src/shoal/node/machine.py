"""What this machine is: read, not judged. Anything that cannot be read is None or empty, never a guess."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from shoal.core.errors import ShoalError
from shoal.kernels.build import cpu_flags, find_compiler, status
from shoal.models.store import Store, size_on_disk
from shoal.node.config import NodeConfig


@dataclass(frozen=True, slots=True)
class Machine:
    """Sizes are bytes. `stored` is the configured model's place, or None where `store_error` says why not."""

    python: str
    processor: str
    num_cores: int
    cpu_quota: float | None
    instruction_sets: tuple[str, ...]
    memory_total: int | None
    memory_available: int | None
    gpus: tuple[str, ...]
    compiler: str | None
    kernels: str
    kernels_detail: str
    torch: str | None
    port_error: str | None
    disk_free: int
    can_write_home: bool
    stored: str | None
    stored_size: int
    store_error: str | None


NOTABLE = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16",
           "amx_tile", "asimd", "asimddp", "i8mm", "bf16", "sve")  # fmt: skip


def look(config: NodeConfig) -> Machine:
    """Everything `doctor` judges. Builds the kernels if they have not been built: a few seconds, once."""
    built, compiler = status(), find_compiler()
    stored, size, store_error = _stored(config)
    existing = next(path for path in (config.home, *config.home.parents) if path.exists())
    memory_total, memory_available = _memory()
    return Machine(
        python=platform.python_version(),
        processor=processor(),
        num_cores=num_cores(),
        cpu_quota=_cpu_quota(),
        instruction_sets=_instruction_sets(),
        memory_total=memory_total,
        memory_available=memory_available,
        gpus=_gpus(),
        compiler=" ".join(compiler) if compiler else None,
        kernels=built.kind,
        kernels_detail=built.detail,
        torch=_version("torch"),
        port_error=_port_error(config),
        disk_free=shutil.disk_usage(existing).free,
        can_write_home=os.access(existing, os.W_OK),
        stored=stored,
        stored_size=size,
        store_error=store_error,
    )


def num_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The processor's name as it says itself."""
    text = _read("/proc/cpuinfo")
    if match := re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE):
        return match[1]
    return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or platform.machine()


def _instruction_sets() -> tuple[str, ...]:
    flags = cpu_flags() or frozenset(
        (_output("sysctl", "-n", "machdep.cpu.features") or "").lower().replace(".", "_").split()
    )
    return tuple(name for name in NOTABLE if name in flags)


def _cpu_quota() -> float | None:
    """Cores' worth of time a container may use (cgroup v2), None: no limit."""
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _memory() -> tuple[int | None, int | None]:
    """Total and available, a container's own limit (cgroup v2) included."""
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE))
    if not found:
        total = _output("sysctl", "-n", "hw.memsize")
        return (int(total), None) if total and total.isdigit() else (None, None)
    total_bytes, available = int(found["MemTotal"]) * 1024, int(found.get("MemAvailable", 0)) * 1024
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    if limit.isdigit() and used.isdigit() and int(limit) < total_bytes:
        return int(limit), min(available, int(limit) - int(used))
    return total_bytes, available


def _gpus() -> tuple[str, ...]:
    listed = _output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    return tuple(line.strip() for line in listed.splitlines()) if listed else ()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _port_error(config: NodeConfig) -> str | None:
    from shoal.server import listen

    try:
        listen(config.host, config.port).close()
    except ShoalError as error:
        return str(error)
    return None


def _stored(config: NodeConfig) -> tuple[str | None, int, str | None]:
    try:
        path = Store(config.home).resolve(config.model)
    except ShoalError as error:
        return None, 0, str(error)
    return str(path), size_on_disk(path), None


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _output(*command: str) -> str | None:
    """Standard output of a small program, or None if there is none such or it fails."""
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run((program, *command[1:]), capture_output=True, text=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
