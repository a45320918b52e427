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
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from shoal.core.clock import SystemClock
from shoal.core.errors import BadConfig, BadWeights, LocalError, Unavailable
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

MAX_WRONG = 3
"""Files fetched that turned out to be others, before it is given up."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model by its name; `sha256` of its file where the catalogue pins one, and its size, else 0.

    source  goes into its record.
    """

    name: str
    sha256: str
    size_bytes: int
    source: str
    licence: str | None


def wanted(text: str) -> Wanted:
    """What the user means: a catalogue name, or any name that peers use."""
    if entry := find(text):
        return Wanted(entry.name, entry.source.member_sha256, entry.source.member_size_bytes, entry.name, entry.licence)
    name = check_name(text)
    return Wanted(name, "", 0, f"mesh:{name}", None)


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
        found = _fetch_right(config, model, job, progress)
        try:
            return _commit(store, staging, model, name, arrived, found)
        except OSError as error:
            raise LocalError(f"{error.filename or staging} cannot be written: {error.strerror}; make room") from error


def _fetch_right(config: NodeConfig, model: Wanted, job: Job, progress: Progress) -> ModelFile:
    """The file whose hash is the one that was pinned, or told. Who told a hash and holds another file costs one
    download: the next try is without that blob. BadWeights when MAX_WRONG were wrong."""
    wish, wrong = Wish(model.name, model.sha256, model.size_bytes), ""
    while len(wish.avoid) < MAX_WRONG:
        try:
            found = asyncio.run(_fetch(config, wish, job))
        except Unavailable:
            if wrong:
                break  # nobody has another file of that name
            raise
        with job.path.open("rb") as file:
            wrong = copy(file, None, offset(progress, "check", 0, job.path.stat().st_size))
        expected = model.sha256 or found.sha256
        if wrong == expected:
            return found
        job.path.unlink()
        wish = replace(wish, avoid=wish.avoid | {found.blob})
    raise BadWeights(job.name, "sha256", expected, f"{wrong}; the peers that have it hold another file")


def _commit(store: Store, staging: Path, model: Wanted, name: str, arrived: Path, found: ModelFile) -> Record:
    size, sha256 = arrived.stat().st_size, model.sha256 or found.sha256
    built = staging / "built"
    shutil.rmtree(built, ignore_errors=True)
    built.mkdir()
    file_name = _plain(found.file, name)
    os.replace(arrived, built / file_name)
    terms = model.licence if model.licence else licence(built / file_name)
    record = Record(name, "gguf", file_name, model.source, sha256, size, terms, SystemClock().wall())
    store.commit(staging, built, record)
    return record


async def _fetch(config: NodeConfig, wish: Wish, job: Job) -> ModelFile:
    """By the node that runs with this home, where it is in the mesh that is meant; else by one of our own."""
    clock, home = SystemClock(), MeshHome(config.home)
    running = home.ticket()
    tickets = read_tickets(config.tickets, clock.wall())
    if running is not None and {parse_ticket(running, clock.wall()).secret} >= {ticket.secret for ticket in tickets}:
        found = await hand_over(home, wish, job, tuple(map(str, tickets)))
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
        return await search.fetch(wish, job)


def _plain(file: str, name: str) -> str:
    """A peer's word for a file, as far as it is a plain name."""
    plain = PurePath(file).name
    is_plain = plain == file and plain.endswith(".gguf") and not plain.startswith(".") and plain.isprintable()
    return plain if is_plain else f"{name}.gguf"


def _reporting(progress: Progress) -> Callable[[int, int], None]:
    return lambda done, size: progress("fetch", done, size)
