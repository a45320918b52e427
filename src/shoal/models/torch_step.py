"""One batch on the device: its arrays uploaded once, and what layers share (rope tables, attention groups) made once.

Everything is computed from the host's arrays, so a step waits for the device only to read its logits.
"""

from __future__ import annotations

import numpy as np
import torch

from shoal.models.batch import Batch
from shoal.models.config import ModelConfig
from shoal.models.rope import rope_tables
from shoal.models.torch_attention import Group, plan_groups


class Step:
    """tokens, slots, output_rows are int64 on the device; `adapter_rows` lists each LoRA slot's rows."""

    def __init__(self, batch: Batch, config: ModelConfig, block_size: int, device: torch.device) -> None:
        self.batch = batch
        self.tokens = _upload(batch.tokens, device)
        self.slots = _upload(batch.slots, device)
        self.output_rows = _upload(batch.output_rows, device)
        self.adapter_rows = {slot: _upload(rows, device) for slot, rows in _rows_by_adapter(batch).items()}
        self._config, self._block_size, self._device = config, block_size, device
        self._groups: dict[int | None, list[Group]] = {}
        self._tables: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def groups(self, window: int | None) -> list[Group]:
        """How to attend with this window."""
        if window not in self._groups:
            self._groups[window] = plan_groups(self.batch, window, self._block_size, self._device)
        return self._groups[window]

    def rope_table(self, kind: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(cos, sin), each float32 (rows, 1, dims / 2), of `config.rope_kinds[kind]` at the rows' positions."""
        if kind not in self._tables:
            rope = self._config.rope_kinds[kind]
            places = self.batch.positions if self.batch.rope_positions is None else self.batch.rope_positions
            cos, sin = rope_tables(rope, self._config.head_dim, places)
            table = (torch.from_numpy(cos[:, None]), torch.from_numpy(sin[:, None]))
            self._tables[kind] = (table[0].to(self._device), table[1].to(self._device))
        return self._tables[kind]


def _upload(array: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.int64)).to(device)


def _rows_by_adapter(batch: Batch) -> dict[int, np.ndarray]:
    per_row = np.repeat(batch.adapters, np.diff(batch.query_start))
    return {int(slot): np.flatnonzero(per_row == slot) for slot in np.unique(batch.adapters) if slot >= 0}
