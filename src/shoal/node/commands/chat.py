"""`shoal chat`: a conversation in the terminal."""

from __future__ import annotations

from shoal.core.request import Sampling
from shoal.node.answering import Place, answering, prepare
from shoal.node.background import background
from shoal.node.config_sources import Loaded
from shoal.node.flags import ENGINE, MaxTokens, Seed, System, Temperature, TopP, Url, UrlKey, configured
from shoal.node.repl import Conversation, converse


@configured(*ENGINE)
def chat(
    loaded: Loaded,
    system: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = 0.6,
    top_p: TopP = 0.9,
    seed: Seed = None,
    url: Url = None,
    url_key: UrlKey = None,
) -> None:
    """Chat in the terminal. Ctrl-C stops an answer, Ctrl-D ends the conversation, /help lists commands."""
    sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed, max_tokens=max_tokens)
    place = Place(url, url_key, loaded.config.model if loaded.origins["model"] == "--model" else None)
    prepare(loaded.config, place)
    with background(answering(loaded.config, place)) as (answerer, perform):
        converse(answerer, perform, Conversation(sampling, system), loaded.config.home / "chat_history")
