"""The routes of the server."""

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

import botformer
from botformer.data.image_inputs import NamedBytes, input_image
from botformer.data.image_io import BadImage, TooManyPixels, image_ending
from botformer.environment import cores
from botformer.errors import InputError
from botformer.predict.detector import DetectorNetwork
from botformer.predict.results import Unreadable
from botformer.serve.access_guard import Access, AccessGuard
from botformer.serve.attention_answer import attention_answer
from botformer.serve.bounded_cache import BoundedCache
from botformer.serve.corrections import read_corrections
from botformer.serve.corrections_archive import Layout, write_archive
from botformer.serve.example_images import EXAMPLES, example_png
from botformer.serve.limits import Limits
from botformer.serve.prediction_answer import at_least, prediction_answer
from botformer.serve.refusal import Refusal
from botformer.serve.request_body import BodyMemory, corrections_form, read_image
from botformer.serve.served_network import Prepared, SeenLayers, ServedNetwork
from botformer.serve.server_metrics import MeasuredRequests, ServerMetrics

log = logging.getLogger("botformer.serve")

PAGE = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
}
_FREE = ("/", "/page", "/examples", "/docs", "/openapi.json", "/health")
_KEPT_BYTES = 256 * 2**20
"""Of images, and as much again of what attention layers saw of them."""
_BODIES_BYTES = 2**30
_MOST_DECODERS = 8

T = TypeVar("T")


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
            raise Refusal(422, f"which network? give network=NAME, one of: {', '.join(self.networks)}")
        if name not in self.networks:
            raise Refusal(404, f"there is no network {name[:80]!r}; there are: {', '.join(self.networks)}")
        return self.networks[name]

    def close(self) -> None:
        """Waits until all that was begun is done."""
        for network in self.networks.values():
            network.queue.close()
        self.decoding.shutdown()
        self.clicks.shutdown()


class Click(BaseModel):
    """A place on an image that was predicted."""

    image: str = Field(max_length=64)
    network: str | None = None
    x: float = Field(allow_inf_nan=False)
    y: float = Field(allow_inf_nan=False)


def make_application(serving: Serving, access: Access) -> FastAPI:
    """The ASGI application. Its networks are closed when it is shut down."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(serving.close)

    app = FastAPI(
        title="botformer serve",
        version=botformer.__version__,
        docs_url=None,  # they fetch their scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    one_archive = asyncio.Lock()
    app.add_middleware(MeasuredRequests, metrics=serving.metrics)
    app.add_middleware(AccessGuard, access=access, free=_FREE)
    serving.metrics.watch(serving.networks.values(), {"images": serving.images, "layers": serving.seen})
    _add_error_handlers(app)
    _add_page(app)

    @app.get("/health")
    async def health() -> Response:
        """Whether the server takes requests; without the token."""
        if serving.stopping:
            return JSONResponse({"status": "stopping"}, 503)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics")
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(serving.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/networks")
    async def networks() -> Response:
        """What is served, its limits, and images to try."""
        limits = serving.limits
        return JSONResponse(
            {
                "networks": [network.describe() for network in serving.networks.values()],
                "limits": asdict(limits) | {"bytes": limits.bytes},
                "examples": [
                    {"name": each.name, "url": each.url, "about": each.about, "for": list(each.networks)}
                    for each in EXAMPLES
                ],
                "version": botformer.__version__,
            }
        )

    @app.post("/predict")
    async def predict(
        request: Request,
        network: str | None = None,
        format: Literal["json", "coco"] = "json",
        outlines: bool = False,
        threshold: Annotated[float, Query(ge=0, le=1)] = 0,
        name: Annotated[str, Query(max_length=200)] = "",
        image_id: int = 1,
    ) -> Response:
        """Predict an image: the bytes of its file, or a form with one file."""
        served = _working(serving).network(network)
        async with _in_time(serving.limits.seconds):
            with served.queue.admitted(), serving.bodies.part() as take:
                uploaded = await read_image(request, serving.limits.bytes, take)
                image = NamedBytes(name or uploaded.name or "image", uploaded.data)
                key, prepared = await _in(serving.decoding, partial(_prepare, served, image, serving.limits.megapixels))
                answer = await asyncio.wrap_future(served.queue.put(prepared))
            result = answer.result
            if isinstance(result, Unreadable):
                raise Refusal(422, f"the image cannot be read: {result.error}")
            serving.images.put(key, image.data, len(image.data))
            if answer.layers is not None:
                serving.seen.put((key, served.name), answer.layers, answer.layers.bytes)

            def in_words() -> bytes:
                chosen = at_least(result, threshold) if threshold else result
                ids = _category_ids(served)
                return _json(
                    chosen.to_coco(image_id)
                    if format == "coco"
                    else prediction_answer(chosen, key, served.name, ids, with_outlines=outlines)
                )

            return Response(await _in(serving.decoding, in_words), media_type="application/json")

    @app.post("/attention")
    async def attention(click: Click) -> Response:
        """Where the attention layers look from a place of an image that was predicted before."""
        served = _working(serving).network(click.network)
        if not served.attention:
            raise Refusal(422, f"the network {served.name} has no attention layers")
        image = serving.images.get(click.image)
        if image is None:
            raise Refusal(404, "this image is not kept any more; send it to /predict again")

        def look() -> bytes:
            state = serving.seen.get((click.image, served.name))
            if state is None:
                state = served.layers_of(image)
                serving.seen.put((click.image, served.name), state, state.bytes)
            about = {"image": click.image, "network": served.name}
            return _json(about | attention_answer(state, click.x, click.y))

        async with _in_time(serving.limits.seconds):
            return Response(await _in(serving.clicks, look), media_type="application/json")

    @app.post("/corrections")
    async def corrections(request: Request, format: Layout = "coco") -> Response:
        """Images and what a person made of their predictions -> a zip to train on."""
        _working(serving)
        async with (
            _in_time(serving.limits.seconds),
            one_archive,  # they lie on the disk meanwhile
            corrections_form(request, serving.limits.bytes) as (content, files),
        ):

            def write() -> BinaryIO:
                return write_archive(read_corrections(content), files, format, serving.limits.megapixels)

            out = await _in(serving.decoding, write)
        headers = {"Content-Disposition": 'attachment; filename="corrections.zip"'}
        return StreamingResponse(_pieces(out), media_type="application/zip", headers=headers)

    return app


def _add_page(app: FastAPI) -> None:
    """The page and its images; they hold nothing of the networks."""

    def page_file(name: str) -> Response:
        path = next((each for each in PAGE.iterdir() if each.name == name), None)
        if path is None or path.suffix not in _TYPES:
            raise Refusal(404, f"the page has no file {name[:80]!r}")
        return Response(path.read_bytes(), media_type=_TYPES[path.suffix], headers={"Cache-Control": "no-cache"})

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return page_file("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page(name: str) -> Response:
        return page_file(name)

    @app.get("/examples/{name}", include_in_schema=False)
    async def example(name: str) -> Response:
        png = example_png(name)
        if png is None:
            raise Refusal(404, f"there is no example {name[:80]!r}; /networks lists them")
        return Response(png, media_type="image/png")


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> Response:
        return JSONResponse({"detail": refusal.detail}, refusal.status, headers=refusal.headers)

    @app.exception_handler(TooManyPixels)
    async def too_many_pixels(_: Request, error: TooManyPixels) -> Response:
        return JSONResponse({"detail": f"the image is too large: it has {error.reason}"}, 413)

    @app.exception_handler(InputError)
    async def bad_input(_: Request, error: InputError) -> Response:
        words = error.reason if isinstance(error, BadImage) else str(error)
        return JSONResponse({"detail": words}, 422)

    @app.exception_handler(RequestValidationError)
    async def bad_arguments(_: Request, error: RequestValidationError) -> Response:
        said = [
            f"{'.'.join(str(part) for part in each['loc'][1:]) or 'the body'}: {each['msg']}" for each in error.errors()
        ]
        return JSONResponse({"detail": f"{'; '.join(said)}; /docs says what is expected"}, 422)

    @app.exception_handler(HTTPException)
    async def not_there(_: Request, error: HTTPException) -> Response:
        return JSONResponse({"detail": f"{error.detail}; /docs lists what there is"}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def our_fault(_: Request, error: Exception) -> Response:
        """Its words may hold paths of this machine: they are for the log, which has the trace."""
        return JSONResponse({"detail": "the server failed at this request, and its log says why"}, 500)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(2**18):
            yield piece


def _working(serving: Serving) -> Serving:
    if serving.stopping:
        raise Refusal(503, "the server is stopping; try again when it is back")
    return serving


@asynccontextmanager
async def _in_time(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Refusal(
            504, f"not done within {seconds:g} s; try again later, or start with more --seconds-per-request"
        ) from None


async def _in(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, work)


def _prepare(served: ServedNetwork, image: NamedBytes, megapixels: float) -> tuple[str, Prepared]:
    """The image's sha256, and what the network is given."""
    if not image_ending(image.data[:16]):
        raise Refusal(415, "not an image that can be read; expected a JPEG, PNG, WebP, BMP, TIFF, GIF or PPM file")
    prepared = served.predictor.network.prepare(input_image(image, 1, megapixels))
    return hashlib.sha256(image.data).hexdigest(), prepared


def _category_ids(served: ServedNetwork) -> list[int]:
    network = served.predictor.network
    return list(network.category_ids) if isinstance(network, DetectorNetwork) else []


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
