"""Usage filled in where answers are made, and totals that survive."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from shoal.core.chunk import Chunk
from shoal.core.clock import VirtualClock
from shoal.core.errors import LocalError
from shoal.core.request import Request
from shoal.core.usage import Measured, Usage
from shoal.meter.impact import Site
from shoal.meter.journal import SAVE_EVERY_S, Journal
from shoal.meter.metered import Meter, metered
from shoal.meter.places import place
from shoal.meter.source import EnergySource
from shoal.node.config import NodeConfig
from shoal.node.metering import Metering
from shoal.node.water_text import report_lines


class Machine:
    """Uses one joule for each token it makes."""

    def __init__(self) -> None:
        self.joules = 0.0

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        for token in range(5):
            self.joules += 1.0
            await asyncio.sleep(0)
            yield Chunk(token_ids=(token,), finish_reason="length" if token == 4 else None)
        yield Chunk(usage=Usage(prompt_tokens=3, completion_tokens=5))

    def meter(self, site: Site) -> Meter:
        return Meter(EnergySource("rapl", None, lambda: self.joules), site, VirtualClock())


async def answered(machine: Machine, meter: Meter, *names: str) -> list[Usage]:
    generate = metered(machine.generate, meter)

    async def one(name: str) -> Usage:
        chunks = [chunk async for chunk in generate(Request(name, "m", "hello"))]
        assert chunks[-1].usage is not None
        return chunks[-1].usage

    return list(await asyncio.gather(*map(one, names)))


def test_an_answer_alone_pays_for_what_was_used_meanwhile() -> None:
    machine = Machine()
    (usage,) = asyncio.run(answered(machine, machine.meter(Site(place("NG"))), "a"))
    assert usage.energy_j == Measured(5.0, "rapl")
    assert usage.water_l is not None
    assert usage.water_l.source == "modelled: Nigeria 2023, rapl"
    assert usage.cost_usd is None


def test_answers_at_once_share_and_sum_to_the_machines_total() -> None:
    machine = Machine()
    meter = machine.meter(Site())
    usages = asyncio.run(answered(machine, meter, "a", "b", "c"))
    paid = sum(usage.energy_j.value for usage in usages if usage.energy_j is not None)
    assert paid + meter.idle_joules == pytest.approx(machine.joules)
    assert min(usage.energy_j.value for usage in usages if usage.energy_j is not None) > 0


def test_who_leaves_early_keeps_what_was_used_for_him() -> None:
    machine = Machine()
    meter = machine.meter(Site())

    async def leave() -> None:
        stream = metered(machine.generate, meter)(Request("a", "m", "hello"))
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(leave())
    assert not meter._sharing.active
    (usage,) = asyncio.run(answered(machine, meter, "b"))
    assert usage.energy_j == Measured(5.0, "rapl")


def test_the_journal_survives_and_sums(tmp_path: Path) -> None:
    path, day = tmp_path / "meter.json", 1_700_000_000.0
    journal = Journal.read(path)
    for wall in (day, day + 10, day + 86_400 * 2):
        journal.add(Usage(prompt_tokens=1, completion_tokens=2, energy_j=Measured(4.0, "rapl")), wall)
    journal.save(day)
    again = Journal.read(path)
    assert again.days == journal.days
    assert again.between("2023-11-14", "2023-11-15").requests == 2
    assert again.between("0001-01-01", "9999-12-31").energy_j == 12.0


def test_processes_of_one_home_add_to_one_journal(tmp_path: Path) -> None:
    path, day = tmp_path / "meter.json", 1_700_000_000.0
    first, second = Journal.read(path), Journal.read(path)
    for journal in (first, second, first):
        journal.add(Usage(prompt_tokens=1, completion_tokens=2, energy_j=Measured(4.0, "rapl")), day)
        journal.idle(0.5, day)
    for journal in (first, second, first):
        journal.save(day)
    (row,) = Journal.read(path).days.values()
    assert (row.requests, row.tokens, row.energy_j, row.idle_j) == (3, 9, 12.0, 1.5)
    assert first.days == Journal.read(path).days


def test_a_clock_that_jumps_loses_nothing(tmp_path: Path) -> None:
    journal = Journal.read(tmp_path / "meter.json")
    for wall in (1_700_000_000.0, 0.0, 4_000_000_000.0, 1_700_000_000.0):
        journal.add(Usage(completion_tokens=1), wall)
    journal.save(0.0)
    assert [row.requests for row in Journal.read(journal.path).days.values()] == [1, 2, 1]


def test_the_last_answer_before_a_pause_is_written_down_and_a_report_says_of_when_it_is(tmp_path: Path) -> None:
    pauses: list[tuple[float, Callable[[], None]]] = []
    metering = Metering(NodeConfig(home=tmp_path), lambda seconds, do: pauses.append((seconds, do)))
    assert "a running node writes" in report_lines(tmp_path, "0001-01-01", "9999-12-31", Site())[0]
    for _ in range(3):  # the first is saved at once, the others are not yet
        metering.meter.on_answer(Usage(completion_tokens=1, energy_j=Measured(1.0, "rapl")))
    path = tmp_path / "meter.json"
    assert "1 answers" in report_lines(tmp_path, "0001-01-01", "9999-12-31", Site())[0]
    ((seconds, wake),) = pauses
    assert seconds == SAVE_EVERY_S
    wake()
    os.utime(path, (1_700_000_000, 1_700_000_000))
    told = report_lines(tmp_path, "0001-01-01", "9999-12-31", Site())
    assert "3 answers" in told[0]
    assert any(line.startswith("as of            2023-11-14 22:13:20 UTC") for line in told)
    metering.meter.on_answer(Usage(completion_tokens=1))
    assert len(pauses) == 2


DAMAGED = ["", "[]", '{"days": {"x": {"requests": "3"}}}', '{"days": {"x": {"energy_j": NaN}}}', "[" * 100_000, "\x00"]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_journal_is_moved_aside_and_keeps_no_node_from_starting(tmp_path: Path, text: str) -> None:
    (tmp_path / "meter.json").write_text(text)
    metering = Metering(NodeConfig(home=tmp_path), lambda seconds, do: None)
    metering.meter.on_answer(Usage(completion_tokens=1, energy_j=Measured(1.0, "rapl")))
    metering.close()
    (row,) = Journal.read(tmp_path / "meter.json").days.values()
    assert row.requests == 1
    (aside,) = tmp_path.glob("meter.broken-*")
    assert aside.read_text() == text


@pytest.mark.parametrize("text", ["", "[]", '{"days": {"x": {"joule": 1}}}', '{"days": 3}', "\x00"])
def test_a_file_that_is_no_journal_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "meter.json"
    path.write_text(text)
    with pytest.raises(LocalError, match=r"meter\.json: expected totals by day"):
        Journal.read(path)
