"""A small draft model for any target, trained here: the target's tokenizer and block, scaled down (2411.11055).

What it does: shapes the draft, gathers text and the target's own outputs, trains in float32 on the CPU with resume,
writes the weights beside the target's tokenizer, and measures what the draft is worth. What it does not: serve it.

Only `torch_speaker`, `torch_train` and `torch_state` import torch, and only `shoal draft train` imports them.

Files, in the order a training goes through them: plan (shape, steps, the draft's ModelConfig), text (files to tokens),
prompts and outputs (what the target is asked, what it said), data (windows of both, by step), torch_speaker (the
network, differentiable), torch_train (candidates, loss, optimizer), torch_state (checkpoints), files (GGUF or folder),
trial (speculation over two bare runners: acceptance, costs, wall-clock), worth (the report's figures).
"""
