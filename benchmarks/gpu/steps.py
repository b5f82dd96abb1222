"""What the kit measures, in the order of importance: one row per step."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    name: str
    call: int
    """The call it belongs to: 1 right and fast attention, 2 networks, 3 training. Calls run in this order."""
    command: tuple[str, ...]
    """A module of this folder and its arguments; {work} and {packs} stand for those folders."""
    seconds: int
    """The most it gets before the steps after it have had their turn."""


STEPS = (
    Step("correctness", 1, ("correctness",), 90),
    Step("tuning", 1, ("tuning",), 120),
    Step("attention", 1, ("suite", "attention"), 110),
    Step("every map", 1, ("every_map",), 40),
    Step("memory checker", 1, ("memory_checker",), 60),
    Step("model", 2, ("suite", "model"), 200),
    Step("headline", 2, ("suite", "headline"), 140),
    Step("detection", 2, ("suite", "detection"), 100),
    Step("profile", 2, ("profile_step",), 60),
    Step("training", 3, ("training", "--work", "{work}", "--packs", "{packs}"), 540),
)
