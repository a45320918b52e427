"""How sound the proofs of real models are: every term of the error, computed from the circuits; nothing is proven here.

    python bench/proof_bits.py [--model FILE] [--length 64] [--terms]

proven: theorems alone. conjectured: the same, queries counted as good as up to Johnson's bound (parameters.py).
The language model is lowered whole, which takes a minute and 4 GB; without --model it is left out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from common.report import table
from shoal.models.checkpoint import open_checkpoint
from shoal.models.tokenizer import load_tokenizer
from shoal.proof.artifacts_compile import CompileOptions, compile_model
from shoal.proof.bits import num_leaves
from shoal.proof.circuit import Circuit
from shoal.proof.lower.lower import lower
from shoal.proof.onnx.precision import INT8, wide
from shoal.proof.plan import make_plan
from shoal.proof.samples import onnx_models
from shoal.trust.forward_model import calibrate, floats_of, forward_graph

MODELS: dict[str, Callable[[], bytes]] = {
    "LeNet": onnx_models.trained_lenet,
    "MLP 512-512-512": lambda: onnx_models.dense((512, 512, 512)),
    "Gemm 1024": lambda: onnx_models.gemm(1024),
}
CALIBRATION = Path(__file__).parent.parent / "docs" / "architecture.md"


def circuits(model: Path | None, length: int) -> Iterator[tuple[str, Circuit]]:
    for name, make in MODELS.items():
        for precision in (INT8, wide(18)):
            with tempfile.TemporaryDirectory() as folder:
                options = CompileOptions(precision=precision, rounds_outputs=True)
                yield (
                    f"{name}, {precision.name}",
                    compile_model(make(), Path(folder) / "model", options).lowered.circuit,
                )
    if model is not None:
        checkpoint = open_checkpoint(model)
        tokens = load_tokenizer(checkpoint.tokenizer).encode(CALIBRATION.read_text())
        starts = np.linspace(0, len(tokens) - length - 1, 4).astype(int).tolist()
        floats = floats_of(checkpoint)
        scales = calibrate(floats, [tokens[start : start + length] for start in starts])
        yield f"{model.stem}, {length} tokens", lower(forward_graph(floats, length, scales)).circuit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--terms", action="store_true", help="every term of the error, not only the sum")
    options, found = parser.parse_args(), list[dict[str, object]]()
    for name, circuit in circuits(options.model, options.length):
        for commits in (False, True):
            errors, weights = make_plan(circuit, commits).errors, "committed" if commits else "public"
            row = {"model": name, "weights": weights, "leaves": num_leaves(circuit)}
            found.append({**row, "proven": round(errors.proven, 1), "conjectured": round(errors.conjectured, 1)})
            if options.terms:
                found[-1]["terms"] = [(term, round(p, 1), round(c, 1)) for term, p, c in errors.terms]
    heads = ["model", "weights", "leaves", "proven", "conjectured"]
    table(heads, [[str(row[head]) for head in heads] for row in found])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
