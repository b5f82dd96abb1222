"""The figure of docs/explain.md: the shipped network on the shipped micrograph. python docs/images/draw_explain.py"""

from pathlib import Path

from matplotlib.figure import Figure

import botformer
from botformer import explain
from botformer.data import synthetic
from botformer.plots import style
from botformer.plots.heat_tiles import (
    around_box,
    factor_scale,
    heat_tile,
    image_tile,
    matrix_tile,
    of_largest_scale,
    times_mean_scale,
    with_box,
)

IMAGE = Path(synthetic.__file__).parent / "bbbc038/nuclei.png"
DETECTION = 20
TIMES = "\N{MULTIPLICATION SIGN}"


def main() -> None:
    model, config = botformer.load("nuclei")
    seen = explain.see(config, IMAGE)
    (found,) = model(model.preprocess([seen.pixels]))
    x1, y1, x2, y2 = box = found["boxes"][DETECTION].tolist()
    query = (y1 + y2) / 2, (x1 + x2) / 2
    (layer,) = explain.attention_heads(model, seen.pixels, query)
    flow = explain.rollout(model, seen.pixels, query)
    cam = explain.grad_cam_of_detection(model, seen.pixels, box, int(found["labels"][DETECTION])).cam
    (positions,) = explain.position_maps(model, seen.pixels)

    times = layer.attention * layer.attention[0].size
    scale = times_mean_scale(float(times.max()))
    figure = Figure(figsize=(11.0, 6.2), dpi=90, facecolor="white")
    for number, head in enumerate(times, start=1):
        tile = heat_tile(seen.image, head, layer.stride_px, scale, query)
        draw(figure, 0, number - 1, tile, f"head {number}: up to {head.max():.0f}{TIMES} the mean")
    whole = with_box(image_tile(seen.image, query), seen.image.shape[:2], box)
    draw(figure, 1, 0, whole, "the detection that is explained")
    flowing = flow.values * flow.values.size
    draw(
        figure,
        1,
        1,
        heat_tile(seen.image, flowing, flow.stride_px, scale, query),
        "rollout: what its middle is made of",
    )
    part, values, corner = around_box(seen.image, cam.values / cam.values.max(), cam.stride_px, box)
    shifted = [side - low for side, low in zip(box, corner * 2, strict=True)]
    tile = with_box(heat_tile(part, values, cam.stride_px, of_largest_scale()), part.shape[:2], shifted)
    draw(figure, 1, 2, tile, "Grad-CAM: what raises its score")
    logits = positions.logits - positions.logits.mean((1, 2), keepdims=True)
    tile = matrix_tile(logits[2], factor_scale(float(abs(logits).max())), mark_middle=True)
    draw(figure, 1, 3, tile, "positions, head 3: orange attracts")
    draw_bar(figure, scale)
    figure.savefig(Path(__file__).with_name("explain.png"))


def draw(figure: Figure, row: int, column: int, tile, title: str) -> None:
    axes = figure.add_axes((0.008 + 0.248 * column, 0.545 - 0.465 * row, 0.24, 0.41))
    axes.imshow(tile)
    axes.axis("off")
    axes.set_title(title, loc="left", fontsize=10.5, color=style.INK, pad=5)


def draw_bar(figure: Figure, scale) -> None:
    axes = figure.add_axes((0.268, 0.045, 0.46, 0.02))
    axes.imshow(scale.bar(), aspect="auto", extent=(0, 1, 0, 1))
    axes.set_yticks([])
    axes.set_xticks(
        [place for place, _ in scale.tick_places()], [words for _, words in scale.tick_places()], fontsize=9
    )
    axes.tick_params(length=0, labelcolor=style.FAINT)
    axes.spines[:].set_visible(False)
    words = "attention and rollout: times the mean"
    figure.text(0.258, 0.055, words, fontsize=9.5, color=style.FAINT, va="center", ha="right")


if __name__ == "__main__":
    main()
