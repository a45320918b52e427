"""Finding a model among peers, and fetching its file from those that have it, over the parts of a running mesh."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shoal.core.errors import ShoalError, Unavailable
from shoal.mesh.address import Address
from shoal.mesh.calls import CallOptions
from shoal.mesh.content import Fetcher, Ground, Job, Transfers
from shoal.mesh.peer_id import PeerId
from shoal.models.store import Store
from shoal.node.mesh_parts import Parts
from shoal.node.model_shelf import FIND, ModelFile, blob_topic, find_bytes, name_topic, parse_found

FIND_S = 15.0
MAX_ASKED = 32


@dataclass(frozen=True, slots=True)
class Wish:
    """A model by its name; `sha256` and size of its file where the catalogue pins them, else nothing.

    avoid  blobs that were fetched and turned out to be another file.
    """

    name: str
    sha256: str
    size_bytes: int = 0
    avoid: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Search:
    """`seeds`: addresses to ask besides the peers that are linked and known already."""

    parts: Parts
    seeds: tuple[Address, ...]
    transfers: Transfers

    async def fetch(self, wish: Wish, job: Job) -> ModelFile:
        """`job` without its blob, which is found here. Unavailable when nobody has it."""
        for seed in self.seeds:
            self.parts.switchboard.learn(seed, "ticket")
        answers = await self._ask(self._near(), wish)
        if not answers:
            if self.seeds:
                with contextlib.suppress(ShoalError):
                    await self.parts.dht.bootstrap(self.seeds[:8])
            answers = await self._ask(await self._listed(name_topic(wish.name)), wish)
        chosen = choose(answers.values(), wish)
        if chosen is None:
            raise Unavailable(f"no peer found shares {wish.name!r}; is one started with --share?")
        known = [peer for peer, files in answers.items() if any(file.blob == chosen.blob for file in files)]

        async def providers(blob: bytes) -> Sequence[PeerId]:
            return list(dict.fromkeys((*known, *await self._listed(blob_topic(blob)))))

        ground = Ground(self.parts.rpc, self.parts.clock, providers, transfers=self.transfers)
        await Fetcher(ground).fetch(replace(job, blob=chosen.blob, size_bytes=chosen.size_bytes))
        return chosen

    def _near(self) -> list[PeerId]:
        """Peers of tickets first, then those linked now, then other members."""
        linked = [report.peer for report in self.parts.switchboard.snapshot() if report.link is not None]
        members = [member.peer for member in self.parts.gossip.members() if member.is_present]
        return [*(seed.peer for seed in self.seeds), *linked, *members]

    async def _ask(self, peers: Iterable[PeerId], wish: Wish) -> dict[PeerId, tuple[ModelFile, ...]]:
        """What each peer that answers has of a model; only those that have it."""
        asked = [peer for peer in dict.fromkeys(peers) if peer != self.parts.me][:MAX_ASKED]
        answers = await asyncio.gather(*(self._ask_one(peer, wish) for peer in asked))
        return {peer: files for peer, files in zip(asked, answers, strict=True) if files}

    async def _ask_one(self, peer: PeerId, wish: Wish) -> tuple[ModelFile, ...]:
        body = find_bytes(wish.name, wish.sha256)
        try:
            return parse_found(await self.parts.rpc.call(peer, FIND, body, CallOptions(timeout_s=FIND_S)))
        except ShoalError:
            return ()

    async def _listed(self, topic: bytes) -> list[PeerId]:
        """Peers that the directory names, with an address for each."""
        found = list[PeerId]()
        with contextlib.suppress(ShoalError):
            for record in (await self.parts.dht.providers(topic))[:MAX_ASKED]:
                if record.author == self.parts.me:
                    continue
                if (address := await self.parts.dht.resolve(record.author)) is not None:
                    self.parts.switchboard.learn(address, "dht")
                    found.append(record.author)
        return found


def choose(answers: Iterable[tuple[ModelFile, ...]], wish: Wish) -> ModelFile | None:
    """The file with the pinned hash and size, or without them the file that most peers have."""
    files = [file for some in answers for file in some if _fits(file, wish)]
    votes = Counter(file.blob for file in files)
    return max(files, key=lambda file: (votes[file.blob], file.blob), default=None)


def _fits(file: ModelFile, wish: Wish) -> bool:
    is_pinned = file.sha256 == wish.sha256 and wish.size_bytes in (0, file.size_bytes)
    return file.blob not in wish.avoid and (is_pinned or not wish.sha256)


def arriving(store: Store, name: str) -> Path:
    """Where the file of the model to be stored as `name` grows, under the lock of `Store.staging`."""
    return store.staging_directory(name) / "weights"


def older(store: Store, name: str) -> tuple[Path, ...]:
    """Files here that may hold pieces of it."""
    present = store.record(name)
    is_file = present is not None and present.format == "gguf"
    return (store.directory(name) / present.file,) if present is not None and is_file else ()
