"""One dial over all carriers: each a little after the other, until a link that is not relayed is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from shoal.core.clock import Clock
from shoal.core.errors import ShoalError, Unreachable
from shoal.mesh.address import Address
from shoal.mesh.carrier import Carrier, Link
from shoal.mesh.switchboard.gate import Limits
from shoal.mesh.switchboard.record import Step

LOG = logging.getLogger(__name__)

Found = Callable[[Link], None]

NEAR_BITS = {4: 24, 6: 64}
"""Of two addresses that count as one network."""


@dataclass(slots=True)
class _Dial:
    """What the tries of one dial share."""

    found: Found
    steps: list[Step] = field(default_factory=list)
    has_direct: asyncio.Event = field(default_factory=asyncio.Event)


def is_near(address: Address, own: Address) -> bool:
    """Whether both seem to be in one private network, or on one machine that listens to nobody else."""
    return bool(_networks(address) & _networks(own))


def in_order(carriers: Sequence[Carrier], is_near: bool) -> list[Carrier]:
    """TCP first to a machine near by, else as given.

    Near by it is up sooner, carries more, and says at once when a process at the other end has died; a QUIC link
    learns that by silence only. Far away most peers are behind NATs, which only QUIC gets through.
    """
    return sorted(carriers, key=lambda carrier: carrier.name != "tcp") if is_near else list(carriers)


def _networks(address: Address) -> set[str]:
    """The private networks among its TCP endpoints; loopback, which everybody has, only where there is nothing else."""
    private, loopback = set[str](), set[str]()
    for hint in address.tcp:
        try:
            ip = ip_address(hint.rpartition(":")[0].strip("[]").partition("%")[0])
        except ValueError:
            continue
        if ip.is_private:
            network = str(ip_network((ip, NEAR_BITS[ip.version]), strict=False))
            (loopback if ip.is_loopback else private).add(network)
    return private or loopback


async def dial_all(
    carriers: Sequence[Carrier], address: Address, limits: Limits, clock: Clock, found: Found
) -> tuple[Step, ...]:
    """Call `found` with every link made; returns the steps that failed. Cancelled: nothing is left running.

    A carrier starts when the one before it has failed, or has had `stagger_s`.
    """
    dial = _Dial(found)
    async with asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[None]] = []
        for carrier in carriers:
            if dial.has_direct.is_set():
                break
            tasks.append(group.create_task(_try(carrier, address, clock, limits.dial_timeout_s, dial)))
            await _either(tasks[-1], clock, limits.stagger_s)
        while not dial.has_direct.is_set() and (running := [task for task in tasks if not task.done()]):
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
    return tuple(dial.steps)


async def _try(carrier: Carrier, address: Address, clock: Clock, timeout_s: float, dial: _Dial) -> None:
    started = clock.monotonic()
    try:
        link = await carrier.dial(address, timeout_s)
    except ShoalError as error:
        lines = error.steps if isinstance(error, Unreachable) and error.steps else (f"{carrier.name}: {error}",)
        dial.steps += [Step(line, clock.monotonic() - started) for line in lines]
    except Exception as error:
        LOG.exception("dialing by %s failed in an unexpected way", carrier.name)
        what = f"{carrier.name}: unexpected {type(error).__name__}, see the log"
        dial.steps.append(Step(what, clock.monotonic() - started))
    else:
        dial.found(link)
        if link.info().path != "relayed":
            dial.has_direct.set()


async def _either(task: asyncio.Task[None], clock: Clock, delay_s: float) -> None:
    """Until the task has ended or the time has passed."""
    timer = asyncio.ensure_future(clock.sleep(delay_s))
    try:
        await asyncio.wait((task, timer), return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
