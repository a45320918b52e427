import importlib
import subprocess
import sys

import pytest

from shoal.core.errors import Unsupported
from shoal.mesh.quic import binding


def test_importing_the_carrier_does_not_import_the_library() -> None:
    code = "import sys, shoal.mesh.quic; sys.exit('iroh' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_platform_without_the_library_is_told_to_use_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    binding.load.cache_clear()
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(Unsupported, match="tcp carrier"):
        binding.load()
