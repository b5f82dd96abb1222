"""The page of an explanation: what speaks for the class or the detection, every head, positions."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from botformer.explain import CellMap, LayerHeads, LayerPositions, PositionEffect
from botformer.plots.heat_tiles import (
    ColourScale,
    around_box,
    cosine_scale,
    encoded,
    factor_scale,
    heat_tile,
    image_tile,
    matrix_tile,
    of_largest_scale,
    times_mean_scale,
    with_box,
)
from botformer.plots.html_report import (
    Bars,
    Block,
    ColourBar,
    Notice,
    Panels,
    Preformatted,
    Section,
    Table,
    write_report,
)
from botformer.report.explanation import ExplainedDetection, Explanation

TIMES = "\N{MULTIPLICATION SIGN}"
_TOP = 5


def write_explanation_page(explanation: Explanation, image: str, checkpoint: str, command: str, out: Path) -> None:
    """Write the self-contained page OUT."""
    sections = [Section("In short", _in_short(explanation, checkpoint)), _subject(explanation)]
    if explanation.heads:
        sections.append(_heads(explanation))
    if explanation.positions:
        sections.append(_positions(explanation.positions))
    sections += _without(explanation)
    sections.append(Section("Again, and in a program", _again(explanation, image, checkpoint, command)))
    write_report(out, f"What the network sees in {Path(image).name}", [each for each in sections if each.content])


def layer_title(name: str) -> str:
    """`layer4.1.conv2` -> "c5, block 2 (layer4.1.conv2)"."""
    parts = name.removeprefix("backbone.").split(".")
    if not parts[0].startswith("layer") or len(parts) < 2:
        return name
    block = f"block {int(parts[1]) + 1}" if parts[1].isdigit() else parts[1].replace("_", " ")
    return f"c{int(parts[0][-1]) + 1}, {block} ({'.'.join(parts)})"


def percent(fraction: float) -> str:
    """A probability, of which 0 and 1 are never said to be reached."""
    if fraction < 0.0005:
        return "< 0.1%"
    return "> 99.9%" if fraction > 0.9995 else f"{fraction:.1%}"


def _in_short(explanation: Explanation, checkpoint: str) -> list[Block]:
    y, x = explanation.seen.in_image(*explanation.query_yx)
    height, width = explanation.seen.image_px
    seen_height, seen_width = explanation.seen.pixels.shape[1:]
    tile = image_tile(explanation.seen.image, explanation.query_yx)
    subject = explanation.subject
    if isinstance(subject, ExplainedDetection):
        tile = with_box(tile, (seen_height, seen_width), subject.box_xyxy)
    rows = [
        ("network", f"{checkpoint} ({explanation.network})"),
        (
            "image",
            f"{width}\N{MULTIPLICATION SIGN}{height} px; the network sees it at {seen_width}{TIMES}{seen_height} px",
        ),
        ("ring", f"{explanation.query_words}: pixel y {int(y)}, x {int(x)} in the image"),
    ]
    if explanation.probabilities is not None:
        rows.insert(1, ("says", _ranked(explanation.class_names, explanation.probabilities)))
    elif isinstance(subject, ExplainedDetection):
        rows.insert(
            1,
            (
                "says",
                f"detection {subject.number} of {subject.count} (0 is the best): {subject.name}, "
                f"score {subject.score:.3f}",
            ),
        )
    blocks: list[Block] = [
        Panels([("", [(encoded(tile), "as the network sees it")])], ""),
        Table(("", ""), rows),
    ]
    if not explanation.heads:
        blocks.append(
            Notice(
                "note",
                "This network has no attention layers, so there is no attention to show and no rollout: Grad-CAM alone "
                "explains it.",
            )
        )
    if explanation.probabilities is None and subject is None:
        blocks.append(Notice("note", "No detection is explained: the position of the ring alone."))
    return blocks


def _ranked(names: Sequence[str], probabilities: np.ndarray) -> str:
    best = np.argsort(-probabilities, kind="stable")[:_TOP]
    return ", ".join(f"{names[index]} {percent(float(probabilities[index]))}" for index in best)


def _subject(explanation: Explanation) -> Section:
    """Rollout and Grad-CAM side by side."""
    subject, seen = explanation.subject, explanation.seen
    tiles, bars, words = [(encoded(image_tile(seen.image)), "the image")], [], []
    of_detection = isinstance(subject, ExplainedDetection)
    from_the_ring = explanation.probabilities is None
    if explanation.rollout is not None:
        times = explanation.rollout.values * explanation.rollout.values.size
        scale = times_mean_scale(float(times.max()))
        ring = explanation.query_yx if from_the_ring else None
        tile = heat_tile(seen.image, times, explanation.rollout.stride_px, scale, ring)
        tiles.append((encoded(tile), "attention rollout"))
        bars.append(_bar(scale, "rollout: times what each cell would give if all gave the same"))
        words.append(
            "Rollout follows the attention of all layers, and the shortcuts around them, back to the cells that "
            + ("the ring's position" if from_the_ring else "the average over the last map")
            + " is made of"
            + (
                "."
                if from_the_ring
                else "; it knows no class: what it shows was looked at, for or against whatever the network says."
            )
        )
    if subject is not None:
        scale = of_largest_scale()
        if of_detection:
            tile, level = _around_detection(explanation, subject, scale), subject.cam.level
            tiles.append((encoded(tile), f"Grad-CAM, enlarged, on {level}"))
            words.append(
                f"Grad-CAM shows which cells of {level}, the pyramid level that the box head reads this detection "
                "from, raise its score; beside the box that is read it is 0."
            )
        else:
            tile = heat_tile(seen.image, _of_largest(subject.cam), subject.cam.stride_px, scale)
            tiles.append((encoded(tile), f"Grad-CAM of {subject.name}"))
            words.append(f"Grad-CAM shows which cells of the last map (c5) raise the logit of {subject.name}.")
            if not subject.cam.values.max() > 0:
                words.append(f"Here none does: nothing on the image speaks for {subject.name}.")
        bars.append(_bar(scale, "Grad-CAM: as a fraction of its largest value"))
    if subject is None:
        heading = "What the ring's position is made of"
    elif of_detection:
        heading = f"Detection {subject.number}: {subject.name}, score {subject.score:.2f}"
    else:
        heading = f"What speaks for {subject.name} ({percent(subject.probability)})"
    return Section(heading, [Panels([("", tiles)], " ".join(words), bars)] if len(tiles) > 1 else [])


def _around_detection(explanation: Explanation, subject: ExplainedDetection, scale: ColourScale) -> np.ndarray:
    """The part of the image around the box, with Grad-CAM over it."""
    cam, image = subject.cam.cam, explanation.seen.image
    boxes = np.array([subject.box_xyxy, subject.cam.proposal_xyxy])
    both = [*boxes[:, :2].min(0), *boxes[:, 2:].max(0)]
    part, values, (left, top) = around_box(image, _of_largest(cam), cam.stride_px, both)
    shifted = [side - corner for side, corner in zip(subject.box_xyxy, (left, top) * 2, strict=True)]
    return with_box(heat_tile(part, values, cam.stride_px, scale), part.shape[:2], shifted)


def _of_largest(cam: CellMap) -> np.ndarray:
    return cam.values / max(float(cam.values.max()), np.finfo(np.float32).tiny)


def _heads(explanation: Explanation) -> Section:
    shown = [
        (
            "attention",
            "Each image is one head of one layer: the ring attends to what is bright. The weights of an image "
            "add up to 1.",
        ),
        (
            "content_alone",
            "The same heads by content alone, q\N{DOT OPERATOR}k without the position term: where cells like what the "
            "query asks for are, wherever they lie.",
        ),
        (
            "position_alone",
            "The same heads by position alone, without q\N{DOT OPERATOR}k: the direction and the distance in which the "
            "query looks, whatever lies there.",
        ),
    ]
    maps = {term: [(layer, getattr(layer, term)) for layer in explanation.heads] for term, _ in shown}
    largest = max(
        float(weights.max()) * weights[0].size for each in maps.values() for _, weights in each if weights is not None
    )
    scale = times_mean_scale(largest)
    kinds = {
        term for layer in explanation.heads for term in ("content", "position") if getattr(layer, term) is not None
    }
    blocks: list[Block] = []
    for term, caption in shown:
        if term != "attention" and len(kinds) < 2:
            continue
        rows = [(layer, weights) for layer, weights in maps[term] if weights is not None]
        bars = [_bar(scale, f"times the mean weight; dark is below 1{TIMES}. One scale for all images here")]
        panels = [_row_of_heads(explanation, layer, weights, scale) for layer, weights in rows]
        blocks.append(Panels(panels, caption, bars if term == "attention" else ()))
    if kinds == {"content"}:
        blocks.append("These layers have no positions: they attend by content alone.")
    if kinds == {"position"}:
        blocks.append("These layers attend by position alone: they have no keys.")
    return Section("Every head of every attention layer", blocks)


def _row_of_heads(
    explanation: Explanation, layer: LayerHeads, weights: np.ndarray, scale: ColourScale
) -> tuple[str, list[tuple[bytes, str]]]:
    tiles = []
    for number, head in enumerate(weights * weights[0].size, start=1):
        tile = heat_tile(explanation.seen.image, head, layer.stride_px, scale, explanation.query_yx)
        tiles.append((encoded(tile), f"head {number}, up to {head.max():.1f}{TIMES}"))
    height, width = weights.shape[1:]
    return f"{layer_title(layer.name)}, {width}{TIMES}{height} cells", tiles


def _positions(layers: Sequence[LayerPositions]) -> Section:
    centred = [layer.logits - layer.logits.mean((1, 2), keepdims=True) for layer in layers]
    scale = factor_scale(max(float(np.abs(logits).max()) for logits in centred))
    relative = all(layer.is_relative for layer in layers)
    rows = []
    for layer, logits in zip(layers, centred, strict=True):
        tiles = [
            (encoded(matrix_tile(head, scale, mark_middle=layer.is_relative), sharp=True), f"head {number}")
            for number, head in enumerate(logits, start=1)
        ]
        height, width = logits.shape[1:]
        what = f"{width}{TIMES}{height} offsets" if layer.is_relative else f"{width}{TIMES}{height} cells"
        rows.append((f"{layer_title(layer.name)}, {what}", tiles))
    if relative:
        where = "each point is an offset from the query (the ring) to a key: up is above it, right is right of it."
    else:
        where = "each point is a position on the map."
    caption = (
        "What the position tables add for the mean query of this image, as the factor by which they multiply a weight "
        f"before the softmax; {where}"
    )
    similar, cosines = [], cosine_scale()
    for layer in layers:
        tiles = [(encoded(matrix_tile(layer.similarity(name), cosines), sharp=True), name) for name in layer.tables]
        similar.append((layer_title(layer.name), tiles))
    caption += _resized(layers)
    entries = "offsets, from the most negative to the largest" if relative else "rows or columns, from the first on"
    return Section(
        "Position tables",
        [
            Panels(rows, caption, [_bar(scale, "factor of the weight, from the mean of the head")]),
            Panels(
                similar,
                f"How alike the entries of a table are: both axes are {entries}; a broad band along the diagonal means "
                "that neighbours are treated alike, a narrow one that single cells are told apart.",
                [_bar(cosines, "cosine between two entries")],
            ),
        ],
    )


def _resized(layers: Sequence[LayerPositions]) -> str:
    """How the tables came to the size of the map, of the first layer that is not as it was built."""
    for layer in layers:
        sides = layer.logits.shape[1:]
        height, width = ((side + 1) // 2 for side in sides) if layer.is_relative else sides
        built_height, built_width = layer.built_cells
        if layer.policy == "offset" and (height > built_height or width > built_width):
            return (
                f" The tables were trained for {built_width}{TIMES}{built_height} cells: beyond them the last entry is "
                "repeated, in stripes."
            )
        if layer.policy == "interpolate" and (height, width) != (built_height, built_width):
            return f" The tables were made for {built_width}{TIMES}{built_height} cells and are stretched to this map."
    return ""


def _without(explanation: Explanation) -> list[Section]:
    blocks: list[Block] = []
    both = [layer for layer in explanation.heads if layer.position is not None and layer.content is not None]
    if both:
        rows = [
            (f"{layer_title(layer.name).partition(' (')[0]}, head {number}", [round(100 * float(fraction), 1)])
            for layer in both
            for number, fraction in enumerate(layer.position_fraction, start=1)
        ]
        blocks += [
            "How much positions decide, in percent: the variance of the position term over the cells, of the variance "
            "of both terms, for the query at the ring.",
            Bars(("percent",), rows),
        ]
    if explanation.without is not None:
        blocks += _effect(explanation, explanation.without)
    elif explanation.probabilities is not None and explanation.heads:
        blocks.append("This network has no position tables: nothing would change without them.")
    return [Section("Without positions", blocks)] if blocks else []


def _effect(explanation: Explanation, effect: PositionEffect) -> list[Block]:
    before, after = effect.with_positions, effect.without_positions
    shown = ranked_classes(effect)
    names = explanation.class_names
    change = 100 * (after - before)
    best, then = int(before.argmax()), int(after.argmax())
    words = (
        f"Without positions the network still says {names[best]}"
        if best == then
        else f"Without positions the network says {names[then]} instead of {names[best]}"
    )
    only = all(layer.kind == "position_only" for layer in explanation.positions)
    flat = " It attends by positions alone, so that without them every head looks everywhere alike." if only else ""
    return [
        f"{words}: {names[best]} {percent(float(before[best]))} with them, {percent(float(after[best]))} without. "
        f"All position tables are zero in a copy of the network, so that content alone decides.{flat}",
        Table(
            ("class", "with positions", "without", "change"),
            [
                (
                    names[index],
                    percent(float(before[index])),
                    percent(float(after[index])),
                    f"{change[index]:+.1f} points",
                )
                for index in shown
            ],
        ),
    ]


def ranked_classes(effect: PositionEffect) -> list[int]:
    """The best five classes with positions and the best five without, the most probable first."""
    best = {
        int(index)
        for said in (effect.with_positions, effect.without_positions)
        for index in np.argsort(-said, kind="stable")[:_TOP]
    }
    return sorted(best, key=lambda index: (-effect.with_positions[index], index))


def _again(explanation: Explanation, image: str, checkpoint: str, command: str) -> list[Block]:
    y, x = (round(place, 1) for place in explanation.query_yx)
    lines = [
        "import botformer",
        "from botformer import explain",
        "",
        f"model, config = botformer.load({checkpoint!r})",
        f"seen = explain.see(config, {image!r})",
    ]
    if explanation.heads:
        lines.append(f"heads = explain.attention_heads(model, seen.pixels, ({y}, {x}))")
    subject = explanation.subject
    if explanation.rollout is not None:
        lines.append(
            "flow = explain.rollout(model, seen.pixels)"
            if explanation.probabilities is not None
            else f"flow = explain.rollout(model, seen.pixels, ({y}, {x}))"
        )
    if isinstance(subject, ExplainedDetection):
        box = [round(side, 2) for side in subject.box_xyxy]
        label = explanation.class_names.index(subject.name) + 1
        lines.append(f"cam = explain.grad_cam_of_detection(model, seen.pixels, {box}, label={label})")
    elif subject is not None:
        lines.append(f"cam = explain.grad_cam(model, seen.pixels, {explanation.class_names.index(subject.name)})")
    return [Preformatted(command), Preformatted("\n".join(lines))]


def _bar(scale: ColourScale, words: str) -> ColourBar:
    return ColourBar(encoded(scale.bar(), sharp=True), scale.tick_places(), words)


def command_line(image: str, checkpoint: str, options: Sequence[str]) -> str:
    """The command that makes the page again."""
    return shlex.join(["botformer", "explain", image, "--checkpoint", checkpoint, *options])
