"""`shoal models pull M --from-mesh`: a node that lives as long as the download, and puts what came into the store.

It joins by the tickets it is given, by that of the node running here, or with the peers of last time. While a node runs
under this home's identity, it takes a fresh one: a peer id is in one place at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from shoal.core.clock import SystemClock
from shoal.core.errors import BadConfig, BadWeights, ShoalError, Unavailable
from shoal.crypto.keys import PrivateKey
from shoal.mesh.address import Address
from shoal.mesh.calls import CallOptions
from shoal.mesh.content import Fetcher, Ground, Job
from shoal.mesh.peer_id import PeerId
from shoal.mesh.ticket import parse_ticket
from shoal.models.catalogue import check_name, find
from shoal.models.describe import licence
from shoal.models.digest import Progress, copy, offset
from shoal.models.store import Record, Store
from shoal.node.config import NodeConfig
from shoal.node.mesh_home import MeshHome
from shoal.node.mesh_parts import Parts, Place, mesh_parts
from shoal.node.model_shelf import FIND, ModelFile, blob_topic, find_bytes, name_topic, parse_found

FIND_S = 15.0
MAX_ASKED = 32


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model by its name; `sha256` of its file where the catalogue pins one. `source` goes into its record."""

    name: str
    sha256: str
    source: str
    licence: str | None


def wanted(text: str) -> Wanted:
    """What the user means: a catalogue name, or any name that peers use."""
    if entry := find(text):
        return Wanted(entry.name, entry.source.member_sha256, entry.name, entry.licence)
    name = check_name(text)
    return Wanted(name, "", f"mesh:{name}", None)


def pull_from_mesh(config: NodeConfig, model: Wanted, name: str, is_forced: bool, progress: Progress) -> Record:
    """Put `model` into the store as `name`. BadConfig without a mesh to ask or where the name is taken; Unavailable
    when no peer has it; BadWeights when what came is not what is pinned. What came stays for the next try."""
    store = Store(config.home)
    with store.staging(name) as staging:
        present = store.record(name)
        if present is not None and not is_forced:
            if present.source != model.source:
                raise BadConfig("name", f"{name!r} is in the store, from {present.source}; choose --name or --force")
            return present
        older = (store.directory(name) / present.file,) if present is not None and present.format == "gguf" else ()
        arrived = staging / "weights"
        found = asyncio.run(_fetch(config, model, Job(b"", arrived, name, older, _reporting(progress))))
        return _commit(store, staging, model, name, arrived, found, progress)


def _commit(
    store: Store, staging: Path, model: Wanted, name: str, arrived: Path, found: ModelFile, progress: Progress
) -> Record:
    size = arrived.stat().st_size
    with arrived.open("rb") as file:
        sha256 = copy(file, None, offset(progress, "check", 0, size))
    expected = model.sha256 or found.sha256
    if sha256 != expected:
        arrived.unlink()
        raise BadWeights(name, "sha256", expected, f"{sha256}; the peers that have it hold another file")
    built = staging / "built"
    shutil.rmtree(built, ignore_errors=True)
    built.mkdir()
    file_name = _plain(found.file, name)
    os.replace(arrived, built / file_name)
    terms = model.licence if model.licence else licence(built / file_name)
    record = Record(name, "gguf", file_name, model.source, sha256, size, terms, SystemClock().wall())
    store.commit(staging, built, record)
    return record


async def _fetch(config: NodeConfig, model: Wanted, job: Job) -> ModelFile:
    clock, home = SystemClock(), MeshHome(config.home)
    running = home.ticket()
    tickets = [parse_ticket(text, clock.wall()) for text in (*config.tickets, *([running] if running else []))]
    secrets = {ticket.secret for ticket in tickets}
    if len(secrets) > 1:
        raise BadConfig("tickets", "these tickets are of different swarms; ask one at a time")
    secret = secrets.pop() if secrets else home.own_secret()
    seeds = (*(address for ticket in tickets for address in ticket.bootstrap), *home.peers(secret, clock.wall()))
    if not seeds:
        raise BadConfig("tickets", "there is no mesh to ask: give --ticket, or start shoal up --share or shoal join")
    key = PrivateKey.generate() if running else home.identity().key
    relays = config.relays or tuple(dict.fromkeys(url for seed in seeds for url in seed.relays))[:4]
    async with mesh_parts(Place(key, config.mesh_host, 0, relays, secret), clock) as parts:
        parts.switchboard.start()
        return await _Search(parts, tuple(dict.fromkeys(seeds))).fetch(model, job)


@dataclass(frozen=True, slots=True)
class _Search:
    parts: Parts
    seeds: tuple[Address, ...]

    async def fetch(self, model: Wanted, job: Job) -> ModelFile:
        for seed in self.seeds:
            self.parts.switchboard.learn(seed, "ticket")
        near = [seed.peer for seed in self.seeds]
        answers = await self._ask(near, model)
        if not answers:
            with contextlib.suppress(ShoalError):
                await self.parts.dht.bootstrap(self.seeds[:8])
            answers = await self._ask(await self._listed(name_topic(model.name)), model)
        chosen = choose(answers.values(), model)
        if chosen is None:
            raise Unavailable(f"no peer found shares {model.name!r}; is one started with --share?")
        known = [peer for peer, files in answers.items() if any(file.blob == chosen.blob for file in files)]

        async def providers(blob: bytes) -> Sequence[PeerId]:
            return list(dict.fromkeys((*known, *await self._listed(blob_topic(blob)))))

        fetcher = Fetcher(Ground(self.parts.rpc, self.parts.clock, providers))
        await fetcher.fetch(Job(chosen.blob, job.path, job.name, job.older, job.on_bytes))
        return chosen

    async def _ask(self, peers: Iterable[PeerId], model: Wanted) -> dict[PeerId, tuple[ModelFile, ...]]:
        """What each peer that answers has of a model; only those that have it."""
        asked = [peer for peer in dict.fromkeys(peers) if peer != self.parts.me][:MAX_ASKED]
        answers = await asyncio.gather(*(self._ask_one(peer, model) for peer in asked))
        return {peer: files for peer, files in zip(asked, answers, strict=True) if files}

    async def _ask_one(self, peer: PeerId, model: Wanted) -> tuple[ModelFile, ...]:
        body = find_bytes(model.name, model.sha256)
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


def choose(answers: Iterable[tuple[ModelFile, ...]], model: Wanted) -> ModelFile | None:
    """The file with the pinned hash, or without one the file that most peers have."""
    files = [file for some in answers for file in some if not model.sha256 or file.sha256 == model.sha256]
    votes = Counter(file.blob for file in files)
    return max(files, key=lambda file: (votes[file.blob], file.blob), default=None)


def _plain(file: str, name: str) -> str:
    """A peer's word for a file, as far as it is a plain name."""
    plain = PurePath(file).name
    is_plain = plain == file and plain.endswith(".gguf") and not plain.startswith(".") and plain.isprintable()
    return plain if is_plain else f"{name}.gguf"


def _reporting(progress: Progress) -> Callable[[int, int], None]:
    return lambda done, size: progress("fetch", done, size)
