"""Guessing what a sequence goes on with, so that one step can check several tokens instead of making one.

A drafter proposes a path of tokens; the step computes them behind the sequence's last token with an output for each;
`engine.verify` samples those outputs in order, as it would have without drafts, and keeps what was guessed right. So no
drafter can change an answer, only how fast it comes: see docs/decisions/speculation.md for why this rule and no other.

Files: draft (the words drafters share), lookup (n-grams of prompt and output), suffix (suffix trees over this request
and over past answers), saved (past answers on disk), model (a smaller model), hybrid (suffix, else model),
chosen (another one for each request), costs (how long a step of n rows takes), policy (how much of a draft is worth
computing), speculator (what the worker calls).
What this does not do: tree attention. A tree draft exists for study (`SuffixTree.look(is_tree=True)`); the engine
verifies one path.
"""
