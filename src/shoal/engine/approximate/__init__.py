"""Approximate inference: keys, prompt tokens and neurons that may be left out. Off unless a request asks.

What it does: chooses what stays, and changes a sequence's cache or tokens between two steps. What it does not: run the
network (a runner's `approximation`), decide who runs (the scheduler), share anything it made with anybody.

Files: stage (how far a sequence is), budgets (what a request may ask for), selection (which keys or tokens stay, pure
numpy), core_neurons (which neurons stay, pure numpy), lookahead (a guess at the answer's first tokens), passes (the
extra steps it takes), approximator (acts on paused sequences), runner (what it asks of a runner).
"""
