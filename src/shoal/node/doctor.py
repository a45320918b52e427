"""Judges a `Machine`: for each thing that matters, is it all right, and what to change if not. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from shoal.core.units import format_size
from shoal.models.catalogue import find
from shoal.node.config import NodeConfig
from shoal.node.machine import Machine

Status = Literal["ok", "warn", "fail"]

MEMORY_FACTOR = 2.0
"""Memory to have per byte of weights: the weights, as they are in the file, and as much again for cache and process."""


@dataclass(frozen=True, slots=True)
class Check:
    """`warn`: it works, but worse than it could. `fail`: it keeps Shoal from serving. `advice` says what to change."""

    name: str
    status: Status
    found: str
    advice: str = ""


def diagnose(machine: Machine, config: NodeConfig) -> tuple[Check, ...]:
    """Every check, in the order a person would make them."""
    return (
        Check("python", "ok", machine.python),
        _cores(machine, config),
        _instructions(machine),
        _memory(machine),
        _gpu(machine, config),
        Check("compiler", "ok", machine.compiler) if machine.compiler else _no_compiler(machine),
        _arithmetic(machine, config),
        Check("torch", "ok", machine.torch or "not installed (optional)"),
        _port(machine, config),
        *_store(machine, config),
    )


def _cores(machine: Machine, config: NodeConfig) -> Check:
    found = f"{machine.num_cores} ({machine.processor})"
    if machine.cpu_quota is not None and machine.cpu_quota < machine.num_cores:
        found += f", limited to {machine.cpu_quota:g} cores' time"
        return Check("cores", "warn", found, f"set threads = {max(1, int(machine.cpu_quota))}, or lift the limit")
    if config.threads is not None and config.threads > machine.num_cores:
        return Check("cores", "warn", found, f"threads is {config.threads}; more than the cores there are is slower")
    return Check("cores", "ok", found)


def _instructions(machine: Machine) -> Check:
    found = " ".join(machine.instruction_sets)
    if not found:
        return Check("instructions", "warn", "unknown", "only portable kernels are used")
    if {"avx2", "asimd"} & set(machine.instruction_sets):
        return Check("instructions", "ok", found)
    return Check("instructions", "warn", found, "without AVX2 or NEON only the slow portable kernels run")


def _memory(machine: Machine) -> Check:
    if machine.memory_available is None:
        total = "unknown" if machine.memory_total is None else format_size(machine.memory_total)
        return Check("memory", "ok", f"{total} in all; how much is free cannot be read here")
    available, wanted = machine.memory_available, machine.stored_size * MEMORY_FACTOR
    found = f"{format_size(available)} free of {format_size(machine.memory_total or 0)}"
    if available < machine.stored_size:
        return Check(
            "memory", "fail", found, f"the model alone is {format_size(machine.stored_size)}: take a smaller one"
        )
    if available < wanted:
        return Check("memory", "warn", found, f"{format_size(wanted)} would be comfortable; lower kv_memory")
    return Check("memory", "ok", found)


def _gpu(machine: Machine, config: NodeConfig) -> Check:
    found = "; ".join(machine.gpus) or "none"
    if config.device == "cuda" and not machine.gpus:
        return Check("gpu", "fail", found, "device is cuda, but nvidia-smi shows no GPU; set device = auto")
    if machine.gpus and machine.torch is None:
        return Check("gpu", "warn", found, "to use it: pip install 'shoal[torch]' with a CUDA build of torch")
    return Check("gpu", "ok", found)


def _no_compiler(machine: Machine) -> Check:
    advice = "install gcc or clang (Debian: apt-get install gcc; macOS: xcode-select --install)"
    return Check("compiler", "warn", "none on PATH", advice)


def _arithmetic(machine: Machine, config: NodeConfig) -> Check:
    """Something must compute: the kernels, or torch."""
    wants_torch = config.kernels == "torch" or config.device == "cuda"
    if machine.kernels != "none" and not wants_torch:
        return Check("kernels", "ok", machine.kernels_detail)
    if machine.torch is None:
        advice = "install torch" if wants_torch else "install a C compiler, or torch: pip install 'shoal[torch]'"
        return Check("kernels", "fail", machine.kernels_detail, advice)
    if config.kernels == "native":
        return Check("kernels", "fail", machine.kernels_detail, "kernels is native; install a C compiler, or set auto")
    if wants_torch:
        return Check("kernels", "ok", "torch computes, as configured")
    return Check("kernels", "warn", f"torch computes, slower: {machine.kernels_detail}", "install a C compiler")


def _port(machine: Machine, config: NodeConfig) -> Check:
    address = f"{config.host}:{config.port}"
    if machine.port_error:
        return Check("port", "warn", machine.port_error, "is shoal running? else --port or SHOAL_PORT")
    if config.host not in ("127.0.0.1", "localhost", "::1") and not config.api_keys:
        return Check("port", "warn", f"{address} is free", "reachable by others without a key: set api_keys")
    return Check("port", "ok", f"{address} is free")


def _store(machine: Machine, config: NodeConfig) -> Iterator[Check]:
    """The disk, then the configured model; a known model that is merely missing will be pulled."""
    entry, found = find(config.model), f"{format_size(machine.disk_free)} free at {config.home}"
    needed = 0 if entry is None or machine.stored else entry.source.wheel_size_bytes + entry.source.member_size_bytes
    if needed and not machine.can_write_home:
        yield Check("disk", "fail", f"{config.home} cannot be written", "set SHOAL_HOME to a directory that can")
    elif machine.disk_free < needed:
        yield Check("disk", "fail", found, f"pulling {config.model} needs {format_size(needed)}; make room")
    else:
        yield Check("disk", "ok", found)
    if machine.stored:
        yield Check("model", "ok", f"{config.model} ({format_size(machine.stored_size)}) at {machine.stored}")
    elif entry is not None:
        yield Check(
            "model", "warn", f"{config.model} is not pulled yet", f"shoal models pull {entry.name}, or shoal up"
        )
    else:
        yield Check("model", "fail", machine.store_error or "missing", "shoal models list shows what there is")


def can_serve(checks: tuple[Check, ...]) -> bool:
    return all(check.status != "fail" for check in checks)
