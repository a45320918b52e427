"""Bodies as they cross the wire, as pydantic models: what is accepted (`Wire`) and what is answered (`Answer`).

What it does: shapes and ranges, null as absent, unknown fields refused; conversion of each request into core words.
What it does not: any I/O; that is `api`'s.

Files: base (Wire, Answer, common types), sampling (fields every generating endpoint has), tools, messages,
chat, completions, responses, response_events, embeddings, misc (models, tokens, adapters, probes), usage, logprobs.
"""
