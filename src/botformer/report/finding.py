"""What is found in a data set: rows of how bad, what, where, how many, which, and what to do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
"""error: training would fail. warning: it would work, and results would be worse or flattered. note: good to know."""

_ORDER: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class ImageRef:
    """An image of the data."""

    split: str
    index: int
    annotated_xyxy: tuple[tuple[float, float, float, float], ...] = ()
    """Boxes to draw, in pixels of the upright image."""
    detected_xyxy: tuple[tuple[float, float, float, float], ...] = ()


@dataclass(frozen=True)
class Example:
    """One case of a finding: some images side by side, and words below them."""

    images: Sequence[ImageRef]
    text: str


@dataclass(frozen=True)
class Finding:
    severity: Severity
    what: str
    """A sentence with the number in it."""
    where: str
    """The split, the splits, the classes, or all."""
    count: int
    """Images, objects or classes concerned; at least 1."""
    fix: str = ""
    """What to do, in a sentence."""
    command: str = ""
    """That does it, or shows more."""
    listed: Sequence[str] = ()
    """Names and reasons, for what has no image to show."""
    examples: Sequence[Example] = ()

    @property
    def sentence(self) -> str:
        """What was found, and where unless that is everywhere."""
        return self.what if self.where == "all" else f"{self.what} ({self.where})"


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """By severity; those of one severity stay in their order."""
    return sorted(findings, key=lambda finding: _ORDER.index(finding.severity))
