"""Who made which chunk is this node's own word, and an engine's evidence comes from no other machine."""

from __future__ import annotations

from dataclasses import replace

from shoal.core.chunk import Chunk, Usage
from shoal.core.decoding import compact, parse
from shoal.core.receipt import Evidence, Opening, Receipt
from shoal.core.request import Request
from shoal.fleet.health import LONGEST_PAUSE_S, Health
from shoal.fleet.progress import Progress

ASKED = Request("r", "m", "hi", receipt=True)
EVIDENCE = Evidence((1,), (2,), 0, 3, (b"x" * 9,))
LAST = Chunk(0, "a", (2,), (), (), "stop", Usage(1, 1), Receipt(request_id="r"), Opening(bytes(32)), EVIDENCE, "me")


def test_a_chunk_names_whoever_was_asked_not_whom_it_names() -> None:
    found = Progress(ASKED).add(LAST, "peer-1")
    assert (found.provider, found.evidence) == ("peer-1", None)
    assert (found.receipt, found.opening) == (LAST.receipt, LAST.opening)


def test_evidence_of_the_engine_here_passes() -> None:
    assert Progress(ASKED).add(LAST, "local").evidence == EVIDENCE


def test_where_no_receipt_was_asked_for_nothing_of_one_passes() -> None:
    found = Progress(replace(ASKED, receipt=False)).add(LAST, "peer-1")
    assert (found.receipt, found.opening, found.evidence) == (None, None, None)


def test_receipts_and_openings_cross_the_wire_as_they_are() -> None:
    assert parse(Chunk, compact(LAST)) == LAST


def test_distrust_outlasts_an_answer_that_came_whole() -> None:
    health = Health()
    health.failed("a", "gone", 0.0)
    health.succeeded("a")
    assert not health.is_out("a", 0.5)
    health.distrusted("a", "its receipt does not hold", 1.0)
    health.succeeded("a")
    assert health.is_out("a", LONGEST_PAUSE_S)
    assert not health.is_out("a", 1.0 + LONGEST_PAUSE_S)
    health.failed("a", "gone", 100.0)
    health.succeeded("a")
    assert not health.is_out("a", 100.1)
