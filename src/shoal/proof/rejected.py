"""Why a proof was not accepted."""

from __future__ import annotations

from shoal.core.errors import RemoteError


class ProofRejected(RemoteError):
    """The proof is not one of this statement. `check` names the verifier's step that found out."""

    code = "proof_rejected"

    def __init__(self, check: str, message: str) -> None:
        super().__init__(f"{check}: {message}")
        self.check = check
