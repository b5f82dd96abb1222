"""Train three small BoTNets from scratch: to outline nuclei, to classify digits, to find digits in scenes; and report.

Minutes on a CPU, no network, no downloads: the micrograph, the digits and the photographs come with installed packages.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from botformer.errors import InputError
from botformer.terminal import screen

FEWEST = 640


@dataclass(frozen=True)
class Arguments:
    out: Path = Path("runs/demo")
    """Folder for data, checkpoints, results.json and report.html. A run that is there is continued."""
    images: int = 40_000
    """Images of digits to train on. For two hundred of them there are eleven scenes of several digits, and for either a
    twentieth as many images with other digits and photographs to evaluate on."""
    epochs: int = 0
    """Epochs of each part; 0: as many as its recipe says."""


def main(arguments: list[str]) -> None:
    given = tyro.cli(Arguments, args=arguments, prog="botformer demo", description=__doc__)
    if given.images < FEWEST:
        raise InputError(f"--images {given.images} are too few to learn from; expected {FEWEST} or more")
    demo(given)


def demo(given: Arguments) -> None:
    # Heavy, and --help should not wait for it.
    from botformer.commands.demo_run import run_demo

    report, nuclei, digits, scenes = run_demo(given.out, given.images, given.epochs)
    console = screen()
    console.print(
        f"nuclei: mask AP50 {nuclei.metrics['mask']['AP50']:.3f} on the unseen strip; digits: "
        f"{digits.metrics['top1']:.1%} of {digits.metrics['images']:,} unseen ones are right; digits in scenes: "
        f"mask AP50 {scenes.metrics['mask']['AP50']:.3f} on {scenes.metrics['images']:,} unseen scenes"
    )
    console.print(f"The report: {report}")
    console.print(f"Try one on an image: botformer predict IMAGE --checkpoint {nuclei.run}")
