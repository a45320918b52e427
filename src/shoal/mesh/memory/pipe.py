"""One direction of a link: who sends next when bandwidth is short, and when what was sent arrives."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

from shoal.mesh.memory.network import Conditions, Host, Network

RETRY_S = 0.2
"""Before a packet that found no way is sent again; QUIC's first probe timeout is about that on a WAN."""


@dataclass(frozen=True, slots=True)
class Route:
    """The hosts a packet passes: two, or three through a relay."""

    hosts: tuple[Host, ...]

    def is_open(self, network: Network) -> bool:
        return all(network.reaches(one, other) for one, other in self._hops())

    def conditions(self, network: Network) -> Conditions:
        hops = [network.conditions(one, other) for one, other in self._hops()]
        return Conditions(
            sum(hop.delay_s for hop in hops),
            1 - math.prod(1 - hop.loss for hop in hops),
            min(hop.bytes_per_s for hop in hops),
        )

    def reversed(self) -> Route:
        return Route(self.hosts[::-1])

    def _hops(self) -> list[tuple[Host, Host]]:
        return list(itertools.pairwise(self.hosts))


class Pipe:
    """Packets leave by priority, one at a time at the route's bandwidth; a lost one is sent again later."""

    def __init__(self, network: Network, route: Route) -> None:
        self.route = route
        self.lost = 0
        self._network = network
        self._queue: list[tuple[int, int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._is_busy = False
        self._is_closed = False

    def send(self, size: int, priority: int, arrive: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (-priority, next(self._order), size, arrive))
        if not self._is_busy:
            self._next()

    def close(self) -> None:
        """What has not left never will."""
        self._is_closed = True
        self._queue.clear()

    def _next(self) -> None:
        while self._queue:
            _, _, size, arrive = heapq.heappop(self._queue)
            seconds = size / self.route.conditions(self._network).bytes_per_s
            self._leave(arrive)
            if seconds > 0:
                self._is_busy = True
                self._network.agenda.after(seconds, self._free)
                return

    def _free(self) -> None:
        self._is_busy = False
        self._next()

    def _leave(self, arrive: Callable[[], None]) -> None:
        conditions = self.route.conditions(self._network)
        if not self.route.is_open(self._network):
            if not self._is_closed:
                self._network.agenda.after(RETRY_S, lambda: self._leave(arrive))
        elif conditions.loss and self._network.random.random() < conditions.loss:
            self.lost += 1
            self._network.agenda.after(2 * conditions.delay_s + 0.01, lambda: self._leave(arrive))
        else:
            self._network.agenda.after(conditions.delay_s, arrive)
