"""What a node signs about an answer, and what its requester keeps to show it. Words only; `trust` fills and checks.

    Receipt   public, signed: who, which model, when, how much, and commitments. Says nothing of prompt or answer.
    Opening   private: the salt and everything the commitments hide. Goes to the requester alone, never in a `Receipt`.

Activation fingerprints are in the opening, because whoever has the model could test guesses of a prompt against them.

    prompt     [ 0 .......... P )
    output                      [ 0 .... begins ........ T )     before `begins`: made elsewhere
    rows                  P - 1 + [ begins .............. T )     the row at P - 1 + t chose output token t
    segments                      [ 32 ][ 32 ][ 32 ][ < 32 ]     of the rows, counted from `begins`
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shoal.core.request import Approximation, Request, ToolCall
from shoal.core.usage import FinishReason, Usage

RECEIPT_VERSION = 1
SEGMENT_TOKENS = 32
"""Output tokens that share a fingerprint, and that can be opened without the others."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an engine saw as it made one choice. Stays inside a node: whoever signs turns it into a receipt.

    prompt        token ids as computed, template and all.
    tokens        of the whole output; the first `begins` were given by the request.
    seed          what was sampled with, also where the request named none.
    fingerprints  of the rows that chose tokens[begins:], one per segment; see `trust.fingerprint`.
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    begins: int
    seed: int
    fingerprints: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What computed the answer. The name alone where that was not the signer's engine (a peer, an upstream, a swarm).

    name          as served.
    weights       SHA-256 of the weights file, or of the folder's files (`trust.identity`).
    quantization  format of the weights as stored ("Q4_1").
    adapter       SHA-256 of the LoRA adapter; empty: none.
    device, kernels, kv  what it ran on, in which arithmetic, and how keys and values are stored: thresholds of checks
                  are calibrated for pairs of these.
    """

    name: str
    weights: bytes = b""
    quantization: str = ""
    adapter: bytes = b""
    device: str = ""
    kernels: str = ""
    kv: str = ""


@dataclass(frozen=True, slots=True)
class Sampled:
    """The numbers of `Sampling`. What could give a prompt away (stop strings, biases, a grammar) is committed only."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    min_tokens: int = 0
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """One choice, committed to.

    choice        which of the request's: what is sampled depends on it.
    num_tokens    of the whole output, the end token included; 0 where no ids are known (an upstream sends text).
    begins        the first that the signer computed itself and took a fingerprint of; num_tokens: none.
    tokens        root of a Merkle tree over segments of the token ids, counted from 0.
    text          commitment to text and tool calls as delivered with this receipt.
    fingerprints  root of a Merkle tree over the fingerprints; empty: none were taken (see `Receipt.parts`).
    """

    choice: int
    num_tokens: int
    begins: int
    finish_reason: FinishReason
    tokens: bytes
    text: bytes
    fingerprints: bytes = b""


@dataclass(frozen=True, slots=True)
class Part:
    """Who made output tokens [first, first + count) of a choice.

    provider  "local", a peer's id or "upstream:NAME".
    receipt   digest of that peer's own receipt, which is in the opening; empty: it gave none, or none that held.
    """

    choice: int
    provider: str
    first: int
    count: int
    receipt: bytes = b""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Who computed an answer and what they commit to.

    node        Ed25519 public key of the signer, raw bytes: the id of the peer it is.
    sequence    1, 2, 3, ...: every receipt of this node; `previous` is the chain's head before it (`trust.chain`).
    created     when it was signed, Unix seconds by the signer's clock.
    request     commitment to the request as asked, without what does not change the answer (`trust.seal.essence`).
    prompt      commitment to the prompt's token ids; empty: not known to the signer.
    usage       as told to the requester.
    parts       where others took part; empty: the signer made it all.
    signature   over the canonical encoding of every other field.
    """

    version: int = RECEIPT_VERSION
    node: bytes = b""
    request_id: str = ""
    sequence: int = 0
    previous: bytes = b""
    created: int = 0
    model: ModelIdentity = field(default_factory=lambda: ModelIdentity(""))
    sampling: Sampled = field(default_factory=Sampled)
    request: bytes = b""
    prompt: bytes = b""
    outputs: tuple[Output, ...] = ()
    usage: Usage = field(default_factory=Usage)
    parts: tuple[Part, ...] = ()
    approximation: Approximation | None = None
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class OutputOpening:
    """What the commitments of one `Output` hide. `fingerprints`: of `num_tokens - begins` rows, in segments."""

    tokens: tuple[int, ...] = ()
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    fingerprints: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Opening:
    """What the commitments of a `Receipt` hide.

    salt     32 random bytes, new for each receipt; without them nothing committed to can be guessed and tested.
    request  its essence; None in what a peer sends back to whoever has it already.
    nested   receipts of the peers that took part, and their openings.
    """

    salt: bytes
    request: Request | None = None
    prompt: tuple[int, ...] = ()
    outputs: tuple[OutputOpening, ...] = ()
    nested: tuple[Signed, ...] = ()


@dataclass(frozen=True, slots=True)
class Signed:
    """A receipt, and its opening for those who may have it."""

    receipt: Receipt
    opening: Opening | None = None
