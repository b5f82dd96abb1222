"""The routes of the server."""

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, BinaryIO, Literal, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field, FiniteFloat
from starlette.types import ASGIApp

import botformer
from botformer.data.image_inputs import NamedBytes
from botformer.data.image_io import FORMATS, image_ending
from botformer.predict.results import Unreadable
from botformer.serve import route_descriptions as words
from botformer.serve.access_guard import Access, AccessGuard
from botformer.serve.api_page import STYLE, CurlLines, api_page
from botformer.serve.attention_answer import attention_answer
from botformer.serve.corrections import Corrections
from botformer.serve.corrections_archive import Layout, write_archive
from botformer.serve.error_answers import add_error_answers
from botformer.serve.example_images import EXAMPLES
from botformer.serve.limits import Places
from botformer.serve.page_files import add_page_files
from botformer.serve.prediction_answer import at_least, prediction_answer
from botformer.serve.refusal import Refusal
from botformer.serve.request_body import corrections_form, demand_known, limited, read_image
from botformer.serve.served_network import Prepared, ServedNetwork
from botformer.serve.server_metrics import MeasuredRequests
from botformer.serve.serving import Serving
from botformer.serve.unread_body import UnreadBody

log = logging.getLogger("botformer.serve")

_FREE = ("/", "/page", "/examples", "/docs", "/openapi.json", "/health")
_CLICK_BYTES = 4000
_UNREAD_TIMES = 4
"""Of the bytes of an image: what is read of a request that is refused."""

T = TypeVar("T")


class Click(BaseModel):
    """A place on an image that was predicted."""

    image: str = Field(max_length=64)
    network: str | None = None
    x: FiniteFloat
    y: FiniteFloat


_CLICK_BODY = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": Click.model_json_schema()}}}
}


def make_application(serving: Serving, access: Access) -> ASGIApp:
    """The application. Its networks are closed when it is shut down."""
    guarded = AccessGuard(_routes(serving, access), access, _FREE)
    return UnreadBody(MeasuredRequests(guarded, serving.metrics), _UNREAD_TIMES * serving.limits.bytes)


def _routes(serving: Serving, access: Access) -> FastAPI:

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(serving.close)

    app = FastAPI(
        title="botformer serve",
        version=botformer.__version__,
        description=words.ABOUT,
        docs_url=None,  # they fetch their scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    one_archive = asyncio.Lock()
    clicks = Places(serving.limits.queue, lambda: 1)
    serving.metrics.watch(serving.networks.values(), {"images": serving.images, "layers": serving.seen})
    add_error_answers(app)
    add_page_files(app)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        with_token = access.token is not None
        first = next(iter(serving.networks.values())).describe()
        curl = CurlLines(str(request.base_url).rstrip("/"), first, with_token=with_token)
        return Response(api_page(app.openapi(), curl, with_token=with_token), media_type="text/html")

    @app.get("/docs/style.css", include_in_schema=False)
    async def docs_style() -> Response:
        return Response(STYLE.read_bytes(), media_type="text/css")

    @app.head("/health", include_in_schema=False)
    @app.get("/health", responses=words.answers(words.HEALTH, 503))
    async def health() -> Response:
        """Whether the server takes requests. It needs no token."""
        if serving.stopping:
            return JSONResponse({"status": "stopping"}, 503)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", responses=words.answers(None, media_type="text/plain"))
    async def metrics() -> Response:
        """For Prometheus: requests by route and status, their times, batches, the queue, what is kept, the process."""
        return Response(serving.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/networks", responses=words.answers(words.NETWORKS))
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

    @app.post(
        "/predict",
        responses=words.answers(words.PREDICT, 400, 404, 413, 415, 422, 429, 503, 504),
        openapi_extra=words.IMAGE_BODY,
    )
    async def predict(
        request: Request,
        network: Annotated[str | None, Query(description="one of /networks; not needed where there is one")] = None,
        format: Annotated[Literal["json", "coco"], Query(description="coco: COCO's results, a list")] = "json",
        outlines: Annotated[bool, Query(description="also polygons around the masks")] = False,
        threshold: Annotated[float, Query(ge=0, le=1, description="least score of what is returned")] = 0,
        name: Annotated[str, Query(max_length=200, description="of the image, which the answer repeats")] = "",
        image_id: Annotated[int, Query(description="of the image in COCO's results")] = 1,
    ) -> Response:
        """Classify an image, or detect objects on it, best first. The body is the image file, or a form with one.

        Detections have "segmentation" (COCO's run lengths) where the network gives masks, and "keypoints" [x, y, score]
        where it gives these. A classifier gives "top5", a list of {"label", "probability"}, and "probabilities" of all
        classes in their order.
        """
        demand_known(request)
        served = _working(serving).network(network)
        async with _in_time(serving.limits.seconds):
            with served.queue.places.one(), serving.bodies.part() as take:
                uploaded = await read_image(request, serving.limits.bytes, take)
                image = NamedBytes(name or uploaded.name or "image", uploaded.data)
                key, prepared = await _in(serving.decoding, partial(_prepare, served, image))
                answer = await asyncio.wrap_future(served.queue.put(prepared))
                result = answer.result
                if isinstance(result, Unreadable):
                    raise Refusal(422, f"the image cannot be read: {result.error}")
                serving.keep(key, image.data, served, answer.layers)

                def write() -> bytes:
                    chosen = at_least(result, threshold) if threshold else result
                    if format == "coco":
                        return _json(chosen.to_coco(image_id))
                    ids = served.category_ids
                    return _json(prediction_answer(chosen, key, served.name, ids, with_outlines=outlines))

                return Response(await _in(serving.decoding, write), media_type="application/json")

    @app.post(
        "/attention", responses=words.answers(words.ATTENTION, 404, 422, 429, 503, 504), openapi_extra=_CLICK_BODY
    )
    async def attention(request: Request) -> Response:
        """Where the heads of the attention layers look from a place (x, y) of an image that /predict has seen.

        "attention" and "content" (without the position term) are height times width bytes in base64, row by row; a
        weight is (byte / 255)^4 * max, and those of a head sum to 1. Cell (i, j) begins at pixel (i, j) * stride_px of
        what the network sees, which shows seen_box_xyxy of the image at seen_px (height, width).
        """
        async with _in_time(serving.limits.seconds):
            body = limited(request, _CLICK_BYTES, "a click has less than a kilobyte of JSON")
            click = Click.model_validate_json(b"".join([piece async for piece in body]))
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
                serving.keep(click.image, image, served, state)
            about = {"image": click.image, "network": served.name}
            return _json(about | attention_answer(state, click.x, click.y))

        async with _in_time(serving.limits.seconds):
            with clicks.one():
                answer = await _in(serving.clicks, look)
        return Response(answer, media_type="application/json")

    @app.post(
        "/corrections",
        responses=words.answers(None, 400, 413, 422, 503, 504, media_type="application/zip", words="a zip"),
        openapi_extra=words.CORRECTIONS_BODY,
    )
    async def corrections(
        request: Request,
        format: Annotated[Layout, Query(description="coco: of objects; folders: of classes")] = "coco",
    ) -> Response:
        """Images, and what a person made of their predictions, as a zip to train on.

        The form has a part annotations and a file per image, called as in it. Objects have a category_id and polygons
        or a box_xyxy, and key points [x, y, v] if their category names some; images of a classification have a label.
        What reaches beyond an image is cut.
        """
        demand_known(request)
        _working(serving)
        async with (
            _in_time(serving.limits.seconds),
            one_archive,  # they lie on the disk meanwhile
            corrections_form(request, serving.limits.bytes) as (content, files),
        ):

            def write() -> BinaryIO:
                return write_archive(Corrections.model_validate_json(content), files, format, serving.limits.megapixels)

            out = await _in(serving.decoding, write)
        headers = {"Content-Disposition": 'attachment; filename="corrections.zip"'}
        return StreamingResponse(_pieces(out), media_type="application/zip", headers=headers)

    return app


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


def _prepare(served: ServedNetwork, image: NamedBytes) -> tuple[str, Prepared]:
    """The image's sha256, and what the network is given."""
    if not image_ending(image.data[:16]):
        raise Refusal(415, f"not an image that can be read; expected a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file")
    return hashlib.sha256(image.data).hexdigest(), served.prepare(image)


def _json(content: Any) -> bytes:
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
