"""Where Shoal keeps things on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def home(environment: Mapping[str, str]) -> Path:
    """The store's root: $SHOAL_HOME, else shoal/ in the XDG cache directory, else ~/.cache/shoal."""
    if given := environment.get("SHOAL_HOME"):
        return Path(given).expanduser().absolute()
    cache = environment.get("XDG_CACHE_HOME")
    base = Path(cache) if cache and Path(cache).is_absolute() else Path.home() / ".cache"
    return base / "shoal"


def config_file(environment: Mapping[str, str]) -> Path:
    """The user's configuration file: $SHOAL_CONFIG, else shoal/config.toml in the XDG configuration directory."""
    if given := environment.get("SHOAL_CONFIG"):
        return Path(given).expanduser().absolute()
    base = environment.get("XDG_CONFIG_HOME")
    directory = Path(base) if base and Path(base).is_absolute() else Path.home() / ".config"
    return directory / "shoal" / "config.toml"
