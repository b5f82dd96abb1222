"""Which classes a flip left to right would make wrong."""

import pytest

from botformer.data.mirrored_names import class_with_sides


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["thing", "7"], "7"),
        (["0", "1", "2"], "0"),
        (["thing", "R"], "R"),
        (["б", "д"], "б"),
        (["thing", "left shoe"], "left shoe"),
        (["arrow_right", "thing"], "arrow_right"),
        (["LEFT", "none"], "LEFT"),
        (["turnLeft", "none"], "turnLeft"),
        (["RightHand"], "RightHand"),
        (["turn_counterclockwise"], "turn_counterclockwise"),
        (["none", "turnleft", "turnright"], "turnleft"),
        (["Lefthand", "RIGHTHAND"], "Lefthand"),
        (["sharpleftturn", "sharprightturn"], "sharpleftturn"),
        (["hand_L", "hand_R"], "hand_L"),
        (["thumbL", "thumbR"], "thumbL"),
        (["model_l", "thing"], ""),
        (["cat", "dog"], ""),
        (["leftover", "copyright", "bright", "Upright"], ""),
        ([str(number) for number in range(1, 103)], ""),  # folders of species, by number
        (["犬", "猫"], ""),
        (["?", "+"], ""),
        ([], ""),
    ],
)
def test_letters_digits_and_what_says_left_or_right(names, found):
    assert class_with_sides(names) == found
