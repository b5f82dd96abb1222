"""Images of where attention looks, and of what decides."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sheet import draw_bar, sheet, show

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

TIMES = "\N{MULTIPLICATION SIGN}"
WORDS = "times the mean weight"
Names = dict[str, Any]


def heads(names: Names) -> Figure:
    """The four heads of the one layer of a detector."""
    seen, query, layer = names["seen"], names["query"], names["layer"]
    times = layer.attention * layer.attention[0].size
    scale = times_mean_scale(float(times.max()))
    figure, (panels,) = sheet([[_aspect(seen.image)] * len(times)], bar=True)
    for number, (axes, head_times) in enumerate(zip(panels, times, strict=True), start=1):
        tile = heat_tile(seen.image, head_times, layer.stride_px, scale, query)
        show(axes, tile, f"head {number}: up to {head_times.max():.0f}{TIMES}")
    draw_bar(figure, scale, WORDS)
    return figure


def terms(names: Names) -> Figure:
    """Both terms of the logits, each alone, and together."""
    seen, query, layer = names["seen"], names["query"], names["layer"]
    number = 0
    maps = {
        "content alone, q·k": layer.content_alone[number],
        "position alone, q·r": layer.position_alone[number],
        "both: the attention": layer.attention[number],
    }
    scale = times_mean_scale(max(float(each.max()) * each.size for each in maps.values()))
    stride = layer.stride_px
    top, left = (int(max(at - 128, 0) // stride * stride) for at in query)
    part = seen.image[top : top + 256, left : left + 256]
    cells = np.s_[top // stride : (top + 256) // stride, left // stride : (left + 256) // stride]
    ring = query[0] - top, query[1] - left
    figure, (panels,) = sheet([[_aspect(part)] * 3], bar=True)
    for axes, (words, weights) in zip(panels, maps.items(), strict=True):
        show(axes, heat_tile(part, (weights * weights.size)[cells], stride, scale, ring), words)
    draw_bar(figure, scale, WORDS)
    return figure


def layers(names: Names) -> Figure:
    """Every head of every layer of a classifier: a row per layer."""
    seen, query, found = names["seen"], names["query"], names["layers"]
    scale = times_mean_scale(max(float(layer.attention.max()) * layer.attention[0].size for layer in found))
    rows = [[_aspect(seen.image)] * (len(layer.attention) + 1) for layer in found]
    figure, panels = sheet(rows, tallest=1.6, bar=True)
    for layer, (first, *others) in zip(found, panels, strict=True):
        height, width = layer.attention.shape[1:]
        show(first, image_tile(seen.image, query), f"{layer.name.removesuffix('.conv2')}, {height}x{width} cells")
        for number, (axes, weights) in enumerate(zip(others, layer.attention, strict=True), start=1):
            tile = heat_tile(seen.image, weights * weights.size, layer.stride_px, scale, query)
            show(axes, tile, f"head {number}: {weights.max() * weights.size:.1f}{TIMES}")
    draw_bar(figure, scale, WORDS)
    return figure


def rollout(names: Names) -> Figure:
    """The image, the product of all layers, and what speaks for the class."""
    seen, flow, cam = names["seen"], names["flow"], names["cam"]
    times = flow.values * flow.values.size
    scale = times_mean_scale(float(times.max()))
    figure, (panels,) = sheet([[_aspect(seen.image)] * 3])
    show(panels[0], image_tile(seen.image), f"what the network sees: {names['name']}")
    show(panels[1], heat_tile(seen.image, times, flow.stride_px, scale), f"rollout: up to {times.max():.1f}{TIMES}")
    tile = heat_tile(seen.image, cam.values / cam.values.max(), cam.stride_px, of_largest_scale())
    show(panels[2], tile, f"Grad-CAM of {names['name']}")
    return figure


def grad_cam(names: Names) -> Figure:
    """A detection, and which cells of the pyramid raise its score."""
    seen, box, cam = names["seen"], names["box"], names["cam"].cam
    part, values, corner = around_box(seen.image, cam.values / cam.values.max(), cam.stride_px, box)
    shifted = [side - low for side, low in zip(box, corner * 2, strict=True)]
    figure, ((whole, close, heat),) = sheet([[_aspect(seen.image), _aspect(part), _aspect(part)]], bar=True)
    show(whole, with_box(image_tile(seen.image), seen.image.shape[:2], box), "the detection")
    show(close, with_box(image_tile(part), part.shape[:2], shifted), "closer")
    tile = heat_tile(part, values, cam.stride_px, of_largest_scale())
    show(heat, with_box(tile, part.shape[:2], shifted), f"what raises its score, on {names['cam'].level}")
    draw_bar(figure, of_largest_scale(), "fraction of the largest value")
    return figure


def positions(names: Names) -> Figure:
    """What the position tables add, over the offsets from the query that were trained."""
    (layer,) = names["layers"]
    middle, reach = np.array(layer.logits.shape[1:]) // 2, np.array(layer.built_cells) - 1
    (top, left), (bottom, right) = middle - reach, middle + reach + 1
    trained = layer.logits[:, top:bottom, left:right]
    centred = trained - trained.mean((1, 2), keepdims=True)
    scale = factor_scale(float(np.abs(centred).max()))
    figure, (panels,) = sheet([[_aspect(centred[0])] * len(centred)], bar=True)
    for number, (axes, logits) in enumerate(zip(panels, centred, strict=True), start=1):
        show(axes, matrix_tile(logits, scale, mark_middle=True), f"head {number}", smooth=False)
    draw_bar(figure, scale, "factor of the weight")
    return figure


def sizes(names: Names) -> Figure:
    """One network, one set of position tables, parts of one image that are long, small and odd."""
    tiles, scale = [], times_mean_scale(64)
    for (height, width), (pixels, query, layer) in names["looked"].items():
        weights = layer.attention.mean(0)
        image = pixels.permute(1, 2, 0).numpy()
        tile = heat_tile(image, weights * weights.size, layer.stride_px, scale, query)
        tiles.append((tile, f"{height}x{width} px"))
    rows = [tiles[:4], tiles[4:]]
    figure, panels = sheet([[_aspect(tile) for tile, _ in row] for row in rows], tallest=2.6, bar=True)
    for line, row in zip(panels, rows, strict=True):
        for axes, (tile, words) in zip(line, row, strict=True):
            show(axes, tile, words)
    draw_bar(figure, scale, WORDS)
    return figure


def listing(names: Names) -> Figure:
    """Attention on an even map, from some cells: where cells are alike, only positions can tell them apart."""
    looked = names["looked"]
    scale = times_mean_scale(
        max(float(weights.max()) * weights.size for maps in looked.values() for _, weights in maps)
    )
    rows = {"relative": "the paper's layer", "blog": "the copied listing"}
    figure, panels = sheet([[1.0] * 4] * 2, bar=True)
    for line, (kind, words) in zip(panels, rows.items(), strict=True):
        for axes, ((y, x), weights) in zip(line, looked[kind], strict=True):
            even = np.full((len(weights) * 16, len(weights) * 16, 3), 128, np.uint8)
            tile = heat_tile(even, weights * weights.size, 16, scale, ((y + 0.5) * 16, (x + 0.5) * 16))
            show(axes, tile, words if axes is line[0] else "")
    draw_bar(figure, scale, WORDS)
    return figure


def _aspect(array: np.ndarray) -> float:
    return array.shape[0] / array.shape[1]
