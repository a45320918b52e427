"""Transformers of the Llama family as integer graphs: a forward pass over a prompt, logits of the last position.

What it does: a float reference that also measures ranges, the choice of scales, and `transformer_graph`, which makes
the integer graph from plain arrays of weights. What it does not: read files of weights, sample tokens, keep a KV cache.

Files in reading order: config (shapes and names of weights), reference (floats), scales (powers of two), layers (norm,
attention, MLP), build (`transformer_graph`), forward (a pass with its proof: made, checked, as bytes).

What this does not protect against: prompts whose activations leave the calibrated ranges (with headroom): they are
refused when the graph runs.
"""
