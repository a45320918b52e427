"""Answers that can be checked: what a node signs about an answer, and how others check it.

What it does: receipts (made, opened, chained, kept), and tiers of checking behind one interface.
What it does not: decide whom to ask (`fleet`), prove (`proof`), or run a model (`engine`, which hands up `Evidence`).

Reading order: commit (salted commitments), statement (an answer as commitments), fingerprint (activations in 9 bytes a
token), receipt (bytes, signature), chain (numbers and links), inspect (everything that can be wrong with a receipt, in
words), file and stated (receipts in JSON, and the words beside them); gather and seal (a `Generate` whose answers are
signed), accept (receipts of peers on their way in), shelf (the chain on disk). Then the checks, which have their own
order in `check`; forward_model (checkpoints as graphs whose forward pass `proof` proves); attest is about hardware,
reputation (a package) about whom to believe. Looking at a receipt needs neither numpy nor torch.

What this does not protect against: a receipt says who answers for an answer, not that the answer is right, and not that
the model named was the one that ran: that takes a check. A signer may keep two chains; two receipts of one number, seen
by anybody, are the evidence.
"""
