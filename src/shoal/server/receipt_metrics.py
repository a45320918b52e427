"""Receipts in Prometheus' words, read from `Service.receipts` at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from shoal.core.receipt_view import ReceiptStats


class ReceiptCollector(Collector):
    def __init__(self, stats: Callable[[], ReceiptStats]) -> None:
        self._stats = stats

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        yield CounterMetricFamily("shoal:receipts_signed", "Receipts signed.", stats.signed_total)
        yield CounterMetricFamily("shoal:receipts_refused", "Peers' receipts that did not hold.", stats.refused_total)
        audits = CounterMetricFamily("shoal:audits", "Checks of peers' answers, by how they ended.", labels=["outcome"])
        for outcome, count in sorted(stats.audits.items()):
            audits.add_metric([outcome], count)
        yield audits
