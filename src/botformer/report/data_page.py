"""The page of a data set: what was found, the worst first, with images; then all numbers."""

from pathlib import Path

from botformer.plots.html_report import Block, Gallery, Notice, Section, write_report
from botformer.report.data_tables import (
    bars_left_out,
    canvas_table,
    class_bars,
    format_table,
    objects_table,
    size_table,
    split_table,
)
from botformer.report.finding import Finding
from botformer.report.inspection import Inspection
from botformer.report.label_findings import class_samples
from botformer.report.thumbnails import cards

_SAMPLES = 24


def write_data_page(look: Inspection, out: Path) -> None:
    """Write the self-contained page OUT."""
    sections = [Section("In short", _in_short(look)), Section("What was found", _found(look))]
    if look.data.splits:
        sections += [Section("Samples", _samples(look)), *_numbers(look)]
    write_report(out, f"Data: {look.data.data}", sections)


def in_short(look: Inspection) -> str:
    """One sentence."""
    data = look.data
    if not data.splits:
        return f"{data.layout}; training would stop."
    counts = ", ".join(f"{len(split):,} {split.name}" for split in data.splits)
    classes = f"{len(data.class_names)} class{'' if len(data.class_names) == 1 else 'es'}"
    return f"{data.layout[0].upper()}{data.layout[1:]}: {counts} images, {classes}. " + (
        "Training works." if look.trainable else "Training would stop."
    )


def looked_at(look: Inspection) -> str:
    """What was not looked at, if anything."""
    return (
        "Headers alone were read (--fast): damage inside files, copies and blank images were not looked for."
        if look.headers_only
        else ""
    )


def _in_short(look: Inspection) -> list[Block]:
    content: list[Block] = [in_short(look)]
    if look.data.splits:
        content.append(split_table(look.data, look.facts))
    return [*content, *filter(None, [looked_at(look)])]


def _found(look: Inspection) -> list[Block]:
    if not look.findings:
        return ["Nothing wrong, nothing odd."]
    return [block for finding in look.findings for block in finding_blocks(look, finding)]


def finding_blocks(look: Inspection, finding: Finding) -> list[Block]:
    """The finding in words, and its images."""
    blocks: list[Block] = [Notice(finding.severity, finding.sentence, finding.fix, finding.command, finding.listed)]
    if finding.examples:
        # An object is shown with what is around it.
        alone = all(
            len(image.annotated_xyxy) + len(image.detected_xyxy) == 1
            for example in finding.examples
            for image in example.images
        )
        blocks.append(Gallery(cards(look.data.splits, finding.examples, around=alone), shown=12))
    return blocks


def _samples(look: Inspection) -> list[Block]:
    words = (
        "Training images as they are annotated. If boxes are off, the annotations are."
        if look.data.is_detection
        else "Training images of every class."
    )
    return [words, Gallery(cards(look.data.splits, class_samples(look.data, _SAMPLES)), shown=_SAMPLES)]


def _numbers(look: Inspection) -> list[Section]:
    data = look.data
    what = "Objects" if data.is_detection else "Images"
    sections = [
        Section(f"{what} of each class", [*filter(None, [bars_left_out(data)]), class_bars(data)]),
        Section("Sizes and formats", [size_table(data, look.facts), format_table(data, look.facts)]),
    ]
    if data.is_detection:
        sections.insert(
            1,
            Section(
                "Objects",
                [
                    objects_table(data),
                    "How much of the objects is narrower or lower than so many pixels, on canvases that the whole "
                    "image just fits. Under 4 px nothing is found; under 16 px little.",
                    canvas_table(data, look.canvas),
                ],
            ),
        )
    return sections
