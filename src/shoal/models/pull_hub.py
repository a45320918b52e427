"""Weights from a model hub, through `huggingface_hub` (its settings apply: HF_TOKEN, HF_ENDPOINT, proxies).

Only data is fetched: safetensors, JSON, tokenizers, templates, or one GGUF file. Pickles never are.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shoal.core.errors import BadConfig, BadWeights, LocalError
from shoal.models.catalogue import HubSource
from shoal.models.describe import check_container
from shoal.models.digest import Progress, copy
from shoal.models.store import FOLDER_SUFFIXES


def fetch_hub(source: HubSource, built: Path, progress: Progress) -> str:
    """Download into `built`, check each file against the hub's own SHA-256 and return the file's or folder's name."""
    from huggingface_hub import HfApi

    with _explained(source):
        info = HfApi().model_info(source.repo, revision=source.revision, files_metadata=True)
    siblings = {item.rfilename: item for item in info.siblings or ()}
    names = _choose(source, list(siblings))
    total, done = sum(siblings[name].size or 0 for name in names), 0
    target = built / "folder" if source.file is None else built
    for name in names:
        progress(name, done, total)
        _download(source, info.sha, name, target)
        _check(target / name, siblings[name])
        done += siblings[name].size or 0
    progress(source.repo, done, total)
    shutil.rmtree(target / ".cache", ignore_errors=True)
    check_container(target / source.file if source.file else target)
    return source.file or "folder"


def _choose(source: HubSource, names: list[str]) -> list[str]:
    """The files to fetch. BadConfig lists the GGUF files there are when none or a wrong one was named."""
    ggufs = [name for name in names if name.endswith(".gguf")]
    if source.file is not None:
        if source.file not in ggufs:
            raise BadConfig("model", f"hf:{source.repo} has no GGUF file {source.file!r}; it has: {_listed(ggufs)}")
        return [source.file]
    chosen = [name for name in names if "/" not in name and name.endswith(FOLDER_SUFFIXES)]
    if not any(name.endswith(".safetensors") for name in chosen):
        raise BadConfig("model", f"hf:{source.repo} has no safetensors; name a GGUF file of it: {_listed(ggufs)}")
    return chosen


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"


def _download(source: HubSource, commit: str | None, name: str, target: Path) -> None:
    from huggingface_hub import hf_hub_download

    with _explained(source):
        hf_hub_download(source.repo, name, revision=commit or source.revision, local_dir=target)


def _check(path: Path, sibling: Any) -> None:
    """Large files carry a SHA-256 on the hub, small ones only a size."""
    if sibling.size is not None and (found := path.stat().st_size) != sibling.size:
        raise BadWeights(path.name, "size", f"{sibling.size:,} bytes", f"{found:,}")
    expected = sibling.lfs.sha256 if sibling.lfs else None
    with path.open("rb") as file:
        digest = copy(file, None, lambda done: None) if expected else None
    if digest != expected:
        raise BadWeights(path.name, "sha256", str(expected), str(digest))


@contextmanager
def _explained(source: HubSource) -> Iterator[None]:
    """One sentence for the person instead of a stack of HTTP libraries."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    where = f"hf:{source.repo}@{source.revision}"
    try:
        yield
    except GatedRepoError as error:
        raise LocalError(f"{where} is gated: accept its terms on its page, then set HF_TOKEN") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise LocalError(f"{where} does not exist, or is private and needs HF_TOKEN") from error
    except Exception as error:  # whatever the HTTP library of the day raises
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LocalError(f"the model hub cannot be reached for {where}: {reason[:300]}") from error
