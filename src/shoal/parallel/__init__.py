"""One model on several machines: a pipeline of layers, and private inference by a split.

What it does: a `stage` is a range of layers on some machine, with a cache of its own. `PipelineRunner` is a runner
(`engine.runner`) whose first and last layers are here and whose middle ones are stages of peers, so that the engine on
top of it schedules, samples and detokenizes as ever, and its answers are, token for token, those of the whole model.
The machine that asks keeps tokenizer, embedding, first and last layers and the output projection; peers see hidden
states and positions, never a token.
What it does not: tensor or expert parallelism, and steps of several stages at once (one token of one step is in one
place at a time, so more stages make it possible, not faster).

Files, in reading order: frames (messages), stage (a range of layers and who may use which part of its cache), host
(serving stages to peers), hop (asking one), pipeline (the runner), chain (which peers' stages make the model), private
(an engine over them, made anew when a peer fails), split (ends, chain and engine put together), noise (what can be
added before states leave).

What this does not protect against: a peer that inverts hidden states; how much it reads at which depth is measured in
docs/private-splits.md. A split hides tokens from a log, not from somebody who looks. Peers that compute something else
change answers unseen, and several peers may be one.
"""
