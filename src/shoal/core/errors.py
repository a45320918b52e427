"""Errors with two blames: ours (`LocalError`) and the other side's (`RemoteError`).

Retry, ban, HTTP status and reputation look at the class, never at the text. The text is for the person who
reads it: what was expected, what came, what to do next.

Rules that stay true in this file:
- every error raised on purpose anywhere in Shoal is a `ShoalError`;
- a class says who is to blame, a field (`param`, `file`, `field`) says where to look.
"""

from __future__ import annotations


class ShoalError(Exception):
    """Root of every error Shoal raises on purpose."""

    code: str = "error"
    """Stable machine-readable name, the `code` of the OpenAI error object."""


# ---- ours -----------------------------------------------------------------------------------------------


class LocalError(ShoalError):
    """This machine cannot or could not do what it should; the caller may try again elsewhere."""

    code = "internal_error"


class Overloaded(LocalError):
    """The bounded queue is full. `retry_after_s` is an estimate, never zero."""

    code = "rate_limit_exceeded"

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(LocalError):
    """Not serving now: still loading, draining, or stopped."""

    code = "service_unavailable"


class DeadlineExceeded(LocalError):
    """The request's own deadline passed before it ended."""

    code = "deadline_exceeded"


class BadWeights(LocalError):
    """A file of weights, a tokenizer or an adapter is truncated, corrupted or foreign.

    Names the file, the field in it, what was expected and what was found.
    """

    code = "bad_weights"

    def __init__(self, file: str, field: str, expected: str, found: str) -> None:
        super().__init__(f"{file}: {field}: expected {expected}, found {found}")
        self.file = file
        self.field = field
        self.expected = expected
        self.found = found


class BadConfig(LocalError):
    """A configuration value is unknown or unusable. `key` names it."""

    code = "bad_config"

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key


class Unsupported(LocalError):
    """Well-formed, but this build or machine cannot do it."""

    code = "unsupported"


class Unreachable(LocalError):
    """No connection to a peer. `steps` says, in order, what was tried and how each try ended."""

    code = "unreachable"

    def __init__(self, message: str, steps: tuple[str, ...] = ()) -> None:
        super().__init__("; ".join((message, *steps)))
        self.steps = steps


class LinkClosed(LocalError):
    """A connection ended, or was ended, before the work on it did. The work may be done again elsewhere."""

    code = "link_closed"


class StreamReset(LinkClosed):
    """The other side gave up one stream; the connection lives."""

    code = "stream_reset"


# ---- the other side's -----------------------------------------------------------------------------------


class RemoteError(ShoalError):
    """The other side (a client, a peer) sent something it should not have."""

    code = "invalid_request_error"


class InvalidRequest(RemoteError):
    """A request that can never succeed as it stands. `param` names the field at fault."""

    code = "invalid_value"

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        if code is not None:
            self.code = code


class ContextTooLong(InvalidRequest):
    """Prompt and requested output do not fit the model's context."""

    def __init__(self, message: str, param: str | None = "messages") -> None:
        super().__init__(message, param, "context_length_exceeded")


class ModelNotFound(InvalidRequest):
    """No such model or adapter here. The text lists what there is."""

    def __init__(self, name: str, available: tuple[str, ...] = ()) -> None:
        have = ", ".join(available) if available else "none"
        super().__init__(f"model {name!r} is not served here; available: {have}", "model", "model_not_found")
        self.name = name


class PeerFault(RemoteError):
    """A peer broke a protocol: bytes that mean nothing, a bad signature, more than was agreed. Ends the connection."""

    code = "peer_fault"


class Unauthorized(RemoteError):
    """No key, or not one of ours."""

    code = "invalid_api_key"
