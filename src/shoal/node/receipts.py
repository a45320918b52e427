"""A node that signs: the sealer around what answers here, peers' receipts on their way in, and the service's words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from shoal.core.chunk import Chunk
from shoal.core.clock import Clock
from shoal.core.errors import InvalidRequest, Overloaded, RemoteError
from shoal.core.receipt import ModelIdentity, Signed
from shoal.core.receipt_view import Receipts, ReceiptStats, ReceiptView, Verification
from shoal.core.request import Request
from shoal.core.seams import Generate
from shoal.core.service import Service
from shoal.fleet.provider import Provider
from shoal.mesh.peer_id import PeerId
from shoal.node.config import NodeConfig
from shoal.node.mesh_home import MeshHome
from shoal.node.receipt_text import part_in_words
from shoal.trust.accept import accepting
from shoal.trust.chain import check_chain
from shoal.trust.file import from_json, to_json
from shoal.trust.inspect import inspect, signer
from shoal.trust.seal import Sealer
from shoal.trust.shelf import Shelf

FOLDER = "receipts"
MAX_VERIFYING = 8
"""Of somebody's receipts: looked at, or waiting for it."""
Identity = Callable[[Request], ModelIdentity]
Verdicts = Callable[[str], Sequence[str]]
"""(request id) -> what checks of that answer found, in words, latest last."""


def name_alone(request: Request) -> ModelIdentity:
    """Of a node that computes nothing itself."""
    return ModelIdentity(request.model)


@dataclass(slots=True)
class Signing:
    """`refused` counts receipts of peers that did not hold. Whoever checks answers replaces `verdicts` and `audits`."""

    sealer: Sealer
    refused: int = 0
    verdicts: Verdicts = field(default=lambda request_id: ())
    audits: Callable[[], Mapping[str, int]] = dict
    verifying: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def service(self, service: Service) -> Service:
        """`service` with signed answers."""
        words = Receipts(self.stats, to_json, self.find, self.verify)
        return replace(service, generate=self.sealer.sealed(service.generate), receipts=words)

    def for_peers(self, generate: Generate) -> Generate:
        return self.sealer.sealed_for_peers(generate)

    def provider(self, provider: Provider, distrust: Callable[[str, str], None]) -> Provider:
        """A peer whose receipts are looked at, an upstream that is not asked for one; `distrust`(name, reason)."""
        if provider.kind == "upstream":
            return replace(provider, generate=_unsigned(provider.generate))
        if provider.kind == "peer":

            def blame(reason: str) -> None:
                self.refused += 1
                distrust(provider.name, reason)

            return replace(provider, generate=_accepting(provider, blame))
        return provider

    def stats(self) -> ReceiptStats:
        return ReceiptStats(self.sealer.policy, self.sealer.signed, self.refused, self.audits())

    async def find(self, name: str) -> ReceiptView | None:
        receipt = await asyncio.to_thread(self.sealer.shelf.find, name)
        if receipt is None:
            return None
        signed = Signed(receipt, self.sealer.openings.get(receipt.request_id))
        return replace(view(signed), verdicts=tuple(self.verdicts(receipt.request_id)))

    async def verify(self, pairs: Sequence[tuple[str, str | None]]) -> Verification:
        """One after the other: a large opening takes seconds and a hundred megabytes. Overloaded beyond a few."""
        if self.verifying >= MAX_VERIFYING:
            raise Overloaded("receipts of others are looked at now", 2.0)
        self.verifying += 1
        try:
            async with self.turn:
                return await asyncio.to_thread(verified, pairs)
        finally:
            self.verifying -= 1


@contextmanager
def open_signing(config: NodeConfig, clock: Clock, identity: Identity) -> Iterator[Signing]:
    """With this node's key and chain. BadConfig where they cannot be used."""
    key, shelf = MeshHome(config.home).identity().key, Shelf(receipts_folder(config.home))
    try:
        yield Signing(Sealer(key, shelf, clock, identity, config.receipts))
    finally:
        shelf.close()


def receipts_folder(home: Path) -> Path:
    return home / FOLDER


def verified(pairs: Sequence[tuple[str, str | None]]) -> Verification:
    """InvalidRequest for what is no receipt; several are looked at as a chain too."""
    found: list[Signed] = []
    for place, (receipt, opening) in enumerate(pairs):
        try:
            found.append(from_json({"receipt": receipt} | ({} if opening is None else {"opening": opening})))
        except RemoteError as error:
            raise InvalidRequest(f"receipt number {place + 1}: {error}", "receipt") from error
    views = tuple(view(signed) for signed in found)
    chain = tuple(check_chain(signed.receipt for signed in found)) if len(found) > 1 else ()
    return Verification(all(item.valid for item in views) and not chain, views, chain)


def view(signed: Signed) -> ReceiptView:
    """A receipt in words, as far as it can be judged by itself."""
    receipt, inspection, texts = signed.receipt, inspect(signed), to_json(signed)
    return ReceiptView(
        id=f"{signer(receipt)}/{receipt.sequence}",
        request_id=receipt.request_id,
        node=signer(receipt),
        sequence=receipt.sequence,
        created=receipt.created,
        model=receipt.model.name,
        weights=receipt.model.weights.hex(),
        valid=inspection.is_valid,
        holds=inspection.holds,
        problems=inspection.problems,
        parts=tuple(part_in_words(part) for part in receipt.parts),
        receipt=texts["receipt"],
        opening=texts.get("opening"),
    )


def _accepting(provider: Provider, blame: Callable[[str], None]) -> Generate:
    def answer(request: Request) -> AsyncIterator[Chunk]:
        return accepting(provider.generate, PeerId.parse(provider.name).key, blame)(request)

    return answer


def _unsigned(generate: Generate) -> Generate:
    return lambda request: generate(replace(request, receipt=False))
