import numpy as np
import pytest
from PIL import Image

from botformer.plots import confusion_matrix, style
from botformer.plots.confusion_matrix import draw_confusion


@pytest.fixture
def drawn(monkeypatch):
    figures = []
    monkeypatch.setattr(style, "save", lambda figure, out: figures.append(figure))
    return figures


def draw_matrix(matrix, class_names, out):
    truth, prediction = np.nonzero(matrix)
    draw_confusion(truth, prediction, np.asarray(matrix)[truth, prediction], class_names, out)


def names(count: int) -> list[str]:
    return [f"class {index}" for index in range(count)]


@pytest.mark.parametrize("count", [2, 10, 20, 21, 300, 1001])
def test_every_number_of_classes_gives_a_figure_of_report_width(tmp_path, count):
    matrix = np.random.default_rng(count).integers(0, 50, (count, count))
    draw_matrix(matrix, names(count), tmp_path / "new" / "confusion.png")
    with Image.open(tmp_path / "new" / "confusion.png") as image:
        assert image.width == 1620
        assert image.height < 1700
        assert image.convert("L").getextrema() != (255, 255)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["confusion.png"]


def test_rows_are_the_truth_and_columns_the_prediction(drawn, tmp_path):
    matrix = np.array([[5, 7], [0, 3]])  # seven times the truth 0 was taken for 1
    draw_matrix(matrix, ["zero", "one"], tmp_path / "unused.png")
    axes = drawn[0].axes[0]
    assert {(text.get_position(), text.get_text()) for text in axes.texts} == {
        ((0, 0), "5"),
        ((1, 0), "7"),
        ((1, 1), "3"),
    }
    assert axes.get_ylabel() == "truth"
    assert axes.get_xlabel().startswith("prediction")
    assert axes.get_title(loc="left") == "8 of 15 correct (53.3%)"


def test_a_class_without_images_is_blank(drawn, tmp_path):
    draw_matrix(np.array([[4, 0], [0, 0]]), ["there", "absent"], tmp_path / "unused.png")
    shown = drawn[0].axes[0].images[0].get_array()
    assert np.asarray(shown).tolist() == [[1, 0], [0, 0]]


def test_without_an_evaluation_the_title_says_so(drawn, tmp_path):
    draw_matrix(np.zeros((3, 3), int), names(3), tmp_path / "unused.png")
    assert drawn[0].axes[0].get_title(loc="left") == "nothing was evaluated"


def test_many_classes_list_their_worst_confusions_first(drawn, tmp_path):
    matrix = np.diag(np.full(400, 30))
    matrix[7, 311] = 20
    matrix[250, 3] = 10
    draw_matrix(matrix, names(400), tmp_path / "unused.png")
    listed = [text.get_text() for text in drawn[0].axes[1].texts]
    assert listed == ["class 7 → class 311", "20  (40%)", "class 250 → class 3", "10  (25%)"]


def test_a_single_confusion_among_a_thousand_classes_stays_visible():
    one = np.array([998]), np.array([401]), np.array([1]), np.array([0.5])
    small = confusion_matrix._largest_of_blocks(confusion_matrix._Cells(*one), 999, 4)
    assert small.shape == (250, 250)
    assert small[249, 100] == 0.5
    assert small.sum() == 0.5


def test_of_ten_thousand_classes_those_that_are_most_often_confused_are_a_table(drawn, tmp_path):
    truth = np.array([*range(10_000), 4000, 9999, 8])
    prediction = np.array([*range(10_000), 9999, 17, 4000])
    images = np.array([10] * 10_000 + [30, 5, 2])
    draw_confusion(truth, prediction, images, names(10_000), tmp_path / "unused.png")
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["class 8", "class 17", "class 4000", "class 9999"]
    counts = {text.get_position(): text.get_text() for text in axes.texts}
    assert counts == {(0, 0): "10", (1, 1): "10", (2, 2): "10", (3, 3): "10", (3, 2): "30", (1, 3): "5", (2, 0): "2"}
    title = axes.get_title(loc="left")
    assert title == "100,000 of 100,037 correct (100.0%); the 4 of 10,000 classes most often confused"
    assert np.asarray(axes.images[0].get_array())[2, 3] == pytest.approx((30 / 40) ** 0.5)  # of the whole row


def test_names_are_not_parsed_as_formulas(tmp_path):
    draw_matrix(np.eye(2, dtype=int), ["$_{", "$\\frac"], tmp_path / "confusion.png")
    matrix = np.ones((30, 30), int)
    draw_matrix(matrix, ["$_{"] * 30, tmp_path / "many.png")
