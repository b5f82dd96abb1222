"""How fast a predictor reads files and predicts, beside a bare loop over its network on tensors that are ready.

python benchmarks/predictor_speed.py --data DIR [--images 1000] [--rounds 5] [--checkpoint RUN ...]

DIR has photographs, in folders of any depth. Both take batches of one size in float32; the bare loop's are decoded,
resized and normalised before, and lie in memory. They take turns, each going first in every second round; the ratio is
taken within a round. Without --checkpoint: a botnet50 of random weights at 224 px, which is as fast as a trained one.
Writes results/predictor_cpu.json.
"""

import argparse
import shlex
import statistics
import sys
import time
from pathlib import Path

import torch

import botformer
from botformer.benchmark.receipt import write_receipt
from botformer.create.from_checkpoint import Loaded
from botformer.data.image_files import find_files, is_image
from botformer.data.image_inputs import input_image
from botformer.data.loader import evenly_spread
from botformer.detection.task import padded_images
from botformer.image_normalization import normalize_bytes
from botformer.predict.classifier import ClassifierNetwork
from botformer.predict.predictor import Predictor

RESULTS = Path(__file__).parents[1] / "results"
NOTES = (
    "bare: the network alone, on batches that are ready in memory. predictor: from the files, with decoding in threads "
    "and results. ratio: predictor / bare within a round, the median; low and high: of all rounds."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--checkpoint", nargs="+", default=[])
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--out", type=Path, default=RESULTS / "predictor_cpu.json")
    given = parser.parse_args()
    names = [name for name in find_files(given.data).files if is_image(name)]
    files = [given.data / names[place] for place in evenly_spread(len(names), given.images)]
    networks = [(source, source) for source in given.checkpoint] or [("botnet50, random weights", random_botnet50())]
    rows = [measure(name, source, files, given.rounds, given.batch_size) for name, source in networks]
    title = f"The predictor from files beside a bare loop over its network, {len(files)} photographs"
    # Folders of this machine are no part of a result.
    arguments = [Path(argument).name if "/" in argument else argument for argument in sys.argv[1:]]
    command = shlex.join(["python", "benchmarks/predictor_speed.py", *arguments])
    print(write_receipt(given.out, title, command, rows, 0, NOTES))


def random_botnet50() -> Loaded:
    torch.manual_seed(0)
    model = botformer.create_model("botnet50", num_classes=1000)
    config = {
        "task": "classification", "model": "botnet50", "options": {}, "image_size": 224, "images": {"size": 224},
        "class_names": [f"class {number}" for number in range(1000)],
    }  # fmt: skip
    return Loaded(model, config)


def measure(name: str, source: str | Loaded, files: list[Path], rounds: int, batch_size: int | None) -> dict:
    predictor = botformer.predictor(source, "cpu", batch_size)
    batches = ready_batches(predictor, files)
    ways = {"bare": lambda: bare_loop(predictor, batches), "predictor": lambda: list(predictor.stream(files))}
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    for way in ways.values():  # to warm up
        way()
    for number in range(rounds):
        for way in list(ways)[:: 1 if number % 2 else -1]:
            begin = time.perf_counter()
            ways[way]()
            speeds[way].append(len(files) / (time.perf_counter() - begin))
        print(f"{name}: round {number + 1}: " + ", ".join(f"{way} {each[-1]:.1f}/s" for way, each in speeds.items()))
    ratios = [ours / bare for ours, bare in zip(speeds["predictor"], speeds["bare"], strict=True)]
    return {
        "network": name,
        "model": predictor.model_config["model"],
        "side_px": predictor.network.side,
        "batch_size": predictor.batch_size,
        "images": len(files),
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "bare_images_per_s": round(statistics.median(speeds["bare"]), 2),
        "predictor_images_per_s": round(statistics.median(speeds["predictor"]), 2),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_low": round(min(ratios), 3),
        "ratio_high": round(max(ratios), 3),
    }


def ready_batches(predictor: Predictor, files: list[Path]) -> list:
    """As the network takes them."""
    network, size = predictor.network, predictor.batch_size
    prepared = [network.prepare(input_image(file, 1, 100.0)) for file in files]
    chunks = [prepared[first : first + size] for first in range(0, len(prepared), size)]
    if isinstance(network, ClassifierNetwork):
        pixels = [torch.stack([each.pixels.permute(1, 2, 0) for each in chunk]).permute(0, 3, 1, 2) for chunk in chunks]
        return [normalize_bytes(each, network.model.mean, network.model.std) for each in pixels]
    batches = []
    for chunk in chunks:
        canvases = torch.stack([each.canvas.permute(1, 2, 0) for each in chunk]).permute(0, 3, 1, 2)
        images = padded_images({"images": canvases, "targets": [{"size": each.extent} for each in chunk]})
        batches.append((images, [each.size_px[::-1] for each in chunk]))
    return batches


def bare_loop(predictor: Predictor, batches: list) -> None:
    model = predictor.model
    with torch.inference_mode():
        for batch in batches:
            if isinstance(batch, tuple):
                model.padded_detections(*batch)
            else:
                model(batch)


if __name__ == "__main__":
    main()
