"""`shoal models pull M --from-mesh`: what peers have is fetched, checked and put into the store.

The node that runs with this home does the fetching (its console shows it), where it is in the mesh that is meant. Else
a node is started that lives as long as the download and joins by the tickets it is given, or with the peers of last
time; under a fresh identity while another runs here: a peer id is in one place at a time.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath

from shoal.core.clock import SystemClock
from shoal.core.errors import BadConfig, BadWeights, LocalError
from shoal.crypto.keys import PrivateKey
from shoal.mesh.content import Job, Transfers
from shoal.mesh.ticket import parse_ticket
from shoal.models.catalogue import check_name, find
from shoal.models.describe import licence
from shoal.models.digest import Progress, copy, offset
from shoal.models.store import Record, Store
from shoal.node.config import NodeConfig
from shoal.node.mesh_control import hand_over
from shoal.node.mesh_home import MeshHome, read_tickets
from shoal.node.mesh_parts import Place, mesh_parts
from shoal.node.mesh_search import Search, Wish, arriving, older
from shoal.node.model_shelf import ModelFile


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
        arrived = arriving(store, name)
        job = Job(b"", arrived, name, older(store, name), _reporting(progress))
        found = asyncio.run(_fetch(config, model, job))
        try:
            return _commit(store, staging, model, name, arrived, found, progress)
        except OSError as error:
            raise LocalError(f"{error.filename or staging} cannot be written: {error.strerror}; make room") from error


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
    """By the node that runs with this home, where it is in the mesh that is meant; else by one of our own."""
    clock, home = SystemClock(), MeshHome(config.home)
    running = home.ticket()
    tickets = read_tickets(config.tickets, clock.wall())
    if running is not None and {parse_ticket(running, clock.wall()).secret} >= {ticket.secret for ticket in tickets}:
        found = await hand_over(home, Wish(model.name, model.sha256), job, tuple(map(str, tickets)))
        if found is not None:
            return found
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
        search = Search(parts, tuple(dict.fromkeys(seeds)), Transfers(clock))
        return await search.fetch(Wish(model.name, model.sha256), job)


def _plain(file: str, name: str) -> str:
    """A peer's word for a file, as far as it is a plain name."""
    plain = PurePath(file).name
    is_plain = plain == file and plain.endswith(".gguf") and not plain.startswith(".") and plain.isprintable()
    return plain if is_plain else f"{name}.gguf"


def _reporting(progress: Progress) -> Callable[[int, int], None]:
    return lambda done, size: progress("fetch", done, size)
