"""A real server on a free port of this machine, and a client that is not ours."""

import http.client
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botformer.predict.predictor import Predictor
from botformer.serve.access_guard import Access, access_for
from botformer.serve.limits import Limits
from botformer.serve.run_server import bound_socket, running
from botformer.serve.served_network import ServedNetwork
from botformer.serve.server_metrics import ServerMetrics
from botformer.serve.serving import Serving

FIXTURES = Path(__file__).parents[1] / "fixtures"
CLASSIFIER, DETECTOR = str(FIXTURES / "classifier_run"), str(FIXTURES / "detector_run")
KEYPOINTS = str(FIXTURES / "keypoint_rcnn.safetensors")


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        assert set(self.json) == {"detail"}
        return self.json["detail"]


@dataclass
class Server:
    port: int
    serving: Serving
    access: Access
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {**self.headers, **(headers or {})})
            reply = connection.getresponse()
            return Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: Any = b"", headers: Mapping[str, str] | None = None) -> Reply:
        return self.ask("POST", path, body, headers)

    def post_json(self, path: str, content: Any) -> Reply:
        return self.post(path, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def post_form(self, path: str, parts: Sequence[tuple[str, str | None, bytes]]) -> Reply:
        """Parts: the name, the file's name if it is one, the content."""
        body, kind = form(parts)
        return self.post(path, body, {"Content-Type": kind})


def form(parts: Sequence[tuple[str, str | None, bytes]]) -> tuple[bytes, str]:
    body = b""
    for name, file, content in parts:
        said = f'form-data; name="{name}"' + (f'; filename="{file}"' if file is not None else "")
        body += f"--boundary\r\nContent-Disposition: {said}\r\n\r\n".encode() + content + b"\r\n"
    return body + b"--boundary--\r\n", "multipart/form-data; boundary=boundary"


@contextmanager
def started(
    sources: Mapping[str, str], limits: Limits | None = None, host: str = "127.0.0.1", batch_size: int | None = None
) -> Iterator[Server]:
    limits, metrics = limits or Limits(), ServerMetrics()
    networks = {
        name: ServedNetwork(name, source, Predictor(source, "cpu", batch_size), limits, metrics.saw_batch)
        for name, source in sources.items()
    }
    serving, access, at = Serving(networks, limits, metrics), access_for(host, None), bound_socket(host, 0)
    with running(serving, access, at):
        yield Server(at.getsockname()[1], serving, access)


class Gate:
    """Keeps the network from computing until it is opened; knows the sizes of the batches that came."""

    def __init__(self, network: ServedNetwork) -> None:
        self.came, self.batches = threading.Semaphore(0), []
        self._open, self._run = threading.Event(), network.predictor.network.run
        network.predictor.network.run = self._wait

    def _wait(self, batch, *more):
        self.batches.append(len(batch))
        self.came.release()
        assert self._open.wait(30)
        return self._run(batch, *more)

    def open(self) -> None:
        self._open.set()
