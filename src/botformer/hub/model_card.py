"""The model card: what a network is, what it learnt from, what was measured, and what nobody knows of it."""

import json
import re
from pathlib import Path
from typing import Any

from botformer import __version__
from botformer.atomic_write import write_text
from botformer.backbone.variants import ROWS
from botformer.create.from_checkpoint import load
from botformer.errors import InputError
from botformer.hub.card_facts import CardFacts, Measurement
from botformer.read_file import understood
from botformer.report.training_command import training_command
from botformer.text import and_more, duration

_TASKS = {
    "mask_rcnn": ("image-segmentation", "finds objects and outlines each of them (Mask R-CNN)"),
    "faster_rcnn": ("object-detection", "finds objects and puts a box around each of them (Faster R-CNN)"),
    "keypoint_rcnn": ("keypoint-detection", "finds objects and their key points (Keypoint R-CNN)"),
    "": ("image-classification", "says which of {} classes an image shows"),
}
"""Detector -> the hub's name of the task, and what it does."""
_NAMED = 30
"""Classes that the card names; the file has all."""
_FEW = 200
"""Images on which a figure is said to be uncertain."""
_UNKNOWN = "not known: {} does not say"


def write_card(source: str | Path, file: str | Path, repository: str = "", licence: str = "", data: str = "") -> Path:
    """Write the model card of a trained network as `file`, and return it. Arguments as in `prepare_folder`.

    What is neither in the network's file nor in its run is said to be unknown. Paths of this machine are left out.

    Raises:
        InputError: no such network, or a licence that cannot be one.
    """
    if licence and not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", licence, re.ASCII):
        raise InputError(f"{licence!r} is not the name of a licence; expected one such as apache-2.0 or cc-by-4.0")
    file = Path(file)
    loaded, facts = load(source), CardFacts(source)
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    with understood(facts.file.parent, "train again, or give the network alone, as botformer.save writes it"):
        text = _Card(loaded.model_config, facts, parameters, repository, licence, data).text()
    write_text(file, text)
    return file


class _Card:
    def __init__(
        self, config: dict[str, Any], facts: CardFacts, parameters: int, repository: str, licence: str, data: str
    ) -> None:
        self.config, self.facts, self.parameters = config, facts, parameters
        self.repository, self.licence, self.data = repository, licence.lower(), data
        self.address = f"hf://{repository}" if repository else "FOLDER"
        self.names = config.get("class_names") or [name for _, name in config["categories"]]
        self.task, self.does = _TASKS[config.get("detector", "")]
        self.said_by = "the run" if facts.run else "the file"

    def text(self) -> str:
        names = and_more([_plain(name) for name in self.names], _NAMED)
        parts = [
            self._front_matter(),
            f"# {self.repository.partition('/')[2] or self.config['model']}",
            f"{self._kind()}, `{self.config['model']}`, that {self.does.format(len(self.names))}: {names}.",
            self._use(),
            self._about(),
            self._measured(),
            self._limits(),
            self._training(),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _front_matter(self) -> str:
        from huggingface_hub import ModelCardData  # slow to import

        family = ["botnet", "bottleneck-transformer"] if self._attends() else ["resnet"]
        tags = ["pytorch", *family, self.config.get("detector", "classifier")]
        dataset = [self.data] if re.fullmatch(r"[\w.-]+/[\w.-]+", self.data, re.ASCII) else None
        known = ModelCardData(
            license=self.licence or None,
            library_name="botformer",
            pipeline_tag=self.task,
            tags=[tag.replace("_", "-") for tag in tags],
            datasets=dataset,
        )
        return f"---\n{known.to_yaml()}\n---"

    def _attends(self) -> bool:
        row = ROWS[self.config["model"]]
        return row.c5 == "attention" or any(kind == "attention" for _, kind in row.inserted)

    def _kind(self) -> str:
        if self._attends():
            return "A Bottleneck Transformer ([BoTNet](https://arxiv.org/abs/2101.11605))"
        if any(kind == "non_local" for _, kind in ROWS[self.config["model"]].inserted):
            return "A residual network of convolutions with a Non-Local block, which attends to the whole image"
        return "A residual network of convolutions, without attention"

    def _use(self) -> str:
        if (channels := self.config.get("in_chans", 3)) != 3:
            return f"""## Use

```python
import botformer

model, model_config = botformer.load("{self.address}")
logits = model(model.preprocess(images))    # (B, {channels}, height, width), uint8 or 0..1
```

The weights are safetensors: loading them runs no code of this repository."""
        return f"""## Use

```python
import botformer

predictor = botformer.predictor("{self.address}")
print(predictor("image.jpg"))
```

or `botformer predict image.jpg --checkpoint {self.address}`. The weights are safetensors: loading them runs no code of
this repository."""

    def _about(self) -> str:
        facts, images = self.facts, self.config["images"]
        side = f"{images.get('test_size') or images['size']} px"
        rows = [
            ("network", f"`{self.config['model']}`, {self.parameters:,} parameters, images of {side}"),
            ("trained on", self._trained_on()),
            ("started from", self._started_from()),
            ("licence of the weights", self.licence or "not stated by whoever published them: ask before you use them"),
        ]
        if facts.shipped:
            rows.insert(1, ("origin", f"the network `{facts.shipped}` that comes with botformer"))
        return _table(("", ""), rows)

    def _trained_on(self) -> str:
        known = [_plain(self.data)] if self.data else []
        if not known and self.facts.data_name:
            name = _plain(self.facts.data_name)
            known.append(f"a data set called {name}, of whose origin and licence nothing is said")
        if self.facts.trained_on:
            known.append(_plain(self.facts.trained_on))
        return "; ".join(known) or _UNKNOWN.format(self.said_by)

    def _started_from(self) -> str:
        origin = self.facts.origin
        if origin is not None:
            about = origin.about or "their origin and their licence are not known"
            return f"`{origin.source}`: {about} (sha256 `{origin.sha256[:16]}`)"
        if self.facts.state is None:
            return _UNKNOWN.format(self.said_by)
        return "random weights"

    def _measured(self) -> str:
        found = self.facts.measurements()
        if not found:
            return f"## Measured\n\nNothing: {self.said_by} has no evaluation of these weights."
        return "\n\n".join(["## Measured", *map(_figures, found), self._what_they_are_not(found)])

    def _what_they_are_not(self, found: list[Measurement]) -> str:
        lines = []
        count = self.facts.evaluations
        if any(each.chosen for each in found) and count != 1:
            among = f" among those of {count} evaluations" if count else ""
            lines.append(
                f"Of the weights{among} those were kept that do best on the validation images, so figures on these "
                "flatter a little."
            )
        if not any(each.on == "the test images" for each in found):
            lines.append("No figure is of images that had no say in the training.")
        few = [each for each in found if each.images is not None and each.images < _FEW]
        lines += [f"{_images(each)} are few: others of the kind may give figures some per cent away." for each in few]
        lines.append("They were measured once, on images like those of the training; of other images they say nothing.")
        return "What these figures are not:\n\n" + "\n".join(f"* {line}" for line in dict.fromkeys(lines))

    def _limits(self) -> str:
        lines = [
            f"It knows {len(self.names)} {'class' if len(self.names) == 1 else 'classes'} and nothing else; "
            + (
                "an image of anything else is given one of them all the same."
                if "detector" not in self.config
                else "anything else is background to it, or is taken for one of them."
            ),
            "Scores are not probabilities of being right: nobody has calibrated them.",
            "Whether it treats all groups of people, places or devices alike was not looked at.",
        ]
        run = self.facts.run
        if run and not run.finished:
            lines.append(
                f"Its training has not ended: {run.epochs_done:.4g} of {run.epochs_planned:.4g} epochs are done."
            )
        return "## Limits\n\n" + "\n".join(f"* {line}" for line in lines)

    def _training(self) -> str:
        facts, recipe = self.facts, self.facts.recipe
        if not recipe:
            return f"## How it was trained\n\nNot known: {self.said_by} has no journal.\n\n{_written_by()}"
        assert facts.state
        command = training_command(recipe, "DIR", "OUT")
        versions = ", ".join(f"{name} {value}" for name, value in _versions(facts.state.versions).items())
        seconds = facts.run.training_s if facts.run else None
        took = f"; all steps together took {duration(seconds)}" if seconds else ""
        return f"""## How it was trained

The weights are those after step {facts.state.step:,}{took}.
With the same versions, data and hardware this command trains it again:

```
{command}
```

Versions: {versions}.

<details><summary>The whole recipe</summary>

```json
{json.dumps(recipe, indent=1, ensure_ascii=False)}
```

</details>

{_written_by()}"""


def _images(measured: Measurement) -> str:
    return "1 image" if measured.images == 1 else f"{measured.images:,} images"


def _figures(measured: Measurement) -> str:
    of = "" if measured.images is None else f" ({_images(measured)})"
    rows = [(words, f"{value:.3f}") for words, value in measured.figures]
    return _table((f"on {measured.on}{of}", ""), rows)


def _versions(versions: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in versions.items() if name != "first weights"}


def _written_by() -> str:
    return f"This card was written by botformer {__version__} from files; what is in none of them is not claimed."


def _table(header: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    lines = [f"| {header[0]} | {header[1]} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {first} | {second} |" for first, second in rows)])


def _plain(text: str) -> str:
    """As Markdown shows it letter by letter, on one line."""
    return re.sub(r"([\\`*_|<>\[\]#])", r"\\\1", " ".join(text.split()))
