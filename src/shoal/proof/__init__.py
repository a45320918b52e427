"""Proofs of computation: the numbers of an answer satisfy a fixed circuit, checked far below the cost of recomputing.

Transparent and hash-based; nothing is hidden: the proofs are verifiable, not zero-knowledge.
"""
