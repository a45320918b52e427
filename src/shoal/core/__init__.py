"""The words everyone shares. Imports nothing of Shoal; standard library and one CBOR library only.

What it does: the data of a request and its answer, the two seams (`Generate`, `Session`), errors with two
blames, units, canonical bytes for hashing and signing, a clock with a virtual twin, and fakes of both seams.
What it does not: any arithmetic on tensors, any I/O.

Files: request (Request, Sampling, Message, Tool, Constraint), chunk (Chunk, TokenLogprob), usage (Usage, Measured),
receipt (Receipt, Opening, Evidence) and receipt_view (what a server shows of them), seams (Generate, Session), errors,
encoding (canonical CBOR), units, clock, fakes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal.core.chunk import Chunk, FinishReason, Measured, Receipt, TokenLogprob, ToolCallDelta, Usage
    from shoal.core.clock import Clock, SystemClock, VirtualClock
    from shoal.core.errors import LocalError, RemoteError, ShoalError
    from shoal.core.request import (
        Approximation,
        Constraint,
        Message,
        Request,
        Resume,
        Sampling,
        Tool,
        ToolCall,
        ToolChoice,
    )
    from shoal.core.seams import Generate, Session

__all__ = [
    "Approximation",
    "Chunk",
    "Clock",
    "Constraint",
    "FinishReason",
    "Generate",
    "LocalError",
    "Measured",
    "Message",
    "Receipt",
    "RemoteError",
    "Request",
    "Resume",
    "Sampling",
    "Session",
    "ShoalError",
    "SystemClock",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "Usage",
    "VirtualClock",
]


def __getattr__(name: str) -> Any:
    """Loaded when first asked for: who needs an error class alone, a verifier of proofs, does not pay for all words."""
    if name in __all__:
        for home in ("chunk", "clock", "errors", "request", "seams"):
            if hasattr(module := import_module(f"shoal.core.{home}"), name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
