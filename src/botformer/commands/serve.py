"""Try trained networks in the browser, and use them over HTTP: botformer serve [RUN ...]."""

import math
import os
import re
import socket
import sys
import webbrowser
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import tyro

from botformer.errors import InputError
from botformer.recipes.schema import Device
from botformer.terminal import screen

if TYPE_CHECKING:
    from botformer.serve.limits import Limits

_ALL_ADDRESSES = ("0.0.0.0", "::")
_NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


@dataclass(frozen=True)
class Arguments:
    runs: Annotated[tuple[str, ...], tyro.conf.Positional] = ("nuclei",)
    """Trained networks; several are shown side by side. Each is the --out folder of a training run (its best
    checkpoint), the folder of one checkpoint, a .safetensors file of botformer.save, hf://OWNER/NAME on the Hugging
    Face hub, or the name of a network that comes with the package."""
    host: str = "127.0.0.1"
    """Address to listen on. 127.0.0.1 is for this machine alone. On any other, such as 0.0.0.0, requests for networks
    and images need a token, which is printed; the traffic is not encrypted."""
    port: int = 8000
    """If it is taken, the next free one is used; 0: any free one."""
    browser: bool = True
    """Open the page in the browser."""
    device: Device = "auto"
    batch_size: int | None = None
    """Images of concurrent requests that a network sees at once; by default by the size of its canvas, at most 64."""
    queue: int = 128
    """Images per network that may be waiting or in work; further ones are refused with the status 429."""
    max_megabytes: float = 20.0
    """Larger image files are refused with the status 413."""
    max_megapixels: float = 100.0
    """Images of more pixels are refused with the status 413 before they are decoded."""
    seconds_per_request: float = 60.0
    """What is not done by then is answered with the status 504."""
    public_name: str | None = None
    """The name under which a proxy on this machine makes the server known, such as vision.example.org. Every request
    then needs the token that is printed."""


def main(arguments: list[str]) -> None:
    given = tyro.cli(Arguments, args=arguments, prog="botformer serve", description=__doc__)
    serve(given)


def serve(given: Arguments) -> None:
    """Until a signal ends it."""
    limits = _limits(given)
    # Heavy, and --help should not wait for it.
    from botformer.create.from_checkpoint import load_for_rgb
    from botformer.predict.predictor import Predictor
    from botformer.recipes.schema import Run
    from botformer.serve.access_guard import access_for
    from botformer.serve.run_server import bound_socket, running, serve_until_signal
    from botformer.serve.served_network import ServedNetwork, named
    from botformer.serve.server_metrics import ServerMetrics
    from botformer.serve.serving import Serving
    from botformer.training.distributed import open_accelerator

    console, metrics = screen(), ServerMetrics()
    device = open_accelerator(Run(device=given.device, precision="float32")).device
    networks = {}
    for name, source in named(given.runs or ("nuclei",)).items():
        predictor = Predictor(load_for_rgb(source), device, given.batch_size)
        networks[name] = ServedNetwork(name, source, predictor, limits, metrics.saw_batch)
    serving, access = Serving(networks, limits, metrics), access_for(given.host, given.public_name)
    at = bound_socket(given.host, given.port)
    port = at.getsockname()[1]
    if given.port not in (0, port):
        console.print(f"port {given.port} is taken: {port} is used")
    token = f"#token={access.token}" if access.token else ""
    address = f"http://{_in_address(given.host)}:{port}/"
    with running(serving, access, at) as server:
        console.print(f"networks: {', '.join(networks)}, on {device}")
        console.print(f"the page: {address}{token}")
        if given.host in _ALL_ADDRESSES:
            console.print(f"from elsewhere: http://{socket.gethostname()}:{port}/{token}")
        if given.public_name is not None:
            console.print(f"by the proxy: https://{given.public_name}/{token}")
        console.print(f"for programs: {address}docs (curl lines), {address}metrics")
        if access.token:
            console.print(f"programs send the header  Authorization: Bearer {access.token}")
        console.print("stop it with Ctrl+C; what was begun is finished, a second Ctrl+C stops at once")
        sys.stdout.flush()
        if given.browser and _has_screen():
            webbrowser.open(address + token)
        serve_until_signal(serving, server)
        console.print("stopping: what was begun is finished")
    console.print("stopped")


def _limits(given: Arguments) -> "Limits":
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(f"serving needs {', '.join(missing)}: pip install 'botformer[serve]'")
    for name, least in (
        ("port", 0), ("queue", 1), ("max_megabytes", 0.001), ("max_megapixels", 0.001), ("seconds_per_request", 0.001)
    ):  # fmt: skip
        if not least <= getattr(given, name) < math.inf:
            raise InputError(
                f"--{name.replace('_', '-')} is {getattr(given, name)}; expected a number of {least} or more"
            )
    if given.public_name is not None and not re.fullmatch(r"[\w.-]+", given.public_name):
        raise InputError(f"--public-name is a name such as vision.example.org, got {given.public_name!r}")
    if given.port > 65535:
        raise InputError(f"--port is {given.port}; expected at most 65535")
    from botformer.serve.limits import Limits

    return Limits(given.queue, given.max_megabytes, given.max_megapixels, given.seconds_per_request)


def _in_address(host: str) -> str:
    """As a browser of this machine can reach it."""
    if host in _ALL_ADDRESSES:
        return "localhost"
    return f"[{host}]" if ":" in host else host


def _has_screen() -> bool:
    """Whether somebody sits in front of it."""
    if os.environ.get("CI"):
        return False
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
