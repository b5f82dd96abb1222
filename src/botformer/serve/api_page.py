"""/docs: the routes of the OpenAPI description as a page of its own, which fetches nothing from elsewhere.

FastAPI's pages load their scripts from a server on the internet.
"""

import hashlib
import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from botformer.serve.example_images import EXAMPLES, example_png

STYLE = Path(__file__).with_suffix(".css")
_METHODS = ("get", "post")


class CurlLines:
    """A line per route that works when it is pasted, on the example of the first network.

    Args:
        address: of the server, as the reader reaches it, without a slash at the end.
        network: as /networks describes it.
        with_token: lines send the token, from the shell's variable TOKEN.
    """

    def __init__(self, address: str, network: Mapping[str, Any], *, with_token: bool) -> None:
        self._address = address
        self._curl = 'curl -s -H "Authorization: Bearer $TOKEN"' if with_token else "curl -s"
        self._name, self._task = network["name"], network["task"]
        self._lines: Mapping[str, Callable[[], str]] = {
            "/predict": self._predict,
            "/attention": self._attention,
            "/corrections": self._corrections,
        }

    def line(self, path: str) -> str:
        return self._lines.get(path, lambda: f"{self._curl} {self._address}{path}")()

    @property
    def _image(self) -> str:
        return f"curl -s {self._address}{EXAMPLES[0].url} |"

    def _predict(self) -> str:
        name = quote(self._name, safe="")
        return f'{self._image} {self._curl} --data-binary @- "{self._address}/predict?network={name}&threshold=0.5"'

    def _attention(self) -> str:
        click = json.dumps({"image": _example_sha256(), "network": self._name, "x": 100, "y": 200})
        return f"{self._curl} -H 'Content-Type: application/json' -d {shlex.quote(click)} {self._address}/attention"

    def _corrections(self) -> str:
        image: dict[str, Any] = {"name": "nuclei.png", "width": 512, "height": 512}
        content: dict[str, Any] = {"task": self._task, "images": [image]}
        if self._task == "detection":
            content["categories"] = [{"id": 1, "name": "nucleus"}]
            image["objects"] = [{"category_id": 1, "polygons": [[[62, 157], [85, 157], [74, 177]]]}]
        else:
            image["label"] = "cells"
        layout = "coco" if self._task == "detection" else "folders"
        annotations = shlex.quote(f"annotations={json.dumps(content)}")
        return (
            f"{self._image} {self._curl} -F {annotations} -F 'image=@-;filename=nuclei.png' "
            f'"{self._address}/corrections?format={layout}" -o corrections.zip'
        )


def api_page(openapi: Mapping[str, Any], curl: CurlLines, *, with_token: bool) -> str:
    """The HTML page of an OpenAPI description."""
    return "\n".join(_page(openapi, curl, with_token))


def _page(openapi: Mapping[str, Any], curl: CurlLines, with_token: bool) -> Iterator[str]:
    title = f"{openapi['info']['title']} {openapi['info']['version']}"
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<link rel="icon" href="/page/icon.svg" type="image/svg+xml">'
    yield f'<title>{escape(title)}</title>\n<link rel="stylesheet" href="/docs/style.css">\n</head>\n<body>\n<main>'
    yield f"<h1>{escape(title)}: the HTTP API</h1>"
    yield f"<p>{escape(openapi['info']['description'])} The description that programs read: "
    yield '<a href="/openapi.json">/openapi.json</a>. The page to try the networks on: <a href="/">/</a>.</p>'
    if with_token:
        yield "<p>Requests need the token that the server printed. Once per shell:</p>\n<pre>TOKEN=...</pre>"
    for path, methods in openapi["paths"].items():
        for method in _METHODS:
            if method in methods:
                yield from _route(path, method, methods[method], curl)
    yield "</main>\n</body>\n</html>\n"


def _route(path: str, method: str, route: Mapping[str, Any], curl: CurlLines) -> Iterator[str]:
    yield f"<h2><span>{method.upper()}</span> {escape(path)}</h2>"
    yield f"<p>{escape(route['description'])}</p>"
    yield f"<pre>{escape(curl.line(path))}</pre>"
    parameters = route.get("parameters", [])
    if parameters:
        yield "<table><tr><th>parameter</th><th>type</th><th>default</th><th></th></tr>"
        for each in parameters:
            schema = each["schema"]
            default = json.dumps(schema["default"]) if "default" in schema else ""
            cells = (each["name"], _type(schema), default, each.get("description", ""))
            yield f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        yield "</table>"
    yield "<table><tr><th>status</th><th>answer</th></tr>"
    for status, answer in route["responses"].items():
        yield f"<tr><td>{status}</td><td>{escape(answer['description'])}</td></tr>"
    yield "</table>"
    examples = [
        content["example"] for content in route["responses"]["200"].get("content", {}).values() if "example" in content
    ]
    for example in examples:
        text = example if isinstance(example, str) else json.dumps(example, indent=1)
        yield f"<pre>{escape(text)}</pre>"


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(schema["enum"])
    kinds = [each.get("type", "") for each in schema.get("anyOf", [schema])]
    limits = [f"{name} {schema[key]}" for key, name in (("minimum", "from"), ("maximum", "to")) if key in schema]
    return " ".join([" | ".join(kind for kind in kinds if kind != "null"), *limits])


@cache
def _example_sha256() -> str:
    return hashlib.sha256(example_png(EXAMPLES[0].url.rpartition("/")[2]) or b"").hexdigest()
