"""What a proof is about, put into the transcript before the first challenge."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from shoal.core.errors import InvalidRequest
from shoal.crypto.transcript import Transcript
from shoal.proof.circuit import Circuit, Kind
from shoal.proof.digest import arrays_digest, circuit_digest
from shoal.proof.plan import Plan, Store

VERSION = 1
PROTOCOL = "shoal proof: logUp-GKR, batched sumcheck, Ligero"
FIELD = "GF(p)[x]/(x^2-7), p = 2^64-2^32+1"

Numbers = Mapping[str, npt.NDArray[np.signedinteger]]


def begin(circuit: Circuit, plan: Plan, weights_digest: bytes, public: Numbers) -> Transcript:
    """A transcript that has absorbed protocol, circuit, weights (digest of the numbers, or the commitment) and public
    numbers, but not yet the witness."""
    transcript = Transcript(PROTOCOL)
    transcript.absorb_int("version", VERSION)
    transcript.absorb("field", FIELD.encode())
    transcript.absorb("circuit", circuit_digest(circuit))
    for store in plan.stores:
        _absorb_store(transcript, store)
    transcript.absorb("weights", weights_digest)
    transcript.absorb("public", arrays_digest(public))
    return transcript


def numbers_of(circuit: Circuit, kind: Kind, given: Numbers) -> dict[str, npt.NDArray[np.signedinteger]]:
    """The given numbers of all sources of a kind, checked: names, shapes, integers. Raises InvalidRequest."""
    wanted = {source.name: source.shape for source in circuit.sources if source.kind == kind}
    if given.keys() != wanted.keys():
        missing, unknown = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
        raise InvalidRequest(f"{kind}: expected {len(wanted)} sources, missing {missing}, unknown {unknown}", kind)
    return {name: _integers(kind, name, given[name], shape) for name, shape in wanted.items()}


def weights_digest(weights: Numbers) -> bytes:
    """Of public weights, the same for any integer type that holds them."""
    return arrays_digest(weights)


def _integers(kind: str, name: str, values: object, shape: tuple[int, ...]) -> npt.NDArray[np.signedinteger]:
    array = np.asarray(values)
    if array.shape != shape or array.dtype.kind not in "iub":
        raise InvalidRequest(f"{name}: expected integers of shape {shape}, found {array.dtype} {array.shape}", kind)
    if array.dtype.kind == "i" and array.dtype.isnative:
        return array
    if array.dtype == np.uint64 and array.size and int(array.max()) >= 1 << 63:
        raise InvalidRequest(f"{name}: expected integers below 2^63, found {int(array.max())}", kind)
    return array.astype(np.int64)


def _absorb_store(transcript: Transcript, store: Store) -> None:
    params = store.params
    for value in (params.rows, params.column_bits, params.rate_bits, params.queries):
        transcript.absorb_int("commitment shape", value)
