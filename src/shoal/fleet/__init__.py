"""Many engines as one: which of them answers, and what happens when it dies in the middle.

What it does: ranks the local engine, peers and upstream servers for each request, relays their answers, and goes on
elsewhere without repeating or losing a token; serves the local engine to peers within limits.
What it does not: find peers or carry bytes (`mesh`), check answers (`trust`).

Files: provider (what can answer, and what is known of it), cost (which is best for a request), affinity (who has seen
this prompt's beginning), health (who failed lately), progress (what was delivered so far), route (the `Generate` of all
that), remote (a peer as a `Generate`), wire (requests and chunks as bytes), sharing (the local engine for peers),
accounts (what each peer may take), upstream and upstream_wire (an OpenAI-compatible server as a `Generate`).
"""
