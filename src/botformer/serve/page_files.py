"""The files of the page and the images that it offers to try; they hold nothing of the networks."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import Response

from botformer.serve.example_images import example_png
from botformer.serve.refusal import Refusal

_PAGE = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


def add_page_files(app: FastAPI) -> None:
    def page_file(name: str) -> Response:
        path = next((each for each in _PAGE.iterdir() if each.name == name), None)
        if path is None or path.suffix not in _TYPES:
            raise Refusal(404, f"the page has no file {name[:80]!r}")
        return Response(path.read_bytes(), media_type=_TYPES[path.suffix], headers={"Cache-Control": "no-cache"})

    @app.head("/", include_in_schema=False)
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
