"""Who verifies, and where: drawn by the verifiable random function from the receipt, so that neither side can choose.

    alpha      = receipt's digest, candidates, how many are drawn, how many positions
    value      = vrf(drawer's key, alpha)           proof goes to every verifier
    verifiers  = the first k of candidates shuffled by value; positions likewise, sorted

The answerer has signed its receipt before the value exists; the drawer has one value for each list of candidates.

What this does not protect against: a drawer that leaves candidates out of the list it draws from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from shoal.core.decoding import compact
from shoal.core.encoding import digest, encode
from shoal.core.errors import InvalidRequest
from shoal.core.request import Request
from shoal.crypto.hashes import hasher
from shoal.crypto.keys import PrivateKey
from shoal.trust import vrf
from shoal.trust.check_rerun import Question
from shoal.trust.distribution import MAX_POSITIONS, MAX_RANKS

MAX_CANDIDATES = 1024
MAX_DRAWN = 32
_STREAM = "shoal audit draw v1"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Task:
    """What every verifier of one answer is asked, the same bytes for all.

    receipt     digest of the answer's receipt; answerer its signer, who is asked too.
    weights, adapter  digests of the model that is said to have answered.
    num_drawn   of `candidates`, sorted public keys; `proof` by the drawer's key.
    """

    receipt: bytes
    answerer: bytes
    weights: bytes
    request: Request
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    begins: int
    choice: int
    num_positions: int
    num_ranks: int
    num_drawn: int
    candidates: tuple[bytes, ...]
    proof: bytes = b""
    adapter: bytes = b""

    @property
    def question(self) -> Question:
        return Question(self.request, self.prompt, self.tokens, self.begins, self.choice)

    @property
    def digest(self) -> bytes:
        return digest(compact(self))

    @property
    def alpha(self) -> bytes:
        numbers = [self.num_drawn, self.num_positions, self.choice]
        return encode([self.receipt, list(self.candidates), *numbers])


@dataclass(frozen=True, slots=True)
class Drawn:
    """Public keys of the verifiers, and positions among the answer's tokens, rising."""

    verifiers: tuple[bytes, ...]
    positions: tuple[int, ...]


def prove(task: Task, key: PrivateKey) -> bytes:
    """The task's proof."""
    return vrf.prove(key, task.alpha)


def drawn(task: Task, drawer: bytes) -> Drawn:
    """Who and where. InvalidRequest for a task whose draw is not the drawer's, or whose numbers make no sense."""
    check_task(task)
    value = vrf.verify(drawer, task.proof, task.alpha)
    if value is None:
        raise InvalidRequest("expected a draw proven by whoever asks, found another", "proof")
    own = range(task.begins, len(task.tokens))
    return Drawn(
        tuple(_sample(value, "verifiers", task.candidates, task.num_drawn)),
        tuple(sorted(_sample(value, "positions", own, min(task.num_positions, len(own))))),
    )


def check_task(task: Task) -> None:
    keys = task.candidates
    is_listed = 0 < len(keys) <= MAX_CANDIDATES and all(len(key) == 32 for key in keys)
    if not is_listed or list(keys) != sorted(set(keys)) or task.answerer in keys:
        raise InvalidRequest("expected candidates sorted, each once, without the answerer", "candidates")
    if not 0 < task.num_drawn <= min(MAX_DRAWN, len(keys)):
        raise InvalidRequest(f"expected 1 to {MAX_DRAWN} of the candidates, found {task.num_drawn}", "num_drawn")
    if not 0 < task.num_positions <= MAX_POSITIONS or not 0 < task.num_ranks <= MAX_RANKS:
        raise InvalidRequest(f"expected up to {MAX_POSITIONS} positions and {MAX_RANKS} ranks", "num_positions")
    if not task.prompt or not 0 <= task.begins < len(task.tokens) or not 0 <= task.choice < 2**16:
        raise InvalidRequest("expected a prompt and tokens that somebody chose", "tokens")


def _sample(value: bytes, purpose: str, items: Sequence[T], count: int) -> list[T]:
    """`count` different items: Fisher and Yates with words of 64 bits, whose bias is below 2^-50."""
    stream = hasher(f"{_STREAM} {purpose}")
    stream.update(value)
    words = stream.digest(length=8 * count)
    left = list(items)
    taken = []
    for place in range(count):
        word = int.from_bytes(words[8 * place : 8 * place + 8], "big")
        taken.append(left.pop(word % len(left)))
    return taken
