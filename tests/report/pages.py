"""Pages read back, and images that differ as photographs do."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Fails on elements that are not closed in order, and on anything that would be loaded from elsewhere."""

    def __init__(self, file: Path):
        super().__init__()
        self.open: list[str] = []
        self.images = 0
        self.words: list[str] = []
        html = file.read_text(encoding="utf-8")
        self.bytes = len(html)
        self.feed(html)
        self.close()
        assert self.open == []
        assert not re.search(r"url\(|@import|<[^>]*https?:", html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "link", "iframe", "object", "base")
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data"):
                assert value.startswith("data:image/"), value[:80]
                self.images += 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


def scene(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """Smooth patches of colour, other ones for each seed."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)


def write_folders(root: Path, counts: dict[str, int], suffix: str = ".png") -> Path:
    """SPLIT/CLASS -> so many different images 0, 1, ..."""
    seed = 0
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            seed += 1
            scene(seed).save(root / folder / f"{number}{suffix}")
    return root
