"""What `shoal prove graph` and `shoal prove answer` read: a checkpoint as a graph, and a position of an answer."""

from __future__ import annotations

from pathlib import Path

from shoal.core.errors import BadConfig, InvalidRequest
from shoal.core.receipt import Signed
from shoal.models.checkpoint import Checkpoint, open_checkpoint
from shoal.models.tokenizer import load_tokenizer
from shoal.node.progress import Steps
from shoal.proof.graph.ir import Graph
from shoal.trust.check import subjects
from shoal.trust.file import MAX_FILE_BYTES, read_answers
from shoal.trust.forward_model import Prompts, calibrate, floats_of, forward_graph

MOST_PROMPTS = 16
"""Of a text: pieces that set the ranges."""


def graph_of(path: Path, tokens: int, like: Path, progress: Steps) -> Graph:
    """The integer graph of a checkpoint. Unsupported names what is no plain Llama."""
    progress("graph", 0, 3, "weights")
    checkpoint = open_checkpoint(path)
    floats = floats_of(checkpoint)
    progress("graph", 1, 3, "ranges")
    scales = calibrate(floats, _prompts(checkpoint, like, tokens))
    progress("graph", 2, 3, "integers")
    return forward_graph(floats, tokens, scales)


def _prompts(checkpoint: Checkpoint, like: Path, tokens: int) -> Prompts:
    """An answer's own tokens, as far as the graph reaches; or pieces of a text, as long as the graph is."""
    with like.open("rb") as file:
        data = file.read(MAX_FILE_BYTES)
    if data.lstrip()[:1] in (b"{", b"["):
        opening = answer_in(like).opening
        assert opening is not None, "answer_in refuses one without"
        found = [(*opening.prompt, *output.tokens)[:tokens] for output in opening.outputs]
    else:
        ids = load_tokenizer(checkpoint.tokenizer).encode(data.decode("utf-8", "replace"))
        step = max(1, (len(ids) - tokens) // MOST_PROMPTS)
        found = [tuple(ids[start : start + tokens]) for start in range(0, max(len(ids) - tokens, 0) + 1, step)]
    if not any(len(prompt) >= tokens for prompt in found):
        raise BadConfig("--like", f"expected {tokens} tokens or more in {like}, found fewer")
    return found[:MOST_PROMPTS]


def answer_in(file: Path) -> Signed:
    """The one answer of a file. BadConfig where its tokens are not there."""
    shown = read_answers(file)
    if len(shown) != 1:
        raise BadConfig(str(file), f"expected one answer, found {len(shown)}")
    if shown[0].signed.opening is None:
        raise BadConfig(str(file), "expected the receipt's opening too: the tokens are in it")
    return shown[0].signed


def place_in(signed: Signed, weights: bytes, choice: int, position: int) -> tuple[tuple[int, ...], int]:
    """The tokens before a position, and the one there. InvalidRequest where no part of this model made it."""
    for part in subjects(signed):
        outputs = zip(part.receipt.outputs, part.opening.outputs, strict=True)
        opened = next((opened for output, opened in outputs if output.choice == choice), None)
        is_there = opened is not None and part.begins(choice) <= position < len(opened.tokens)
        if opened is not None and is_there and part.receipt.model.weights == weights and part.opening.prompt:
            return (*part.opening.prompt, *opened.tokens[:position]), opened.tokens[position]
    raise InvalidRequest(
        f"no token at position {position} of choice {choice} that the graph's weights are said to have made"
    )
