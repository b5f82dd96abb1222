"""Training as timm's train.py does it: its loader, mixup, optimiser, schedule, averaged weights and saver."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import Mixup, create_dataset, create_loader, resolve_data_config
from timm.loss import SoftTargetCrossEntropy
from timm.models import load_checkpoint
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import CheckpointSaver, ModelEmaV3, NativeScaler

import botformer.timm  # noqa: F401  (registers our networks)
from botformer.errors import InputError
from botformer.timm.__main__ import main

ROOT = Path(__file__).parents[2]
TRAIN_SCRIPTS = sorted(ROOT.glob("build/timm-*/train.py"))


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("timm") / "data"
    generator = np.random.default_rng(0)
    for split in ("train", "validation"):
        for name in ("cats", "dogs"):
            (folder / split / name).mkdir(parents=True)
            for number in range(2):
                pixels = generator.integers(0, 256, (50, 60, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def test_a_step_of_timms_training_loop(image_folder, tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("botnet_nano.botformer", num_classes=2, drop_rate=0.1, drop_path_rate=0.1)
    model.set_grad_checkpointing()
    config = resolve_data_config({}, model=model)
    loader = create_loader(
        create_dataset("", root=str(image_folder), split="train", is_training=True),
        batch_size=4,
        is_training=True,
        use_prefetcher=False,
        num_workers=0,
        input_size=config["input_size"],
        mean=config["mean"],
        std=config["std"],
        auto_augment="rand-m9-mstd0.5",
    )
    mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=2)
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-2, weight_decay=0.05, layer_decay=0.75)
    scheduler = CosineLRScheduler(optimizer, t_initial=10, warmup_t=2, warmup_lr_init=1e-3)
    ema = ModelEmaV3(model, decay=0.5)
    saver = CheckpointSaver(model, optimizer, model_ema=ema, checkpoint_dir=tmp_path, recovery_dir=tmp_path)
    scaler, before = NativeScaler(device="cpu"), {n: p.detach().clone() for n, p in model.named_parameters()}
    for update in range(2):
        for images, labels in loader:
            images, targets = mixup(images, labels)
            loss = SoftTargetCrossEntropy()(model(images), targets)
            scaler(loss, optimizer, clip_grad=1.0, parameters=model.parameters())
            optimizer.zero_grad()
            ema.update(model, step=update)
        scheduler.step(update + 1)
    assert all(not torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    saver.save_checkpoint(0)
    again = timm.create_model("botnet_nano.botformer", num_classes=2, checkpoint_path=str(tmp_path / "last.pth.tar"))
    for name, tensor in ema.module.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    load_checkpoint(again, str(tmp_path / "last.pth.tar"), use_ema=False)
    assert torch.equal(again.conv1.weight, model.conv1.weight)


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "botformer.timm", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_a_script_of_timms_knows_our_networks(tmp_path):
    script = tmp_path / "a script.py"
    script.write_text(
        "import sys, timm, beside\nassert __name__ == '__main__'\n"
        "print(timm.create_model(sys.argv[1], num_classes=2).num_features, sys.argv[2:])\n"
    )
    (tmp_path / "beside.py").write_text("")
    done = run(script, "botnet_nano.botformer", "--lr", "1")
    assert (done.returncode, done.stdout.strip()) == (0, "256 ['--lr', '1']"), done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"), [([], "expected the path of a script"), (["none.py"], "none.py is not")]
)
def test_a_script_that_is_missing_is_said(arguments, says, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["botformer.timm", *arguments])
    with pytest.raises(InputError, match=says):
        main()


@pytest.mark.skipif(not TRAIN_SCRIPTS, reason="timm's train.py is no part of its packages; put it beside its tests")
def test_train_py_itself(image_folder, tmp_path):
    done = run(
        *(TRAIN_SCRIPTS[-1], image_folder, "--model", "botnet_nano.botformer", "--num-classes", 2, "--epochs", 1),
        *("--batch-size", 4, "--workers", 0, "--output", tmp_path, "--layer-decay", 0.75, "--opt", "adamw"),
        *("--mixup", 0.8, "--model-ema", "--device", "cpu", "--no-prefetcher"),
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("last.pth.tar"))
