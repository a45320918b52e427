"""Fixtures every floor's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def default_gguf() -> Path:
    """The default model's GGUF: SHOAL_TEST_GGUF, or the user's store, where it is pulled if it is not there yet."""
    from shoal.core.errors import ShoalError
    from shoal.models.catalogue import DEFAULT_MODEL, parse_source
    from shoal.models.pull import pull
    from shoal.models.store import Store
    from shoal.node.home import home

    if given := os.environ.get("SHOAL_TEST_GGUF"):
        path = Path(given)
        if not path.is_file():
            pytest.fail(f"SHOAL_TEST_GGUF names {given!r}, which is not a file")
        return path
    store = Store(home(os.environ))
    try:
        return store.path(pull(store, DEFAULT_MODEL, DEFAULT_MODEL, parse_source(DEFAULT_MODEL)))
    except ShoalError as error:
        pytest.fail(f"the tests need the default model: {error}\nSet SHOAL_TEST_GGUF to its GGUF file, or SHOAL_HOME.")
