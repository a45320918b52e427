"""Integer graphs: what a proof speaks about. Seven operators with exact meanings, and a plain interpreter as reference.

What it does: names tensors of integers, says how each is computed (no rounding is left open, nothing may wrap), builds
the layers of networks from the seven operators, stores graphs on disk and hashes them. What it does not: floats (the
importers choose scales), circuits (`proof.lower`), cryptography.

Files in reading order: ir (Graph, Node, the operators), exact (reads and products of int64 arrays that refuse to wrap),
interpreter (the reference), builder (ranges of tensors, one method for each operator), tables (fixed functions as
tables), operators (layers made of operators), attention, store (JSON + npz, digest), check (graphs from files).

What this does not protect against: a graph that is a bad copy of its float model. The importers report the error.
"""
