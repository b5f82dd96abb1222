"""The first image that the demo shows: nuclei outlined by the network that comes with the package."""

from pathlib import Path

from botformer.data.synthetic.nuclei_crops import read_nuclei
from botformer.predict.predictor import predictor
from botformer.predict.results import LIKELY


def draw_first_look(drawing: Path) -> int:
    """Draw the micrograph with what the network finds on it, and return how many nuclei that are."""
    found = predictor("nuclei", threshold=LIKELY)(read_nuclei()[0])
    found.draw(drawing)
    return len(found)
