"""Where the tuned profile is, whom it is for, and how it enters the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.core.errors import BadConfig, ShoalError
from shoal.node.config import NodeConfig
from shoal.node.home import config_file
from shoal.plan.profile import FILE, Fingerprint, read_profile
from shoal.plan.space import TUNABLE

if TYPE_CHECKING:
    from shoal.models.store import Store


def profile_file(environment: Mapping[str, str]) -> Path:
    """Beside the configuration file."""
    return config_file(environment).parent / FILE


def profile_options(path: Path, config: NodeConfig) -> tuple[dict[str, Any], str | None]:
    """What the profile sets, and one line for the person where it is for another machine or model.

    `config` is the configuration without the profile. BadConfig: the file is no profile, or sets what none may.
    """
    profile = read_profile(path)
    if profile is None:
        return {}, None
    if alien := [name for name in profile.options if name not in TUNABLE]:
        raise BadConfig(f"{path}: {alien[0]}", f"a profile may set {', '.join(TUNABLE)}; delete it or tune again")
    difference = profile.fingerprint.difference(fingerprint(config))
    if difference is not None:
        return {}, f"the tuned profile is ignored: {difference}; `shoal tune` makes a new one ({path})"
    return profile.options, None


def fingerprint(config: NodeConfig) -> Fingerprint:
    """This machine and the configured model. A model that is not here yet has no weights to speak of."""
    from shoal.models.store import Store
    from shoal.node.machine import num_cores, processor

    model, weights = _model(Store(config.home), config.model)
    return Fingerprint(processor(), num_cores(), kernels(config), model, weights)


def kernels(config: NodeConfig) -> str:
    """What would compute: "cuda", "torch", or the C kernels' instruction set."""
    from shoal.engine.load import RunnerOptions, find_device
    from shoal.kernels.build import available_isas

    if find_device(RunnerOptions(device=config.device, kernels=config.kernels)) == "cuda":
        return "cuda"
    return "torch" if config.kernels == "torch" else available_isas()[0]


def _model(store: Store, name: str) -> tuple[str, str]:
    from shoal.models.store import size_on_disk

    if (record := next((item for item in store.records() if item.name == name), None)) is not None:
        return record.name, record.sha256
    try:
        path = store.resolve(name)
    except ShoalError:
        return name, "not here"
    return path.name, f"{size_on_disk(path)} bytes"
