"""torch's scaled_dot_product_attention in float32, its keys and values contiguous and its heads grouped."""

from __future__ import annotations

import time
from typing import Any

import torch
from loop import serve
from torch.nn.functional import scaled_dot_product_attention


class Sdpa:
    def load(self, heads: int, kv_heads: int, head_dim: int, threads: int) -> dict[str, Any]:
        torch.set_num_threads(threads)
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        return {"system": f"torch {torch.__version__}"}

    @torch.inference_mode()
    def prefill(self, context: int, layers: int) -> dict[str, Any]:
        """The whole context at once, causal: no chunks, no paging."""
        q, k, v = (
            torch.randn(1, heads, context, self.head_dim) for heads in (self.heads, self.kv_heads, self.kv_heads)
        )
        began = time.perf_counter()
        for _ in range(layers):
            scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return {"seconds": time.perf_counter() - began}

    @torch.inference_mode()
    def decode(self, batch: int, context: int, layers: int) -> dict[str, Any]:
        """One query of each sequence against keys and values of its own in every layer."""
        shape = (batch, self.kv_heads, context, self.head_dim)
        cache = [(torch.ones(shape), torch.ones(shape)) for _ in range(layers)]
        q = torch.randn(batch, self.heads, 1, self.head_dim)
        times = []
        for _ in range(3):
            began = time.perf_counter()
            for k, v in cache:
                scaled_dot_product_attention(q, k, v, enable_gqa=True)
            times.append(time.perf_counter() - began)
        return {"seconds": min(times)}


if __name__ == "__main__":
    peer = Sdpa()
    serve({"load": peer.load, "prefill": peer.prefill, "decode": peer.decode})
