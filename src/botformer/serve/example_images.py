"""Images that the page offers to try: parts of the micrograph that comes with the package."""

import io
from dataclasses import dataclass
from functools import cache

from PIL import Image

from botformer.data.synthetic.nuclei_crops import STRIP_FROM_PX, read_nuclei


@dataclass(frozen=True)
class Example:
    name: str
    about: str
    networks: tuple[str, ...]
    """It is made for these."""
    left_px: int
    """Where it begins in the micrograph."""

    @property
    def url(self) -> str:
        return f"/examples/{self.name}.png"


_ORIGIN = "fluorescence micrograph of nuclei (BBBC038v1, 2018 Data Science Bowl, CC0)"
EXAMPLES = (
    Example("nuclei", f"A {_ORIGIN}; it was in the training of the network nuclei", ("nuclei",), 0),
    Example(
        "nuclei-strip",
        f"The right strip of a {_ORIGIN}; it was in the training of the network nuclei, not in that of the demo's",
        ("nuclei",),
        STRIP_FROM_PX,
    ),
)


@cache
def example_png(file: str) -> bytes | None:
    """Of NAME.png; None where there is none."""
    example = next((each for each in EXAMPLES if each.url.rpartition("/")[2] == file), None)
    if example is None:
        return None
    png = io.BytesIO()
    Image.fromarray(read_nuclei()[0][:, example.left_px :]).save(png, "PNG")
    return png.getvalue()
