"""Prompts of many kinds, and sampling of many kinds, from a seed."""

from __future__ import annotations

import random

from shoal.core.request import Message, Request, Sampling

FRAMES = (
    "Explain {} to a ten year old.",
    "Write a short poem about {}.",
    "List five facts about {}.",
    "What are the dangers of {}? Answer in one paragraph.",
    "Translate into French: I would like to know more about {}.",
    "Write a Python function that has to do with {}.",
    "Continue the story: One morning, near a place known for {},",
    "Compare {} with {}.",
    "Give me a recipe inspired by {}.",
    "Summarise in two sentences why {} mattered for {}.",
)
TOPICS = (
    "volcanoes", "binary search", "the French revolution", "bees", "inflation", "black holes", "chess", "bread",
    "the moon", "public transport", "jazz", "antibiotics", "glaciers", "origami", "prime numbers", "the printing press",
    "coral reefs", "solar panels", "marathon running", "Shakespeare", "photosynthesis", "the stock market", "bridges",
    "sleep", "tea", "electric cars", "dinosaurs", "the Silk Road", "vaccines", "haiku", "databases", "wolves",
)  # fmt: skip
SYSTEMS = ("", "You are a helpful assistant.", "Answer briefly and precisely, as a teacher would.")


def requests(count: int, seed: int, max_tokens: int) -> list[Request]:
    """Chat requests, a third greedy, the rest sampled at 0.7 with a nucleus or at 1.0 plainly."""
    draw = random.Random(seed)
    return [_request(number, draw, max_tokens) for number in range(count)]


def _request(number: int, draw: random.Random, max_tokens: int) -> Request:
    text = draw.choice(FRAMES).format(draw.choice(TOPICS), draw.choice(TOPICS))
    system = draw.choice(SYSTEMS)
    messages = (*((Message("system", system),) if system else ()), Message("user", text))
    temperature, top_p = ((0.0, 1.0), (0.7, 0.9), (1.0, 1.0))[number % 3]
    sampling = Sampling(
        temperature=temperature, top_p=top_p, seed=draw.getrandbits(60), max_tokens=max_tokens, ignore_eos=True
    )
    return Request(f"a{number}", "m", messages, sampling)
