import io

from rich.console import Console

from botformer.training.console import RunConsole


def record(step: int, images_per_s: float = 100.0) -> dict:
    numbers = {"epoch": step / 10, "loss": 1.25, "lr": 0.1, "images_per_s": images_per_s, "memory_mb": 321.0}
    return {"kind": "train", "step": step} | numbers


def test_lines_come_at_once_and_then_every_half_minute() -> None:
    text, now = io.StringIO(), 0.0
    console = RunConsole(0, 100, Console(file=text), clock=lambda: now)
    for step in range(1, 101):
        now = float(step)
        console.train(record(step))
    lines = text.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["1/100", "31/100", "61/100", "91/100"]
    assert all(part in lines[1] for part in ("epoch 3.10", "loss 1.2500", "lr 1.00e-01", "100 img/s", "321 MB"))
    assert lines[1].endswith("0:01:09 left")


def test_time_left_counts_only_the_steps_of_this_session() -> None:
    text, now = io.StringIO(), 0.0
    console = RunConsole(900, 1000, Console(file=text), clock=lambda: now)
    now = 2.0
    console.train(record(901))
    assert text.getvalue().strip().endswith("0:03:18 left")


def test_terminal_gets_one_bar_and_notes_above_it() -> None:
    text = io.StringIO()
    console = RunConsole(0, 10, Console(file=text, force_terminal=True, width=150))
    console.train(record(3))
    console.note("evaluation [0.5] after step 3")
    console.close()
    assert "3/10" in text.getvalue()
    assert "100 img/s" in text.getvalue()
    assert "evaluation [0.5] after step 3" in text.getvalue()
