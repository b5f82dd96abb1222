"""The first image that the demo shows: nuclei outlined by the network that comes with the package."""

from pathlib import Path

from PIL import Image

from botformer.create.from_checkpoint import load_for_rgb
from botformer.data.synthetic.nuclei_crops import read_nuclei
from botformer.detection import Detector
from botformer.plots.draw_detections import draw_detections
from botformer.predict.detector import detect_image, to_draw
from botformer.recipes.schema import DetectionImages

_THRESHOLD = 0.5


def draw_first_look(drawing: Path) -> int:
    """Draw the micrograph with what the network finds on it, and return how many nuclei that are."""
    model, model_config = load_for_rgb("nuclei")
    assert isinstance(model, Detector)
    image = Image.fromarray(read_nuclei()[0]).convert("RGB")
    found = detect_image(model, image, DetectionImages(**model_config["images"]).canvas)
    likely = [index for index, score in enumerate(found["scores"].tolist()) if score >= _THRESHOLD]
    categories = [(number, name) for number, name in model_config["categories"]]
    drawing.parent.mkdir(parents=True, exist_ok=True)
    draw_detections(to_draw(image, found, likely, categories), drawing)
    return len(likely)
