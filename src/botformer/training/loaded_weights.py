"""What a run remembers of the weights that it started from, so that it continues without them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LoadedWeights:
    source: str = ""
    """Where they came from; empty: the network started from random weights."""
    sha256: str = ""
    """Of the file that they were in."""
    names: tuple[str, ...] = ()
    """Of the parameters and buffers that were loaded, relative to the task. Parameters among them learn at
    `optimizer.loaded_rate`."""

    def __str__(self) -> str:
        return f"{self.source}, sha256 {self.sha256}" if self.source else "random"


RANDOM = LoadedWeights()
