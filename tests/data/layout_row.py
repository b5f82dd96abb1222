"""One way people lay out a data set, and how it is read: the rows of the documentation's table and of the tests."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    name: str
    made_by: str
    """Programs and data sets that write it."""
    tree: tuple[str, ...]
    """Its files; where several are alike, one of them."""
    read_as: str
    """What comes of it, or "refused: " and why."""
