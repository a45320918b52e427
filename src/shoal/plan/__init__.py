"""What it would cost before it runs: which settings suit this machine, and which acceleration suits a request.

What it does: the space of the engine's knobs, objectives, a resumable study over them, the picture of what was found,
the profile that the node reads; and a selector that learns from measured speeds which method a request should get.
What it does not: run an engine (the node measures and hands the figures in).

Tuning     space (knobs), workload (what is measured), objective (figures to one score), energy (joules, where the
           machine counts them), study (Optuna, SQLite), landscape (SVG), profile (TOML, with a fingerprint), transfer
           (what re-tuning gains after the machine changes).
Selection  features (what is known before a request runs), table (tasks x methods), regressors (ridge, nearest
           neighbours, boosted stumps), selector (the decision and its fallback), chooser (exploration budget,
           observations), history (rows on disk, bounded).
"""
