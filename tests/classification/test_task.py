import pickle

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, log_loss, top_k_accuracy_score
from torch import nn
from torchvision.transforms.v2.functional import normalize

from botformer.classification.metrics import Accuracy
from botformer.classification.task import ClassificationTask
from botformer.errors import InputError
from botformer.image_normalization import IMAGENET_MEAN, IMAGENET_STD, normalize_bytes
from botformer.seeding import seed_all


def some_batch(count=8, classes=7):
    torch.manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 6, 6), dtype=torch.uint8)
    return {"images": images, "labels": torch.arange(count) % classes}


def small_task(**options):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 7))
    return ClassificationTask(model, {"class_names": list("abcdefg")}, {"1.bias"}, **options)


def test_images_are_normalised_as_torchvision_does():
    images = some_batch()["images"]
    expected = normalize(images.float() / 255, list(IMAGENET_MEAN), list(IMAGENET_STD))
    torch.testing.assert_close(normalize_bytes(images), expected, rtol=1e-5, atol=1e-5)


def test_accuracy_equals_sklearn_s_and_does_not_depend_on_how_it_was_split_among_processes():
    generator = torch.Generator().manual_seed(2)
    logits, labels = torch.randn(200, 7, generator=generator), torch.randint(0, 7, (200,), generator=generator)
    files = [f"{number}.png" for number in range(200)]
    whole, parts = Accuracy(7), [Accuracy(7), Accuracy(7)]
    whole.update(logits, {"labels": labels, "files": files})
    for index, part in enumerate(parts):
        part.update(logits[index::2], {"labels": labels[index::2], "files": files[index::2]})
    merged = Accuracy(7)
    merged.merge([part.state() for part in parts])
    probabilities = logits.softmax(1).double().numpy()
    probabilities /= probabilities.sum(1, keepdims=True)
    expected = {
        "top1": float((logits.argmax(1) == labels).float().mean()),
        "balanced_accuracy": balanced_accuracy_score(labels.numpy(), logits.argmax(1).numpy()),
        "top5": top_k_accuracy_score(labels.numpy(), logits.numpy(), k=5),
        "loss": log_loss(labels.numpy(), probabilities, labels=np.arange(7)),
        "images": 200,
    }
    for accuracy in (whole, merged):
        assert accuracy.compute() == pytest.approx(expected, rel=1e-5)
        truth, prediction, images = (column.numpy() for column in accuracy.confusion())
        expected_cells = confusion_matrix(labels, logits.argmax(1))
        assert np.argwhere(expected_cells).tolist() == np.stack([truth, prediction], 1).tolist()
        assert expected_cells[truth, prediction].tolist() == images.tolist()
        records = {record["file_name"]: record for record in accuracy.predictions(list("abcdefg"))}
        assert sorted(records) == sorted(files)
        for file, row, label in zip(files, probabilities, labels.tolist(), strict=True):
            best = row.argsort()[::-1][:5]
            assert records[file].get("label") == "abcdefg"[label]
            assert [name for name, _ in records[file]["top5"]] == ["abcdefg"[index] for index in best]
            assert [p for _, p in records[file]["top5"]] == pytest.approx(row[best].tolist(), abs=1e-6)


def test_ten_thousand_classes_take_memory_for_the_images_alone():
    accuracy = Accuracy(10_000)
    logits = torch.zeros(20, 10_000).scatter_(1, torch.arange(20)[:, None] + 9_970, 1.0)
    accuracy.update(logits, {"labels": torch.arange(20) + 9_980, "files": [f"{number}.png" for number in range(20)]})
    assert len(pickle.dumps(accuracy.state())) < 10_000
    assert [column.tolist() for column in accuracy.confusion()] == [
        list(range(9_980, 10_000)), list(range(9_970, 9_990)), [1] * 20,
    ]  # fmt: skip


def test_five_classes_or_fewer_have_no_top5_and_nothing_counted_gives_zeros():
    assert Accuracy(5).compute() == {"top1": 0.0, "balanced_accuracy": 0.0, "loss": 0.0, "images": 0}


def test_label_smoothing_is_cross_entropy_with_soft_labels():
    batch, task = some_batch(), small_task(label_smoothing=0.1)
    soft = torch.full((8, 7), 0.1 / 7).scatter_add(1, batch["labels"][:, None], torch.full((8, 1), 0.9))
    expected = -(soft * task.predict(batch).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(task(batch)["loss_class"], expected)


@pytest.mark.parametrize("options", [{"mixup": 0.4}, {"cutmix": 1.0}])
def test_mixing_depends_on_the_seed_of_the_step_alone_and_leaves_the_batch_as_it_was(options):
    batch, task = some_batch(), small_task(**options)
    before = batch["images"].clone()
    losses = []
    for seed in (0, 0, 1):
        seed_all(seed, 5)
        losses.append(task(batch)["loss_class"].item())
    assert losses[0] == losses[1] != losses[2]
    assert losses[0] != pytest.approx(small_task()(batch)["loss_class"].item(), rel=1e-4)
    assert torch.equal(batch["images"], before)


def test_images_that_cannot_be_paired_are_named():
    with pytest.raises(InputError, match="the 7 images per process must be an even number"):
        small_task(mixup=0.4)(some_batch(7))


def test_tables_are_named_relative_to_the_task():
    assert small_task().no_weight_decay() == {"model.1.bias"}
