"""One step of ezkl in a process of its own: `python ezkl_step.py STEP FOLDER`, all files in FOLDER."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import ezkl

SCALE = 7
"""Fractional bits: what ezkl's own examples use."""


def logrows(folder: Path) -> int:
    """Of the circuit, as calibrated."""
    return int(json.loads((folder / "settings.json").read_text())["run_args"]["logrows"])


def main() -> None:
    step, folder = sys.argv[1], Path(sys.argv[2])
    names = ("model.onnx", "settings.json", "input.json", "model.ezkl", "kzg.srs", "vk.key", "pk.key", "witness.json",
             "proof.json")  # fmt: skip
    model, settings, given, circuit, srs, vk, pk, witness, proof = (str(folder / name) for name in names)

    async def run() -> Any:
        match step:
            case "compile":
                arguments = ezkl.PyRunArgs()
                arguments.input_visibility, arguments.output_visibility = "public", "public"
                arguments.param_visibility = "fixed"
                arguments.input_scale = arguments.param_scale = SCALE
                done = [ezkl.gen_settings(model, settings, py_run_args=arguments)]
                found = ezkl.calibrate_settings(given, model, settings, "resources", scales=[SCALE])
                done.append(await found if inspect.isawaitable(found) else found)
                done.append(ezkl.compile_circuit(model, circuit, settings))
                return all(done)
            case "srs":
                return ezkl.gen_srs(srs, logrows(folder))
            case "setup":
                return ezkl.setup(circuit, vk, pk, srs)
            case "witness":
                found = ezkl.gen_witness(given, circuit, witness)
                return await found if inspect.isawaitable(found) else found
            case "prove":
                return ezkl.prove(witness, circuit, pk, proof, srs)
            case "verify":
                return ezkl.verify(proof, settings, vk, srs)
        raise SystemExit(f"unknown step {step}")

    if asyncio.run(run()) is False:
        raise SystemExit(f"{step} failed")


if __name__ == "__main__":
    main()
