import pytest

from botformer.data.classification.shard_addresses import expand, relative_names
from botformer.errors import InputError


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("http://h/a.tar", ["http://h/a.tar"]),
        ("http://h/{08..11}.tar", [f"http://h/{number}.tar" for number in ("08", "09", "10", "11")]),
        ("http://h/{8..11}.tar", [f"http://h/{number}.tar" for number in ("8", "9", "10", "11")]),
        ("http://h/{a,b}-{0..1}.tar", [f"http://h/{name}.tar" for name in ("a-0", "a-1", "b-0", "b-1")]),
        ("http://h/{a-{0..1},b}.tar", [f"http://h/{name}.tar" for name in ("a-0", "a-1", "b")]),
        ("http://h/a.tar::https://i:8080/b.tar?x=1", ["http://h/a.tar", "https://i:8080/b.tar?x=1"]),
    ],
)
def test_braces_stand_for_what_they_do_in_a_shell(pattern: str, expected: list[str]) -> None:
    assert expand(pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("http://h/{0..9.tar", "an opening brace without a closing one"),
        ("http://h/0..9}.tar", "a closing brace without an opening one"),
        ("http://h/{0-9}.tar", "{0-9} is neither numbers, {0000..0127}, nor alternatives"),
        (f"http://h/{{0..{'9' * 5000}}}.tar", "is neither numbers, {0000..0127}, nor alternatives"),
        ("http://h/{9..0}.tar", r"counts backwards; expected is \{0\.\.9\}"),
        ("http://h/a.tar::http://h/{a,b}.tar", "http://h/a.tar occurs twice"),
        ("http://h/folder/", "http://h/folder/: not a tar.* each is named"),
        ("http://h/a.tar.gz", "not a tar"),
        ("http://h/a.tar::b.tar", "'b.tar': not an address"),
        ("http://h:port/a.tar", "not an address"),
        ("http:///a.tar", "not an address"),
        ("http://h/{0..9999999}.tar", "more than 100,000 addresses"),
    ],
)
def test_what_is_no_address_of_a_tar_is_said(pattern: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        expand(pattern)


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(InputError) as caught:
        expand("https://me:secret@host/a.tar")
    assert "host: an address with a name or a password in it is not read" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_names_are_paths_below_the_common_folder() -> None:
    assert relative_names(["http://h/x/a.tar", "http://h/x/b%20c.tar"]) == ("http://h/x/", ["a.tar", "b c.tar"])
    assert relative_names(["http://h/x/1/a.tar", "http://h/x/2/a.tar"]) == ("http://h/x/", ["1/a.tar", "2/a.tar"])
    assert relative_names(["http://h/a.tar?key=/1"]) == ("http://h/", ["a.tar"])
    assert relative_names(["http://h/a.tar", "http://i:80/a.tar"])[1] == ["h/a.tar", "i:80/a.tar"]
