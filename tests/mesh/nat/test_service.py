import asyncio

from shoal.core.clock import VirtualClock
from shoal.core.encoding import encode
from shoal.mesh.address import Address
from shoal.mesh.calls import Body, CallOptions
from shoal.mesh.fakes import numbered
from shoal.mesh.nat.service import NatService
from shoal.mesh.peer_id import PeerId

PLAIN = CallOptions()


class Carrier:
    """What the service asks of the quic carrier, remembered."""

    def __init__(self) -> None:
        self.external: tuple[str, ...] = ()

    def address(self) -> Address:
        return Address(numbered(0), ("192.168.1.5:4000", *self.external))

    def bound(self) -> tuple[str, ...]:
        return ("0.0.0.0:4000",)

    async def set_external(self, endpoints: tuple[str, ...]) -> None:
        self.external = endpoints


class Observers:
    """A caller whose every peer sees the same address."""

    seen = "44.1.1.1:4000"

    async def call(self, peer: PeerId, method: str, body: Body, options: CallOptions = PLAIN) -> memoryview:
        return memoryview(encode(["quic", self.seen]))


def test_what_observers_agree_on_is_told_and_follows_changes() -> None:
    async def work() -> None:
        carrier, observers = Carrier(), Observers()
        service = NatService(carrier, observers, VirtualClock())  # type: ignore[arg-type]
        peers = tuple(numbered(n) for n in range(1, 9))
        for _ in range(2):
            nat = await service.refresh(peers)
            assert (nat.kind, carrier.external) == ("cone", ("44.1.1.1:4000",))
        observers.seen = "44.1.1.1:5000"
        await service.refresh(peers)
        assert carrier.external == ("44.1.1.1:5000",)
        steps = service.journal.steps()
        assert len(steps) == 3 * (3 + 1)  # three observers and a verdict each time
        assert all(step.is_good for step in steps)

    asyncio.run(work())


def test_a_router_without_the_service_is_noted_and_nothing_else() -> None:
    async def work() -> None:
        carrier = Carrier()
        service = NatService(carrier, Observers(), VirtualClock())  # type: ignore[arg-type]
        await service.map_port("127.0.0.1")
        assert carrier.external == ()
        assert not service.journal.steps()[-1].is_good

    asyncio.run(work())
