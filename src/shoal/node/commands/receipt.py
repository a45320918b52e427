"""`shoal receipt show | verify | list`: who answers for an answer. Exit codes: 0 valid, 1 invalid, 2 unreadable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.core.errors import BadConfig, InvalidRequest
from shoal.node.config_sources import Loaded
from shoal.node.flags import configured
from shoal.node.terminal import write, write_json, write_table

if TYPE_CHECKING:
    from shoal.core.receipt import Signed
    from shoal.trust.file import Shown
    from shoal.trust.inspect import Inspection

app = typer.Typer(help="Look at receipts: who answers for an answer, and whether it was changed.", no_args_is_help=True)

INVALID = 1
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="An answer with its receipt, or a receipt; - is standard input.")
]


@app.command("show")
@configured()
def show(
    loaded: Loaded,
    file: Annotated[Path, typer.Argument(help="An answer with its receipt, or a receipt; - is standard input.")],
    as_json: AsJson = False,
) -> None:
    """What a receipt says, in words. It is not judged: `verify` does that."""
    from shoal.node.receipt_text import as_plain, describe

    for shown in _read(file):
        if as_json:
            write_json(as_plain(shown.signed))
        else:
            write("".join(f"{line}\n" for line in describe(shown.signed)))


@app.command("verify")
@configured()
def verify(
    loaded: Loaded,
    files: Files,
    chain: Annotated[bool, typer.Option("--chain", help="They are all a node signed in a row: none may lack.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check signature, structure and, where an opening is there, that request and answer are those that were signed.

    Neither network nor model is needed. Whether the named model really made the answer takes `shoal check`.
    """
    from shoal.trust.chain import check_chain
    from shoal.trust.inspect import inspect

    found = [(file, shown) for file in files for shown in _read(file)]
    judged = [(file, shown.signed, inspect(shown.signed).and_also(shown.problems)) for file, shown in found]
    problems = check_chain(shown.signed.receipt for _, shown in found) if chain else []
    is_valid = not problems and all(inspection.is_valid for _, _, inspection in judged)
    if as_json:
        write_json({"valid": is_valid, "receipts": [_plain(*item) for item in judged], "chain": problems})
    else:
        for item in judged:
            _tell(*item)
        for problem in problems:
            write(f"chain: {problem}\n")
        if chain and not problems:
            different = {shown.signed.receipt.signature for _, shown in found}
            write(f"chain: {len(different)} receipts follow each other\n")
    if not is_valid:
        raise typer.Exit(INVALID)


@app.command("list")
@configured()
def list_receipts(
    loaded: Loaded,
    count: Annotated[int, typer.Option("--last", min=1, max=10_000, help="How many, the newest ones.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Receipts this node signed, and whether its chain is whole on the disk."""
    from shoal.node.mesh_home import MeshHome
    from shoal.node.receipt_text import COLUMNS, plain_row, row
    from shoal.node.receipts import receipts_folder
    from shoal.trust.shelf import Shelf

    folder = receipts_folder(loaded.config.home)
    if not (folder / "chain.sqlite").exists():
        write("this node has signed nothing yet\n")
        return
    shelf = Shelf(folder)
    try:
        receipts, problems = shelf.newest(count), shelf.problems(MeshHome(loaded.config.home).identity().key.public)
    finally:
        shelf.close()
    if as_json:
        write_json({"receipts": [plain_row(item) for item in receipts], "chain": problems})
    else:
        write_table(COLUMNS, [row(item) for item in receipts])
        for problem in problems:
            write(f"chain: {problem}\n")
    if problems:
        raise typer.Exit(INVALID)


def _read(file: Path) -> list[Shown]:
    from shoal.trust.file import read_answers

    try:
        return read_answers(file)
    except InvalidRequest as error:
        raise BadConfig("receipt", str(error)) from error


def _tell(file: Path, signed: Signed, inspection: Inspection) -> None:
    from shoal.core.text import plain
    from shoal.node.receipt_text import part_in_words

    name = plain(signed.receipt.request_id) or "?"
    write(f"{file}: {'valid' if inspection.is_valid else 'INVALID'} ({name})\n")
    for line in inspection.problems:
        write(f"  ✗ {plain(line)}\n")
    for line in inspection.holds:
        write(f"  ✓ {plain(line)}\n")
    for part in signed.receipt.parts:
        write(f"  · {plain(part_in_words(part))}\n")


def _plain(file: Path, signed: Signed, inspection: Inspection) -> dict[str, Any]:
    return {
        "file": str(file),
        "request_id": signed.receipt.request_id,
        "sequence": signed.receipt.sequence,
        "valid": inspection.is_valid,
        "holds": inspection.holds,
        "problems": inspection.problems,
    }
