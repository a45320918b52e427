"""The words everyone shares. Imports nothing of Shoal; standard library and one CBOR library only.

What it does: the data of a request and its answer, the two seams (`Generate`, `Session`), errors with two
blames, units, canonical bytes for hashing and signing, a clock with a virtual twin, and fakes of both seams.
What it does not: any arithmetic on tensors, any I/O.

Files: request (Request, Sampling, Message, Tool, Constraint), chunk (Chunk, TokenLogprob), usage (Usage, Measured),
receipt (Receipt, Opening, Evidence), seams (Generate, Session), errors, encoding (canonical CBOR), units, clock, fakes.
"""

from shoal.core.chunk import Chunk, FinishReason, Measured, Receipt, TokenLogprob, ToolCallDelta, Usage
from shoal.core.clock import Clock, SystemClock, VirtualClock
from shoal.core.errors import LocalError, RemoteError, ShoalError
from shoal.core.request import Approximation, Constraint, Message, Request, Resume, Sampling, Tool, ToolCall, ToolChoice
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
