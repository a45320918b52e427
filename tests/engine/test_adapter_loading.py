"""Adapters come while requests run, over the C kernels: only pointers move between two steps."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from shoal.core.request import Request, Sampling
from shoal.engine.engine import Engine, EngineConfig
from shoal.engine.language import Language
from shoal.engine.plan import SchedulerConfig
from shoal.models import lora, native_runner
from shoal.models.native_runner import NativeRunner
from shoal.models.tiny import tiny_checkpoint
from shoal.models.tokenizer import load_tokenizer


def adapter(folder: Path) -> Path:
    random = np.random.default_rng(3)
    name = "base_model.model.model.layers.0.mlp.gate_proj"
    tensors = {
        f"{name}.lora_A.weight": random.standard_normal((4, 64)).astype(np.float32),
        f"{name}.lora_B.weight": random.standard_normal((96, 4)).astype(np.float32),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    return folder


def test_the_native_runner_answers_while_it_reads_an_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_reading, may_read, readers = threading.Event(), threading.Event(), list[str]()

    def slowly(path: Any) -> lora.Adapter:
        readers.append(threading.current_thread().name)
        is_reading.set()
        may_read.wait()
        return lora.read_adapter(path)

    monkeypatch.setattr(native_runner, "read_adapter", slowly)

    async def main() -> None:
        checkpoint = tiny_checkpoint("llama")
        config = EngineConfig("tiny", 256, 2, SchedulerConfig(block_size=16, num_blocks=16))
        runner = NativeRunner(checkpoint, num_blocks=16, threads=1)
        engine = Engine(config, runner, Language(load_tokenizer(checkpoint.tokenizer), None))

        async def ask(name: str | None) -> list[int]:
            sampling = Sampling(temperature=0, max_tokens=8, ignore_eos=True)
            request = Request("r", "tiny", tuple(range(20)), sampling, adapter=name)
            return [token async for chunk in engine.generate(request) for token in chunk.token_ids]

        try:
            plain = await ask(None)
            loading = asyncio.create_task(engine.load_adapter("one", adapter(tmp_path)))
            await asyncio.to_thread(is_reading.wait)
            assert await ask(None) == plain
            may_read.set()
            await loading
            assert await ask("one") != plain
            assert await ask(None) == plain
        finally:
            may_read.set()
            await engine.stop()

    asyncio.run(asyncio.wait_for(main(), 60))
    assert readers != ["shoal-engine"]
