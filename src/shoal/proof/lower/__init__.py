"""Integer graphs as circuits: sources, constraints, and how the prover fills its columns.

What it does: every operator of `proof.graph` becomes identities and lookups over as few committed columns as it can;
views (transposes, reshapes, slices, concatenations, sums) cost nothing, they are index maps. Each lowering says in one
place what its columns are, what holds of them and how their values are computed from the interpreter's. What it does
not: proving; choosing scales.

Files in reading order: form (what a tensor is in terms of sources), reading (forms read through index maps), limbs (how
range checks are cut), emitter (sources, constraints, fillers), contractions, requantize, functions (tables, softmax,
roots), lower (the driver: `lower(graph) -> Lowered`).

What this does not protect against: a wrong lowering. Tests hold every operator's circuit against wrong columns.
"""
