"""What Prometheus collects of a server; a registry of its own, so that nothing of the process is changed."""

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from botformer.serve.bounded_cache import BoundedCache
from botformer.serve.served_network import ServedNetwork

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


class ServerMetrics:
    """All series begin with botformer_, but those of the process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "botformer_requests", "Requests that were answered", ("route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "botformer_request_seconds", "From a request to its answer", ("route",),
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._batches = Histogram(
            "botformer_batch_images", "Images of a batch; the sum is that of all images", ("network",),
            buckets=_IMAGES, registry=self.registry,
        )  # fmt: skip

    def watch(self, networks: Iterable[ServedNetwork], caches: dict[str, BoundedCache]) -> None:
        """Their queues and sizes, whenever the metrics are read."""
        self.registry.register(_Sizes(list(networks), caches))

    def saw_batch(self, network: str, images: int) -> None:
        self._batches.labels(network).observe(images)

    def saw_request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _Sizes(Collector):
    def __init__(self, networks: list[ServedNetwork], caches: dict[str, BoundedCache]) -> None:
        self._networks, self._caches = networks, caches

    def collect(self) -> Iterable[GaugeMetricFamily]:
        queued = GaugeMetricFamily("botformer_queue_images", "Images that wait or are in work", labels=["network"])
        for network in self._networks:
            queued.add_metric([network.name], network.queue.places.taken)
        kept = GaugeMetricFamily("botformer_kept_bytes", "Kept for clicks on images", labels=["what"])
        for name, cache in self._caches.items():
            kept.add_metric([name], cache.bytes)
        return queued, kept


class MeasuredRequests:
    """Around an application: each request, its route, status and time."""

    def __init__(self, app: ASGIApp, metrics: ServerMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 500

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noting_status)
        finally:
            # Of unknown paths there may be any number.
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.saw_request(route, status, time.perf_counter() - begin)
