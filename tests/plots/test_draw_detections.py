from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import PathPatch, Rectangle
from PIL import Image

from botformer.plots import style
from botformer.plots.draw_detections import Shown, draw_detection_attention, draw_detections, draw_pairs

GREY = 200


@pytest.fixture
def drawn(monkeypatch):
    figures = []

    def keep(figure, out):
        FigureCanvasAgg(figure).draw()
        figures.append(figure)

    monkeypatch.setattr(style, "save", keep)
    return figures


def shown(boxes, names, size=(100, 100), scores=True, masks=True, level=GREY) -> Shown:
    """Objects that fill their boxes, on a grey image."""
    array = np.array(boxes, dtype=float).reshape(-1, 4)
    filled = []
    for x1, y1, x2, y2 in array.astype(int):
        filled.append(np.zeros(size, bool))
        filled[-1][y1:y2, x1:x2] = True
    image = np.full((*size, 3), level, np.uint8)
    return Shown(image, array, names, np.linspace(0.9, 0.5, len(array)) if scores else None, filled if masks else None)


def grid(count: int) -> list[list[int]]:
    """Boxes of 8 px, 2 px apart."""
    return [[10 * (i % 10), 10 * (i // 10), 10 * (i % 10) + 8, 10 * (i // 10) + 8] for i in range(count)]


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def outlines(axes) -> list[PathPatch]:
    return [patch for patch in axes.get_children() if isinstance(patch, PathPatch) and not patch.get_fill()]


def boxes(axes) -> list[Rectangle]:
    return [patch for patch in axes.get_children() if isinstance(patch, Rectangle) and patch is not axes.patch]


def grounds(figure) -> list[np.ndarray]:
    """What lies behind labels, in pixels of the figure."""
    return [patch.get_window_extent().extents for patch in figure.artists if isinstance(patch, Rectangle)]


def colour_at(figure, axes, x: float, y: float) -> list[int]:
    """RGB of the drawn figure at a position in pixels of the image."""
    pixels = np.asarray(figure.canvas.buffer_rgba())
    across, up = axes.transData.transform((x, y))
    return pixels[round(pixels.shape[0] - up), round(across), :3].tolist()


@pytest.mark.parametrize("size", [(256, 256), (640, 480), (2000, 2000), (64, 512), (512, 64), (1, 1)])
def test_a_small_image_is_legible_and_a_large_one_no_larger_than_a_report(tmp_path, size):
    objects = shown([[0, 0, size[1], size[0]]], ["a category with a rather long name, longer than an image"], size)
    draw_detections(objects, tmp_path / "new" / "detections.png")
    with Image.open(tmp_path / "new" / "detections.png") as image:
        assert max(image.size) >= 950
        assert image.width <= 1620
        assert image.height <= 1800
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["detections.png"]


def test_pixels_of_a_mask_change_their_colour_and_others_do_not(drawn, tmp_path):
    ring = np.zeros((100, 100), bool)
    ring[20:60, 20:60] = True
    ring[35:45, 35:45] = False
    image = np.full((100, 100, 3), GREY, np.uint8)
    draw_detections(Shown(image, np.array([[20.0, 20, 60, 60]]), ["ring"], None, [ring]), tmp_path / "unused.png")
    (figure,) = drawn
    (axes,) = figure.axes
    inside = colour_at(figure, axes, 27, 27)
    assert max(inside) - min(inside) > 20
    assert colour_at(figure, axes, 40, 40) == [GREY] * 3  # the hole
    assert colour_at(figure, axes, 80, 30) == [GREY] * 3
    assert colour_at(figure, axes, 5, 95) == [GREY] * 3


def test_outlines_and_boxes_run_between_pixels(drawn, tmp_path):
    draw_detections(shown([[10, 5, 20, 9], [0, 90, 100, 100]], ["a", "b"]), tmp_path / "unused.png")
    (axes,) = drawn[0].axes
    around = {tuple(path.get_path().get_extents().extents.tolist()) for path in outlines(axes)}
    assert around == {(9.5, 4.5, 19.5, 8.5), (-0.5, 89.5, 99.5, 99.5)}
    assert {tuple(box.get_bbox().extents.tolist()) for box in boxes(axes)} == around
    assert axes.get_xlim() == (-0.5, 99.5)
    assert axes.get_ylim() == (99.5, -0.5)


def test_one_category_is_named_once_and_a_crowd_of_it_has_outlines_alone(drawn, tmp_path):
    draw_detections(shown(grid(80), ["nucleus"] * 80), tmp_path / "unused.png")
    assert texts(drawn[0]) == ["80 × nucleus", "scores 0.50 to 0.90"]
    assert grounds(drawn[0]) == []
    assert len(outlines(drawn[0].axes[0])) == 80
    assert boxes(drawn[0].axes[0]) == []


def test_a_crowd_without_masks_keeps_its_boxes(drawn, tmp_path):
    draw_detections(shown(grid(80), ["nucleus"] * 80, masks=False), tmp_path / "unused.png")
    assert len(boxes(drawn[0].axes[0])) == 80
    assert outlines(drawn[0].axes[0]) == []


def test_a_few_objects_of_one_category_bear_their_scores(drawn, tmp_path):
    objects = [[10, 10, 40, 40], [60, 60, 90, 90]]
    draw_detections(shown(objects, ["cell"] * 2), tmp_path / "unused.png")
    draw_detections(shown(objects, ["cell"] * 2, scores=False), tmp_path / "unused.png")
    assert texts(drawn[0]) == ["2 × cell", "scores 0.50 to 0.90", "0.90", "0.50"]
    assert texts(drawn[1]) == ["2 × cell"]


def test_several_categories_are_counted_above_and_named_at_their_objects(drawn, tmp_path):
    objects = [[0, 20, 40, 60], [50, 20, 90, 60], [10, 70, 90, 95]]
    draw_detections(shown(objects, ["dog", "dog", "cat"]), tmp_path / "unused.png")
    assert texts(drawn[0])[:4] == ["3 objects", "scores 0.50 to 0.90", "2 × dog", "1 × cat"]
    assert set(texts(drawn[0])[4:]) == {"dog 0.90", "dog 0.70", "cat 0.50"}


def test_a_label_that_does_not_fit_its_small_box_is_left_out(drawn, tmp_path):
    draw_detections(shown([[10, 10, 13, 13], [20, 20, 90, 90]], ["elephant", "dog"]), tmp_path / "unused.png")
    assert "dog 0.50" in texts(drawn[0])
    assert not any(text.startswith("elephant") for text in texts(drawn[0]))


@pytest.mark.parametrize("seed", range(4))
def test_labels_stay_on_the_image_and_off_each_other(drawn, tmp_path, seed):
    random = np.random.default_rng(seed)
    corners = random.uniform(-5, 80, (40, 2))
    objects = np.concatenate([corners, corners + random.uniform(5, 60, (40, 2))], axis=1)
    names = [f"name {place % 5}" for place in range(40)]
    draw_detections(shown(objects, names, masks=False), tmp_path / "unused.png")
    (figure,) = drawn
    frame = figure.axes[0].get_window_extent().extents
    labels = [ground for ground in grounds(figure) if ground[3] <= frame[3] + 1e-6]  # the others are of the legend
    assert len(labels) > 5
    for place, (left, bottom, right, top) in enumerate(labels):
        assert left >= frame[0] - 1e-6
        assert bottom >= frame[1] - 1e-6
        assert right <= frame[2] + 1e-6
        for other in labels[:place]:
            apart = left >= other[2] or other[0] >= right or bottom >= other[3] or other[1] >= top
            assert apart, (labels[place], other)


def test_texts_fit_on_their_labels(drawn, tmp_path):
    draw_detections(shown([[10, 30, 80, 90]], ["Straße $x^2$"], scores=True), tmp_path / "unused.png")
    (figure,) = drawn
    (ground,) = grounds(figure)
    text = figure.texts[-1].get_window_extent().extents
    assert ground[0] <= text[0] < text[2] <= ground[2]
    assert ground[1] <= text[1] < text[3] <= ground[3]


def test_neighbours_of_one_category_have_different_colours(drawn, tmp_path):
    draw_detections(shown(grid(100), ["nucleus"] * 100), tmp_path / "unused.png")
    colour_of = {}
    for outline in outlines(drawn[0].axes[0]):
        x, y = outline.get_path().get_extents().extents[:2]
        colour_of[round((x + 0.5) / 10), round((y + 0.5) / 10)] = to_hex(outline.get_edgecolor())
    assert len(colour_of) == 100
    assert len(set(colour_of.values())) > 4
    same = sum(colour_of[x, y] == colour_of.get((x + 1, y)) for x, y in colour_of)
    same += sum(colour_of[x, y] == colour_of.get((x, y + 1)) for x, y in colour_of)
    assert same == 0


@pytest.mark.parametrize(("scores", "says"), [(True, "nothing found"), (False, "no objects")])
def test_an_empty_image_says_so(drawn, tmp_path, scores, says):
    draw_detections(shown([], [], scores=scores), tmp_path / "unused.png")
    assert texts(drawn[0]) == [says]
    assert colour_at(drawn[0], drawn[0].axes[0], 50, 50) == [GREY] * 3


def test_an_empty_mask_and_an_empty_box_are_no_accident(tmp_path):
    empty = Shown(np.zeros((9, 9, 3), np.uint8), np.zeros((1, 4)), ["a"], np.ones(1), [np.zeros((9, 9), bool)])
    draw_detections(empty, tmp_path / "detections.png")
    assert (tmp_path / "detections.png").exists()


def test_a_dark_image_is_brightened_and_says_so(drawn, tmp_path):
    draw_detections(shown([], [], level=51), tmp_path / "unused.png")
    draw_detections(shown([], [], level=150), tmp_path / "unused.png")
    assert "brightened 5.0 times" in texts(drawn[0])
    assert colour_at(drawn[0], drawn[0].axes[0], 50, 50) == [255] * 3
    assert texts(drawn[1]) == ["nothing found"]
    assert colour_at(drawn[1], drawn[1].axes[0], 50, 50) == [150] * 3


def test_names_are_text_on_one_line_and_no_formula(drawn, tmp_path):
    names = ["$_{", "two\nlines\tof it"]
    draw_detections(shown([[0, 20, 48, 90], [50, 20, 98, 90]], names), tmp_path / "unused.png")
    assert {"1 × $_{", "1 × two lines of it"} < set(texts(drawn[0]))


def test_a_mask_of_another_size_is_our_bug_and_leaves_no_file(tmp_path):
    wrong = Shown(np.zeros((9, 9, 3), np.uint8), np.zeros((1, 4)), ["a"], None, [np.ones((8, 9), bool)])
    with pytest.raises(AssertionError, match="8, 9"):
        draw_detections(wrong, tmp_path / "detections.png")
    assert list(tmp_path.iterdir()) == []


def test_pairs_have_the_truth_at_the_left_and_one_colour_a_category(drawn, tmp_path):
    truth = shown([[10, 10, 40, 40]], ["dog"], scores=False)
    prediction = shown([[60, 60, 90, 90], [10, 10, 40, 40]], ["cat", "dog"])
    draw_pairs([("one $", truth, prediction), ("two", prediction, truth)], tmp_path / "unused.png")
    (figure,) = drawn
    first, second, third, _ = figure.axes
    assert first.get_position().x0 < second.get_position().x0
    assert first.get_position().y0 == pytest.approx(second.get_position().y0)
    assert third.get_position().y0 < first.get_position().y0
    counts = Counter(texts(figure))
    assert counts["truth: 1 object"] == counts["prediction: 2 objects"] == counts["one $"] == counts["two"] == 1
    colours = [{to_hex(outline.get_edgecolor()) for outline in outlines(axes)} for axes in figure.axes]
    assert colours[0] < colours[1] == colours[2] > colours[3]
    assert colours[0] == colours[3]


@pytest.mark.parametrize("size", [(100, 100), (60, 480), (480, 60)])
def test_pairs_keep_the_report_width_and_the_aspect_of_their_images(tmp_path, drawn, size):
    pair = ("a title", shown([], [], size, scores=False), shown([[1, 1, 9, 9]], ["a"], size))
    draw_pairs([pair] * 3, tmp_path / "unused.png")
    assert drawn[0].get_figwidth() == style.WIDTH
    for axes in drawn[0].axes:
        panel = axes.get_window_extent()
        assert panel.height / panel.width == pytest.approx(size[0] / size[1])
        assert panel.height <= 450


def test_no_pair_is_our_bug(tmp_path):
    with pytest.raises(AssertionError, match="nothing to compare"):
        draw_pairs([], tmp_path / "pairs.png")


@pytest.mark.parametrize("size", [(100, 100), (60, 480), (480, 60)])
@pytest.mark.parametrize("layers", [1, 3, 12])
def test_attention_of_any_number_of_layers_fits_a_report(drawn, tmp_path, size, layers):
    attention = [(f"layer {layer}", np.full((4, 4), 1 / 16)) for layer in range(layers)]
    draw_detection_attention(shown([[10, 10, 50, 50]], ["cell"], size), 0, attention, tmp_path / "unused.png")
    (figure,) = drawn
    assert len(figure.axes) == 1 + layers
    assert figure.get_figwidth() == style.WIDTH
    assert figure.get_figheight() < 12
    assert texts(figure)[: 1 + layers] == ["cell 0.90", *(label for label, _ in attention)]
    panels = [axes.get_window_extent().extents for axes in figure.axes]
    for place, (left, bottom, right, top) in enumerate(panels):
        assert 0 <= left < right <= figure.bbox.width
        assert 0 <= bottom < top <= figure.bbox.height
        for other in panels[:place]:
            assert left >= other[2] or other[0] >= right or top <= other[1] or other[3] <= bottom


def test_attention_glows_where_the_weight_is_and_only_the_asked_object_is_outlined(drawn, tmp_path):
    weights = np.zeros((10, 10))
    weights[8, 1] = 1
    objects = shown([[60, 10, 90, 40], [10, 10, 40, 40]], ["cell", "cell"], level=GREY)
    draw_detection_attention(objects, 1, [("c5", weights)], tmp_path / "unused.png")
    (figure,) = drawn
    for axes in figure.axes:
        (outline,) = outlines(axes)
        assert outline.get_path().get_extents().extents.tolist() == [9.5, 9.5, 39.5, 39.5]
    glow, dark = colour_at(figure, figure.axes[1], 14.5, 84.5), colour_at(figure, figure.axes[1], 80, 80)
    assert sum(glow) > sum(dark) + 100
    assert len(set(dark)) == 1


def test_a_small_object_is_framed_to_be_found(drawn, tmp_path):
    weights = [("c5", np.full((4, 4), 1 / 16))]
    objects = shown([[50, 50, 54, 53], [10, 10, 60, 60]], ["a", "b"])
    draw_detection_attention(objects, 0, weights, tmp_path / "unused.png")
    draw_detection_attention(objects, 1, weights, tmp_path / "unused.png")
    for axes in drawn[0].axes:
        (frame,) = boxes(axes)
        assert frame.contains_point(axes.transData.transform((52, 51)))
        assert frame.get_width() > 8
    assert [boxes(axes) for axes in drawn[1].axes] == [[], []]


def test_key_points_are_discs_rings_or_nothing_and_limbs_join_what_is_known(drawn, tmp_path):
    box = [[10, 10, 90, 90]]
    points = np.array([[[20, 20, 2], [80, 20, 1], [50, 80, 2], [0, 0, 0]]], dtype=float)
    limbs = ((0, 1), (1, 2), (2, 3))
    plain = shown(box, ["person"], masks=False)
    draw_detections(replace(plain, keypoints=points, skeleton=limbs), tmp_path / "a.png")
    axes = drawn[0].axes[0]
    hidden, visible = (line for line in axes.get_lines() if line.get_marker() == "o")
    assert hidden.get_xydata().tolist() == [[79.5, 19.5]]
    assert visible.get_xydata().tolist() == [[19.5, 19.5], [49.5, 79.5]]
    colour = to_hex(boxes(axes)[0].get_edgecolor())
    assert to_hex(visible.get_markerfacecolor()) == to_hex(hidden.get_markeredgecolor()) == colour
    assert to_hex(hidden.get_markerfacecolor()) != colour
    (skeleton,) = outlines(axes)
    assert skeleton.get_path().vertices.tolist() == [[19.5, 19.5], [79.5, 19.5], [79.5, 19.5], [49.5, 79.5]]
    assert to_hex(skeleton.get_edgecolor()) == colour


def test_a_crowd_keeps_its_skeletons_and_loses_its_boxes(drawn, tmp_path):
    many = grid(20)
    points = np.array([[[x1, y1, 2], [x2, y2, 2]] for x1, y1, x2, y2 in many], dtype=float)
    crowd = replace(shown(many, ["person"] * 20, masks=False), keypoints=points, skeleton=((0, 1),))
    draw_detections(crowd, tmp_path / "a.png")
    axes = drawn[0].axes[0]
    assert not boxes(axes)
    assert len(outlines(axes)) == 20
