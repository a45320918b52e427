"""Fiat and Shamir: everything said is absorbed before the challenges that depend on it, and changes all later ones."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from forger import forge
from statements import told, used

from shoal.core.encoding import decode
from shoal.crypto.transcript import Transcript
from shoal.proof.digest import arrays_digest, circuit_digest
from shoal.proof.fakes import dense
from shoal.proof.verifier import verify
from shoal.proof.weights import commit_weights

EXAMPLE = dense()
COMMITTED = commit_weights(EXAMPLE.circuit, EXAMPLE.weights)
PROOF = forge(told(EXAMPLE, COMMITTED.root), used(EXAMPLE))


@dataclass(frozen=True, slots=True)
class Step:
    """kind: absorb, challenges or indices. item: what is absorbed; count and bound: of what is drawn."""

    kind: str
    label: str
    item: bytes = b""
    count: int = 0
    bound: int = 0


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """What the verifier says to its transcript about an honest proof."""
    steps = list[Step]()
    absorb, challenges, indices = Transcript.absorb, Transcript.challenges, Transcript.indices

    def hear(self: Transcript, label: str, item: bytes) -> None:
        steps.append(Step("absorb", label, bytes(item)))
        absorb(self, label, item)

    def draw(self: Transcript, label: str, count: int) -> np.ndarray:
        steps.append(Step("challenges", label, count=count))
        return challenges(self, label, count)

    def places(self: Transcript, label: str, count: int, bound: int) -> list[int]:
        steps.append(Step("indices", label, count=count, bound=bound))
        return indices(self, label, count, bound)

    monkeypatch.setattr(Transcript, "absorb", hear)
    monkeypatch.setattr(Transcript, "challenges", draw)
    monkeypatch.setattr(Transcript, "indices", places)
    verify(EXAMPLE.circuit, EXAMPLE.public, PROOF, root=COMMITTED.root)
    monkeypatch.undo()
    return steps


def drawn(steps: list[Step]) -> list[object]:
    """What a transcript draws when it hears these steps; None for what it hears."""
    transcript, found = Transcript(steps[0].item.decode(errors="replace")), list[object]([None])
    for step in steps[1:]:
        if step.kind == "absorb":
            transcript.absorb(step.label, step.item)
            found.append(None)
        elif step.kind == "challenges":
            found.append(transcript.challenges(step.label, step.count).tobytes())
        else:
            found.append(transcript.indices(step.label, step.count, step.bound))
    return found


def test_the_statement_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = recorded(monkeypatch)
    first = next(i for i, step in enumerate(steps) if step.kind != "absorb")
    said = {step.label: step.item for step in steps[:first]}
    labels = ["protocol", "version", "field", "circuit", "commitment shape", "weights", "public", "witness"]
    assert list(said) == labels
    assert said["circuit"] == circuit_digest(EXAMPLE.circuit)
    assert said["weights"] == COMMITTED.root
    assert said["public"] == arrays_digest(EXAMPLE.public)
    assert said["witness"] == decode(PROOF)["root"]


def test_every_message_is_absorbed_before_what_depends_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The absorbed bytes, joined, are the proof's blobs in the protocol's order; only what a root binds is left out."""
    steps, value = recorded(monkeypatch), decode(PROOF)
    heard = {step.label: b"".join(s.item for s in steps if s.label == step.label) for step in steps}
    sides, rounds = value["fractions"]
    output, sums, factors = value["identities"]
    assert heard["fraction sides"] == sides
    pairs = [(a.item, b.item) for a, b in pairwise(steps) if a.label == "fraction round value"]
    assert b"".join(a + b for a, b in pairs) == rounds
    assert (heard["identity output"], heard["identity round"], heard["identity factors"]) == (output, sums, factors)
    opened = value["opened"]
    assert heard["opening share"] + heard["opening value"] == b"".join(
        [*(part[0][:16] for part in opened), *(part[0][16:] for part in opened)]
    )
    assert heard["opening round"] == b"".join(part[1] for part in opened)
    assert heard["opening row"] == b"".join(part[2] for part in opened)
    for step, after in pairwise(steps):
        if step.label in ("fraction round top", "identity round", "opening round") and step.kind == "absorb":
            assert (after.kind, after.label.split()[0]) == ("challenges", step.label.split()[0])


def test_changing_any_item_changes_all_later_challenges(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = recorded(monkeypatch)
    honest = drawn(steps)
    for at, step in enumerate(steps):
        if step.kind != "absorb" or not step.item:
            continue
        middle = len(step.item) // 2
        bent = step.item[:middle] + bytes([step.item[middle] ^ 1]) + step.item[middle + 1 :]
        others = drawn([*steps[:at], Step("absorb", step.label, bent), *steps[at + 1 :]])
        for place, (one, other) in enumerate(zip(honest, others, strict=True)):
            assert one is None or (one == other) == (place < at)


def test_moving_or_dropping_an_item_changes_all_later_challenges(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = recorded(monkeypatch)
    honest = drawn(steps)
    for at in range(1, len(steps) - 1):
        if steps[at].kind == steps[at + 1].kind == "absorb" and steps[at] != steps[at + 1]:
            swapped = drawn([*steps[:at], steps[at + 1], steps[at], *steps[at + 2 :]])
            assert swapped[-1] != honest[-1]
        if steps[at].kind == "absorb":
            assert drawn([*steps[:at], *steps[at + 1 :]])[-1] != honest[-1]
