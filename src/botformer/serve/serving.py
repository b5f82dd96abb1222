"""What the routes of a server share: its networks, limits, threads, and what is kept for clicks on images."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from botformer.environment import cores
from botformer.serve.bounded_cache import BoundedCache
from botformer.serve.limits import Limits
from botformer.serve.refusal import Refusal
from botformer.serve.request_body import BodyMemory
from botformer.serve.served_network import SeenLayers, ServedNetwork
from botformer.serve.server_metrics import ServerMetrics

_KEPT_BYTES = 256 * 2**20
"""Of images, and as much again of what attention layers saw of them."""
_BODIES_BYTES = 2**30
_MOST_DECODERS = 8


@dataclass
class Serving:
    """What the routes share."""

    networks: Mapping[str, ServedNetwork]
    limits: Limits
    metrics: ServerMetrics
    stopping: bool = False
    """No new work is taken; what was begun is finished."""
    images: BoundedCache[bytes] = field(default_factory=lambda: BoundedCache[bytes](_KEPT_BYTES))
    """By the sha256 of their bytes."""
    seen: BoundedCache[SeenLayers] = field(default_factory=lambda: BoundedCache[SeenLayers](_KEPT_BYTES))
    """By image and network."""
    bodies: BodyMemory = field(default_factory=lambda: BodyMemory(_BODIES_BYTES))
    decoding: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(min(_MOST_DECODERS, cores()), "botformer-decoding")
    )
    clicks: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "botformer-attention"))

    def network(self, name: str | None) -> ServedNetwork:
        if name is None and len(self.networks) == 1:
            return next(iter(self.networks.values()))
        if name is None:
            raise Refusal(422, f"which network? give ?network=NAME in the address, one of: {', '.join(self.networks)}")
        if name not in self.networks:
            raise Refusal(404, f"there is no network {name[:80]!r}; there are: {', '.join(self.networks)}")
        return self.networks[name]

    def keep(self, key: str, image: bytes, network: ServedNetwork, layers: SeenLayers | None) -> None:
        """For clicks: the image under its sha256, and what the network's attention layers saw of it."""
        self.images.put(key, image, len(image))
        if layers is not None:
            self.seen.put((key, network.name), layers, layers.bytes)

    def close(self) -> None:
        """Waits until all that was begun is done."""
        for network in self.networks.values():
            network.queue.close()
        self.decoding.shutdown()
        self.clicks.shutdown()
