"""The socket and the process around an app."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from shoal.core.errors import BadConfig
from shoal.server import listen
from shoal.server.serve import address_of

pytestmark = pytest.mark.real

PROGRAM = """
import asyncio, sys
from shoal.core.fakes import ScriptedGenerate
from shoal.core.service import EngineStats, Service
from shoal.server import ServeOptions, ServerConfig, create_app, listen, log_to_stderr, serve
none = None
generate = ScriptedGenerate(lambda request: [])
service = Service(generate, lambda: [], EngineStats, lambda: "loading", none, none, none, none, none)
log_to_stderr()
ready = lambda url: print(url, flush=True)
asyncio.run(serve(create_app(service, ServerConfig()), listen("127.0.0.1", 0), ServeOptions(drain_s=1), on_ready=ready))
print("clean", flush=True)
"""


@pytest.mark.parametrize("kind", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_process_cleanly(kind: str) -> None:
    import signal

    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert httpx.get(f"{url}/readyz").status_code == 503
        process.send_signal(getattr(signal, kind))
        out, log = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, out) == (0, "clean\n")
    assert '"path":"/readyz","status":503' in log
    assert "Traceback" not in log


def test_an_address_in_use_is_explained() -> None:
    listener = listen("127.0.0.1", 0)
    try:
        with pytest.raises(BadConfig, match="choose another port"):
            listen("127.0.0.1", listener.getsockname()[1])
    finally:
        listener.close()


def test_an_address_that_is_not_ours_is_explained() -> None:
    with pytest.raises(BadConfig, match="host"):
        listen("no such host.invalid", 0)


def test_the_address_is_one_a_browser_can_open() -> None:
    listener = listen("0.0.0.0", 0)
    try:
        assert address_of(listener).startswith("http://127.0.0.1:")
    finally:
        listener.close()


def test_importing_shoal_imports_no_web_framework() -> None:
    code = "import sys, shoal; sys.exit(any(n in sys.modules for n in ('starlette', 'fastapi', 'pydantic', 'uvicorn')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_oversized_body_does_not_poison_the_connection(start: Callable[..., Any]) -> None:
    with httpx.Client(base_url=start().url) as client:
        large = client.post("/v1/completions", content=b"x" * (9 << 20), headers={"content-type": "application/json"})
        assert large.status_code == 413
        assert client.get("/healthz").status_code == 200
