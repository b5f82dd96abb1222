import subprocess
import sys

import pytest

from botformer.plots import style


def test_figures_leave_no_global_state():
    code = (
        "import sys; from pathlib import Path; import numpy as np, tempfile\n"
        "from botformer.plots.confusion_matrix import draw_confusion\n"
        "three = np.arange(3)\n"
        "draw_confusion(three, three, three, ['a', 'b', 'c'], Path(tempfile.mkdtemp()) / 'c.png')\n"
        "sys.exit('matplotlib.pyplot' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_failed_save_leaves_the_old_file_unchanged(tmp_path, monkeypatch):
    out = tmp_path / "figure.png"
    style.save(style.new_figure(1), out)
    before = out.read_bytes()
    figure = style.new_figure(2)

    def fail(target, **_):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        style.save(figure, out)
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]
