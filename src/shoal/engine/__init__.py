"""Tokens in, tokens out: one model on one machine behind the two seams. It never learns that there is a network.

What it does: continuous batching over a paged cache with prefix sharing, sampling under constraints, answers as
chunks, sessions, adapters, embeddings. What it does not: read weights or run networks (`models`), HTTP (`server`).

Pure decisions   block_pool (who owns a block), prefix_cache (which block holds a prefix), sequence (plain data),
                 tables (copy-on-write, publishing), plan and walk (one step and its budget), scheduler (who runs next).
Tokens to text   sampler, truncation, penalties, constraint, stops, answer.
The shell        runner (what executes a step), load (picks one), batching (plan to arrays), inbox and mailbox (event
                 loop to thread and back), job (one request), reading (one call of a session), worker (the thread that
                 steps), engine (the asyncio front), prepare (what can be wrong with a request), session, adapters,
                 stats, language (a model's text).
fakes            a runner whose logits hash what attention reads through the block tables.
"""
