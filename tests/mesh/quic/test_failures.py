import pytest

from shoal.core.errors import LinkClosed, StreamReset
from shoal.mesh.quic import failures


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("closed by peer: because (code 3)", "closed by the peer: because"),
        ('ApplicationClosed(ApplicationClose { error_code: 3, reason: b"because" })', "closed by the peer: because"),
        ('ApplicationClosed(ApplicationClose { error_code: 0, reason: b"" })', "closed by the peer"),
        ("ConnectionLost(TimedOut)", "nothing was heard from the peer for too long"),
        ("LocallyClosed", "LocallyClosed"),
    ],
)
def test_reasons_in_words(text: str, words: str) -> None:
    assert failures.reason(text) == words


@pytest.mark.parametrize(
    ("text", "kind"),
    [("Reset(7)", StreamReset), ("Stopped(9)", StreamReset), ("ConnectionLost(LocallyClosed)", LinkClosed)],
)
def test_a_stream_and_a_link_fail_differently(text: str, kind: type[LinkClosed]) -> None:
    assert type(failures.of_stream(RuntimeError(text), "abc")) is kind


def test_the_innermost_cause_is_told_without_source_paths() -> None:
    text = "ConnectError::Connect (/x/endpoint.rs:1073:26)\nCaused by:\n    not supported (/x/endpoint.rs:1:9)"
    assert failures.plain(RuntimeError(text)) == "not supported"
