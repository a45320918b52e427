"""Prometheus metrics, named as vLLM names them with the prefix `shoal:`. One registry per app, so that two coexist.

The engine's gauges and counters are read from `Service.stats` at each scrape; histograms are fed by the streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shoal.core.service import EngineStats, MeshView
from shoal.server.mesh_metrics import MeshCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5)
SLOW_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0)
LONG_S = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000)
"""Bucket bounds are vLLM's, so that its dashboards fit."""


class Metrics:
    def __init__(self, stats: Callable[[], EngineStats], mesh: Callable[[], MeshView | None] = lambda: None) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_EngineCollector(stats))
        self.registry.register(MeshCollector(mesh))
        self.ttft = self._histogram("time_to_first_token_seconds", "Seconds to the first token.", SLOW_S)
        self.tpot = self._histogram("time_per_output_token_seconds", "Seconds per token after the first.", FAST_S)
        self.latency = self._histogram("e2e_request_latency_seconds", "Seconds from request to last token.", LONG_S)
        self.queue = self._histogram("request_queue_time_seconds", "Seconds spent waiting for a place.", LONG_S)
        self.prompt = self._histogram("request_prompt_tokens", "Prompt tokens of a request.", TOKENS)
        self.generation = self._histogram("request_generation_tokens", "Generated tokens of a request.", TOKENS)
        self.success = Counter(
            "shoal:request_success", "Finished answers.", ["model_name", "finished_reason"], registry=self.registry
        )
        self.aborted = Counter(
            "shoal:request_aborted", "Requests whose client went away.", ["model_name"], registry=self.registry
        )
        self.cost = Counter(
            "shoal:answer_cost", "What answers cost: joules, litres, grams of CO2, US dollars.",
            ["model_name", "unit", "source"], registry=self.registry,
        )  # fmt: skip
        self.http = Counter(
            "shoal:http_requests", "HTTP requests by status.", ["method", "handler", "status"], registry=self.registry
        )

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"shoal:{name}", text, ["model_name"], registry=self.registry, buckets=buckets)

    def exposition(self) -> bytes:
        return generate_latest(self.registry)


class _EngineCollector(Collector):
    def __init__(self, stats: Callable[[], EngineStats]) -> None:
        self._stats = stats

    def describe(self) -> list[Metric]:
        return []  # else registering would already ask the engine

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        usage = stats.blocks_used / stats.blocks_total if stats.blocks_total else 0.0
        yield GaugeMetricFamily("shoal:num_requests_running", "Requests being computed.", stats.num_running)
        yield GaugeMetricFamily("shoal:num_requests_waiting", "Requests in the queue.", stats.num_waiting)
        yield GaugeMetricFamily("shoal:kv_cache_usage_perc", "KV cache in use, 1 is all of it.", usage)
        queries = stats.prompt_tokens_total
        yield CounterMetricFamily("shoal:prompt_tokens", "Prompt tokens read.", queries)
        yield CounterMetricFamily("shoal:generation_tokens", "Tokens generated.", stats.generation_tokens_total)
        yield CounterMetricFamily("shoal:prefix_cache_queries", "Prompt tokens looked up in the cache.", queries)
        yield CounterMetricFamily("shoal:prefix_cache_hits", "Of them found there.", stats.cached_tokens_total)
        yield CounterMetricFamily("shoal:num_preemptions", "Requests set back to the queue.", stats.preemptions_total)
        yield CounterMetricFamily("shoal:engine_steps", "Forward steps.", stats.steps_total)
        yield CounterMetricFamily("shoal:spec_decode_num_drafts", "Drafts checked.", stats.draft_checks_total)
        yield CounterMetricFamily("shoal:spec_decode_num_draft_tokens", "Tokens drafted.", stats.draft_tokens_total)
        yield CounterMetricFamily("shoal:spec_decode_num_accepted_tokens", "Of them right.", stats.draft_accepted_total)
        length = 1 + stats.draft_accepted_total / stats.draft_checks_total if stats.draft_checks_total else 1.0
        yield GaugeMetricFamily("shoal:spec_decode_acceptance_length", "Tokens made per draft checked.", length)
        choices = CounterMetricFamily("shoal:drafter_choices", "Requests a drafter was chosen for.", labels=["drafter"])
        for drafter, count in stats.choices.items():
            choices.add_metric([drafter], count)
        yield choices
