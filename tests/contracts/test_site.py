"""The site of the documentation: built without a warning, whole, and at home without a network."""

import re
import shutil
import subprocess
import sys
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CHROMIUM = shutil.which("chromium")


class Page(HTMLParser):
    """What a page loads, what it links to, and the places on it that can be linked to."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.words: list[str] = []
        """What the links say."""
        self._in_a_link = False
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.places.add(given["id"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
            self.words.append("")
            self._in_a_link = True
        elif tag == "link" and given.get("rel") not in ("canonical",):
            self.loaded.append(given.get("href", ""))
        elif "src" in given:
            self.loaded.append(given["src"])

    def handle_endtag(self, tag):
        self._in_a_link = self._in_a_link and tag != "a"

    def handle_data(self, data):
        if self._in_a_link:
            self.words[-1] += data


@pytest.fixture
def site(tmp_path) -> Path:
    out = tmp_path / "site"
    options = ["--quiet", "--fresh-env", "--nitpicky", "--fail-on-warning", "--keep-going", "--builder", "html"]
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, DOCS, out], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr[-3000:]
    return out


def test_the_site(site):
    """In one test: where tests are divided, each process would build it."""
    pages = {file.relative_to(site).as_posix(): Page(file) for file in sorted(site.rglob("*.html"))}
    nothing_comes_from_elsewhere(site, pages)
    every_link_leads_to_a_page_and_a_place_on_it(site, pages)
    every_page_is_reached_from_the_first_one(site, pages)
    links_say_titles_not_names_of_files(pages)
    if CHROMIUM is not None:
        it_works_in_a_browser_without_a_network(site, pages)


def nothing_comes_from_elsewhere(site, pages):
    for name, page in pages.items():
        assert [address for address in page.loaded if re.match(r"(?:\w+:)?//", address)] == [], name
    for file in [*site.rglob("*.css"), *site.rglob("*.js")]:
        text = file.read_text(encoding="utf-8", errors="replace")
        assert not re.search(r"""(?:url\(|@import|fetch\(|import\()\s*["']?(?:https?:)?//""", text), file


def every_link_leads_to_a_page_and_a_place_on_it(site, pages):
    for name, page in pages.items():
        for link in page.links:
            if re.match(r"\w+:", link):
                continue
            target, place = urldefrag(link)
            file = (site / name).parent / unquote(target) if target else site / name
            assert file.is_file(), f"{name}: {link}"
            found = pages.get(file.resolve().relative_to(site.resolve()).as_posix())
            assert not place or found is None or unquote(place) in found.places, f"{name}: {link}"


def every_page_is_reached_from_the_first_one(site, pages):
    neighbours = defaultdict(set)
    for name, page in pages.items():
        for link in page.links:
            if not re.match(r"\w+:", link):
                file = ((site / name).parent / unquote(urldefrag(link)[0])).resolve()
                neighbours[name].add(file.relative_to(site.resolve()).as_posix())
    reached, waiting = {"index.html"}, ["index.html"]
    while waiting:
        new = (neighbours[waiting.pop()] & pages.keys()) - reached
        reached |= new
        waiting += new
    texts = {page.relative_to(DOCS).with_suffix(".html").as_posix() for page in DOCS.rglob("*.md")}
    assert texts - reached == set()
    downloads = {Path(link).name for page in pages.values() for link in page.links}
    assert {file.name for file in DOCS.rglob("*.ipynb")} <= downloads


def links_say_titles_not_names_of_files(pages):
    """Those of Markdown, which the site has no file of."""
    assert sum(len(page.words) for page in pages.values()) > 1000
    said = {name: [words for words in page.words if words.endswith(".md")] for name, page in pages.items()}
    assert {name: words for name, words in said.items() if words} == {}


def it_works_in_a_browser_without_a_network(site, pages):
    """Searched, and no page wider than the window of a phone."""
    pytest.importorskip("playwright")
    from tests.serve.browser_page import chromium

    with chromium() as browser:
        context, asked = browser.new_context(viewport={"width": 320, "height": 900}), []
        context.set_offline(True)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "search.html").as_uri() + "?q=rollout")
        page.locator("ul.search li a", has_text="What a network looks at").wait_for(timeout=20_000)
        for name in pages:
            if not name.startswith("decisions/0"):
                page.goto((site / name).as_uri(), wait_until="domcontentloaded")
                wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                assert wider <= 0, name
        assert {address.partition(":")[0] for address in asked} <= {"file", "data"}
