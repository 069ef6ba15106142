"""A histogram for Prometheus that is filled on every request and read every few seconds.

The client library's own walks all its buckets at each observation and takes two locks: 2 us for one value, 2 ms for a
request of a thousand rows. This one is filled by the event loop alone, by one bisection, and added up when it is read.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class HistogramSeries:
    """Counts of one series: how many values lie in each bucket, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add_all(self, values: Iterable[float]) -> None:
        for value in values:
            self.add(value)


class Histogram(Collector):
    """A family of them, by label values."""

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._documentation, self._labels, self._bounds = name, documentation, labels, tuple(bounds)
        self._edges = [*(str(float(bound)) for bound in bounds), "+Inf"]
        self._series: dict[tuple[str, ...], HistogramSeries] = {}
        registry.register(self)

    def labels(self, *values: str) -> HistogramSeries:
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = HistogramSeries(self._bounds)
        return series

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        for values, series in self._series.items():
            buckets = list(zip(self._edges, accumulate(series.counts), strict=True))
            family.add_metric(values, buckets, series.total)
        yield family
