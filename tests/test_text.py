import pytest

from botformer.text import and_more


@pytest.mark.parametrize(
    ("items", "expected"),
    [([], ""), (["a"], "a"), ("abc", "a, b, c"), ("abcd", "a, b, c and 1 more"), (range(10), "0, 1, 2 and 7 more")],
)
def test_the_rest_is_counted(items, expected):
    assert and_more(items, 3) == expected


def test_on_lines_the_count_has_its_own():
    assert and_more("abc", 2, separator="\n") == "a\nb\nand 1 more"
