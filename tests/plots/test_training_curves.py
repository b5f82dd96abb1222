import numpy as np
import pytest
from matplotlib.figure import Figure

from botformer.plots import style, training_curves
from botformer.plots.training_curves import draw_curves


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that were saved."""
    figures: list[Figure] = []
    save = style.save

    def keep(figure, out):
        figures.append(figure)
        save(figure, out)

    monkeypatch.setattr(style, "save", keep)
    return figures


def train(step: int, **more) -> dict:
    return {
        "kind": "train",
        "step": step,
        "epoch": step / 20,
        "loss": 2.0 / step,
        "lr": 0.1,
        "images_per_s": 9.0,
    } | more


def evaluation(step: int, epoch: float, **more) -> dict:
    return {"kind": "evaluation", "step": step, "epoch": epoch} | more


def line(figure: Figure, panel: str, label: str) -> tuple[list[float], list[float]]:
    axes = next(axes for axes in figure.axes if axes.get_title(loc="left") == panel)
    found = next(line for line in axes.lines if str(line.get_label()).startswith(label))
    return list(np.asarray(found.get_xdata())), list(np.asarray(found.get_ydata()))


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for axes in figure.axes for text in axes.texts)


def test_only_the_metrics_that_are_asked_for_are_drawn(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(training_curves, "_draw_metrics", lambda axes, evaluation, names: drawn.append(names))
    records = [train(5), evaluation(5, 1, top1=0.5, top5=0.9, recall=0.1)]
    training_curves.draw_curves(records, tmp_path / "curves.png", ["top5", "top1", "absent"])
    assert drawn == [["top1", "top5"]]


def test_lines_show_the_recorded_numbers_against_epochs(tmp_path, drawn):
    records = [train(step) for step in (10, 20, 30, 40)]
    records += [
        evaluation(20, 1, top1=0.5, top5=0.8, loss=1.5, ema_loss=0.9),
        evaluation(40, 2, top1=0.6, top5=0.9, loss=1.2),
    ]
    draw_curves(records, tmp_path / "curves.png")
    (figure,) = drawn
    assert line(figure, "loss", "training") == ([0.5, 1.0, 1.5, 2.0], [0.2, 0.1, 2 / 30, 0.05])
    assert line(figure, "loss", "evaluation") == ([1.0, 2.0], [1.5, 1.2])
    assert line(figure, "loss", "evaluation, ema_loss") == ([1.0], [0.9])
    assert line(figure, "evaluation", "top1  0.6") == ([1.0, 2.0], [0.5, 0.6])
    assert line(figure, "evaluation", "top5  0.9") == ([1.0, 2.0], [0.8, 0.9])
    assert line(figure, "learning rate", "") == ([0.5, 1.0, 1.5, 2.0], [0.1] * 4)
    assert figure.axes[-1].get_xlabel() == "epoch"


def test_other_losses_are_lines_of_their_own_and_speed_is_not_a_loss(tmp_path, drawn):
    records = [train(step, box=0.1 * step, memory_mb=500) for step in (1, 2)]
    draw_curves(records, tmp_path / "curves.png")
    assert line(drawn[0], "loss", "box") == ([0.05, 0.1], [0.1, 0.2])
    labels = " ".join(str(line.get_label()) for axes in drawn[0].axes for line in axes.lines)
    assert "memory" not in labels
    assert "images_per_s" not in labels


def test_metrics_that_are_no_fractions_do_not_flatten_those_that_are(tmp_path, drawn):
    draw_curves([evaluation(5, 1, top1=0.5, seconds=70.0)], tmp_path / "curves.png")
    assert line(drawn[0], "seconds", "seconds") == ([1.0], [70.0])
    assert line(drawn[0], "top1", "top1") == ([1.0], [0.5])


def test_of_a_step_recorded_twice_the_later_record_counts(tmp_path, drawn):
    records = [train(10), train(20, loss=9.0), train(30, loss=9.0), train(20, loss=0.5), train(30, loss=0.4)]
    draw_curves(records, tmp_path / "curves.png")
    assert line(drawn[0], "loss", "training") == ([0.5, 1.0, 1.5], [0.2, 0.5, 0.4])


def test_one_point_is_visible(tmp_path, drawn):
    draw_curves([train(5)], tmp_path / "curves.png")
    axes = drawn[0].axes[0]
    assert axes.lines[0].get_marker() == "o"
    assert "not evaluated yet" in texts(drawn[0])


def test_no_records_say_so(tmp_path, drawn):
    draw_curves([], tmp_path / "curves.png")
    assert texts(drawn[0]).count("no training step recorded yet") == 2
    assert "not evaluated yet" in texts(drawn[0])
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_an_infinite_loss_is_a_gap(tmp_path, drawn):
    records = [train(1), train(2, loss=None), train(3, loss=float("inf")), train(4)]
    draw_curves(records, tmp_path / "curves.png")
    assert np.isnan(line(drawn[0], "loss", "training")[1]).tolist() == [False, True, True, False]


def test_smoothing_keeps_straight_lines_straight_and_quiets_noise():
    ramp = np.linspace(5, 1, 600)
    np.testing.assert_allclose(training_curves._smooth(ramp)[10:-10], ramp[10:-10])
    noise = np.random.default_rng(0).normal(size=600)
    assert training_curves._smooth(noise).std() < noise.std() / 3


def test_one_diverged_step_does_not_spoil_those_far_from_it():
    values = np.ones(600)
    values[100] = 1e30
    np.testing.assert_array_equal(training_curves._smooth(values)[200:], 1)


def test_a_huge_first_loss_does_not_flatten_the_rest(tmp_path, drawn):
    records = [train(step, loss=1e6 if step == 1 else 1.0) for step in range(1, 301)]
    draw_curves(records, tmp_path / "curves.png")
    assert drawn[0].axes[0].get_ylim()[1] < 10
    assert "1e+06" in texts(drawn[0])
