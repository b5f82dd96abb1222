"""How `botformer serve` bears many clients, some of whose images are broken, beside the predictor by itself.

python benchmarks/serve_load.py [--clients 1 8 64] [--seconds 60] [--broken 0.05] [--checkpoint RUN]

The server is a process of its own on this machine's loopback; its clients are threads of this one, which send one image
after the other over connections that stay open, and share the cores with it. The predictor alone reads the same images
from memory, before the server and after it, for half of the time each. Without --checkpoint: a botnet50 of random
weights at 224 px, which is as fast as a trained one. Writes results/serve_cpu.json.
"""

import argparse
import http.client
import io
import os
import random
import re
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

import botformer
from botformer.benchmark.receipt import write_receipt
from botformer.environment import cores
from botformer.predict.predictor import Predictor

RESULTS = Path(__file__).parents[1] / "results"
IMAGES = 200
THEIR_FAULTS = (400, 413, 415, 422)
NOTES = (
    "p50_ms, p95_ms: of the images that are whole, from the request to the answer. not_theirs: answers other than 200 "
    "to such, other than 400, 413, 415 and 422 to broken ones, and broken connections. memory_mib: of the server's "
    "process, from a quarter of the time on, first and last. The predictor alone: the mean of before and after."
)


@dataclass
class Seen:
    """What the clients saw."""

    seconds: list[float] = field(default_factory=list)
    broken: int = 0
    not_theirs: Counter = field(default_factory=Counter)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=60.0, help="per number of clients")
    parser.add_argument("--broken", type=float, default=0.05, help="fraction of the images")
    parser.add_argument("--checkpoint")
    parser.add_argument("--out", type=Path, default=RESULTS / "serve_cpu.json")
    given = parser.parse_args()
    images = [jpeg(number) for number in range(IMAGES)]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = given.checkpoint or write_botnet50(Path(folder) / "botnet50.safetensors")
        before = predictor_speed(checkpoint, images, given.seconds / 2)
        with server(checkpoint) as port:
            rows = [load(port, clients, given.seconds, given.broken, images) for clients in given.clients]
        after = predictor_speed(checkpoint, images, given.seconds / 2)
    alone = statistics.mean([before, after])
    name = Path(given.checkpoint).name if given.checkpoint else "botnet50, random weights"
    about = {"network": name, "cores": cores()}
    rows = [
        {**about, "way": "predictor alone", "images_per_s": round(alone, 2), "images_per_s_all": [before, after]},
        *(about | row | {"ratio": round(row["images_per_s"] / alone, 3)} for row in rows),
    ]
    for row in rows:
        print(row, flush=True)
    title = f"botformer serve under load, {given.broken:.0%} of the images broken"
    # Folders of this machine are no part of a result.
    arguments = [Path(argument).name if "/" in argument else argument for argument in sys.argv[1:]]
    command = shlex.join(["python", "benchmarks/serve_load.py", *arguments])
    print(write_receipt(given.out, title, command, rows, 0, NOTES))


def write_botnet50(file: Path) -> str:
    torch.manual_seed(0)
    names = [f"class {number}" for number in range(1000)]
    network = botformer.create_model("botnet50", num_classes=len(names))
    botformer.save(network, botformer.model_config(network, names), file)
    return str(file)


def jpeg(number: int) -> bytes:
    coarse = np.random.default_rng(number).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC).save(out, "JPEG")
    return out.getvalue()


def broken(image: bytes, rng: random.Random) -> bytes:
    """Cut short, no image, nothing, or one that says it is far too large."""
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\1\0\0\0\1\0\0\x08\2\0\0\0"
    return rng.choice([image[: len(image) // 2], b"no image at all", b"", header + bytes(4)])


def predictor_speed(checkpoint: str, images: list[bytes], seconds: float) -> float:
    """Images per second."""
    predictor = Predictor(checkpoint, "cpu")
    list(predictor.stream(images[: predictor.batch_size]))
    begin, done = time.perf_counter(), 0
    for _ in predictor.stream(cycle(images)):
        done += 1
        if time.perf_counter() - begin > seconds:
            break
    return round(done / (time.perf_counter() - begin), 2)


@contextmanager
def server(checkpoint: str) -> Iterator[int]:
    command = [sys.executable, "-m", "botformer.cli", "serve", checkpoint, "--port", "0", "--device", "cpu"]
    command += ["--no-browser", "--seconds-per-request", "300"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            found = re.search(r"the page: http://127\.0\.0\.1:(\d+)/", line)
            if found:
                break
        else:
            sys.exit("the server did not start")
        try:
            yield int(found[1])
        finally:
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
            assert process.wait() == 0, f"the server ended with {process.returncode}"


def load(port: int, clients: int, seconds: float, fraction: float, images: list[bytes]) -> dict[str, Any]:
    everyone = [Seen() for _ in range(clients)]
    before, begin = metrics(port), time.perf_counter()
    threads = [
        threading.Thread(target=client, args=(port, number, begin + seconds, fraction, images, seen))
        for number, seen in enumerate(everyone)
    ]
    for thread in threads:
        thread.start()
    memory = []
    while any(thread.is_alive() for thread in threads):
        memory.append(metrics(port)["process_resident_memory_bytes"] / 2**20)
        time.sleep(min(1.0, seconds / 20))
    took, after = time.perf_counter() - begin, metrics(port)
    warm = memory[len(memory) // 4 :]
    latencies = sorted(value for seen in everyone for value in seen.seconds)
    not_theirs = sum((seen.not_theirs for seen in everyone), Counter())
    if not_theirs:
        print(f"{clients} clients: not their fault: {dict(not_theirs)}", file=sys.stderr)
    batches, in_batches = (
        after[f"botformer_batch_images_{what}"] - before[f"botformer_batch_images_{what}"] for what in ("count", "sum")
    )
    row = {
        "way": f"server, {clients} client{'s' * (clients > 1)}",
        "clients": clients,
        "seconds": round(took, 1),
        "images": len(latencies),
        "images_per_s": round(len(latencies) / took, 2),
        "p50_ms": round(1000 * statistics.median(latencies), 1),
        "p95_ms": round(1000 * latencies[int(0.95 * (len(latencies) - 1))], 1),
        "images_per_batch": round(in_batches / batches, 2),
        "broken": sum(seen.broken for seen in everyone),
        "not_theirs": sum(not_theirs.values()),
        "memory_mib_first": round(warm[0]),
        "memory_mib_last": round(warm[-1]),
        "memory_mib_highest": round(max(memory)),
    }
    print(row, flush=True)
    return row


def client(port: int, number: int, end: float, fraction: float, images: list[bytes], seen: Seen) -> None:
    rng = random.Random(number)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=320)
    while time.perf_counter() < end:
        image = rng.choice(images)
        is_broken = rng.random() < fraction
        begin = time.perf_counter()
        try:
            connection.request("POST", "/predict", broken(image, rng) if is_broken else image)
            reply = connection.getresponse()
            reply.read()
        except (OSError, http.client.HTTPException) as error:
            seen.not_theirs[type(error).__name__] += 1
            connection.close()
            continue
        if is_broken:
            seen.broken += 1
            if reply.status not in THEIR_FAULTS:
                seen.not_theirs[f"{reply.status} to a broken image"] += 1
        elif reply.status == 200:
            seen.seconds.append(time.perf_counter() - begin)
        else:
            seen.not_theirs[reply.status] += 1
    connection.close()


def metrics(port: int) -> dict[str, float]:
    """Name -> value, of the one network."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=320)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}
    return {"botformer_batch_images_count": 0.0, "botformer_batch_images_sum": 0.0} | found


if __name__ == "__main__":
    main()
