"""What each peer may take of this machine: who is served at all, how much at once, how many tokens a minute.

Pure: `now` is an argument. The owner's own requests never pass here, so nothing a peer does is counted against them;
peers' requests run at a priority below every local one, and among peers those that gave more go first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from shoal.core.errors import InvalidRequest, Overloaded, Unauthorized
from shoal.mesh.peer_id import PeerId

Sharing = Literal["private", "listed", "swarm", "public"]
"""Who is served: nobody, peers on the list, members of our private swarm, or everybody."""

PEER_PRIORITY = 500
"""Added to a peer's requests: with the scheduler's ageing a local request overtakes hours of waiting peers."""
DEBT_STEP_TOKENS = 10_000
MAX_DEBT_LEVELS = 400
MAX_ACCOUNTS = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """`listed` peers are served under every mode but "private". Rates are tokens, prompt and answer together."""

    sharing: Sharing = "private"
    listed: frozenset[PeerId] = frozenset()
    max_concurrent: int = 4
    max_concurrent_total: int = 16
    tokens_per_minute: float = 60_000.0


@dataclass(slots=True)
class Account:
    """`given` tokens we made for the peer, `received` tokens it made for us, `budget` what it may still take now."""

    budget: float
    updated: float
    running: int = 0
    given: int = 0
    received: int = 0


class Accounts:
    """Accounts of peers that were never served are forgotten first when there are too many."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._accounts: OrderedDict[PeerId, Account] = OrderedDict()
        self._running = 0

    def admit(self, peer: PeerId, is_member: bool, now: float) -> int:
        """Begin a request of `peer`; the priority it gets. Unauthorized or Overloaded. Each needs one `settle`."""
        self.check_consent(peer, is_member)
        account = self._account(peer, now)
        if account.running >= self.limits.max_concurrent:
            raise Overloaded(f"you have {account.running} requests running here, the limit for a peer", 1.0)
        if self._running >= self.limits.max_concurrent_total:
            raise Overloaded("this node is busy with other peers' requests", 1.0)
        if account.budget <= 0:
            wait_s = -account.budget / self.limits.tokens_per_minute * 60.0 + 1.0
            raise Overloaded(f"you used up {self.limits.tokens_per_minute:.0f} tokens a minute", wait_s)
        account.running += 1
        self._running += 1
        return PEER_PRIORITY + self._debt_levels(account)

    def occupy(self, peer: PeerId, more: int) -> None:
        """So many seats more for a request that was admitted: one for each choice. Overloaded, InvalidRequest."""
        account, limits = self._accounts[peer], self.limits
        most = min(limits.max_concurrent, limits.max_concurrent_total)
        if more + 1 > most:
            raise InvalidRequest(f"n: expected at most {most} here, one for each seat a peer may take", "n")
        if more > 0 and (account.running + more > most or self._running + more > limits.max_concurrent_total):
            raise Overloaded(f"you have {account.running} answers running here; {more} more are too many", 1.0)
        account.running += more
        self._running += more

    def settle(self, peer: PeerId, num_tokens: int, now: float, seats: int = 1) -> None:
        """The request ended, having cost so many tokens and held so many seats."""
        account = self._account(peer, now)
        account.running -= seats
        self._running -= seats
        account.given += num_tokens
        account.budget -= num_tokens

    def credit(self, peer: PeerId, num_tokens: int, now: float) -> None:
        """`peer` made so many tokens for us."""
        self._account(peer, now).received += num_tokens

    def get(self, peer: PeerId) -> Account | None:
        """None for one that never asked or answered."""
        return self._accounts.get(peer)

    def snapshot(self) -> dict[PeerId, Account]:
        return dict(self._accounts)

    def is_served(self, peer: PeerId, is_member: bool) -> bool:
        """Whether the owner consents to serve `peer` at all."""
        match self.limits.sharing:
            case "private":
                return False
            case "public":
                return True
            case "swarm" if is_member:
                return True
        return peer in self.limits.listed

    def check_consent(self, peer: PeerId, is_member: bool) -> None:
        """Unauthorized where the owner does not."""
        if self.limits.sharing == "private":
            raise Unauthorized("this node serves nobody but its owner (it was started without --share)")
        if not self.is_served(peer, is_member):
            raise Unauthorized(f"this node does not serve peer {peer.short}; it shares with: {self.limits.sharing}")

    def _account(self, peer: PeerId, now: float) -> Account:
        full = self.limits.tokens_per_minute
        account = self._accounts.get(peer)
        if account is None:
            account = self._accounts[peer] = Account(full, now)
            self._forget_idle()
        account.budget = min(full, account.budget + (now - account.updated) / 60.0 * full)
        account.updated = now
        self._accounts.move_to_end(peer)
        return account

    def _forget_idle(self) -> None:
        """Keep the number bounded: whoever makes identities for free pushes out others like it, not those who gave."""
        while len(self._accounts) > MAX_ACCOUNTS:
            idle = (peer for peer, account in self._accounts.items() if not account.running and not account.received)
            victim = next(idle, None)
            if victim is None:
                return
            del self._accounts[victim]

    def _debt_levels(self, account: Account) -> int:
        return min(MAX_DEBT_LEVELS, max(0, account.given - account.received) // DEBT_STEP_TOKENS)
