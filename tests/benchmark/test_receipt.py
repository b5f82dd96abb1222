import json

from botformer.benchmark import receipt


def test_a_receipt_is_complete_and_contains_no_path(tmp_path):
    path = receipt.write_receipt(
        tmp_path / "new" / "speed.json", "Speed", "botformer benchmark", [{"ms": 1.0}], 3, "n", {"threads": 2}
    )
    written = json.loads(path.read_text())
    assert written["name"] == "speed"
    assert (written["title"], written["command"], written["seed"], written["notes"]) == (
        "Speed",
        "botformer benchmark",
        3,
        "n",
    )
    assert written["figures"] == [{"ms": 1.0}]
    assert written["hardware"]["threads"] == 2
    assert written["hardware"]["cores"] >= 1
    assert str(tmp_path) not in path.read_text()


def test_a_copy_without_history_takes_its_commit_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setattr(receipt, "_ROOT", tmp_path)
    monkeypatch.setenv("BOTFORMER_COMMIT", "a" * 40)
    written = json.loads(receipt.write_receipt(tmp_path / "x.json", "t", "c", []).read_text())
    assert written["commit"] == "a" * 40
    assert written["uncommitted_changes"] is False
