"""Several processes' means, put together, are the mean over what all of them hold."""

import pytest
import torch

from botformer.detection.batch_means import ONE_PROCESS, Processes


def test_weighted_means_of_processes_are_the_mean_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [3, 2, 2]
    values = [torch.tensor([1.0, 5.0]), torch.zeros(0), torch.tensor([2.0])]  # and of a second kind there are none
    held = [torch.tensor([len(each), 0]) for each in values]
    everywhere = torch.tensor([3.0, 0.0, 7.0])
    monkeypatch.setattr("torch.distributed.all_reduce", lambda own: own.copy_(everywhere))
    total = torch.zeros(())
    for rank, (each, count, has) in enumerate(zip(values, held, images, strict=True)):
        weight, of_none = Processes(3, rank).weights_of_means(count, has)
        assert of_none == 0
        total += weight * (each.mean() if len(each) else 0) * has / sum(images)
    assert float(total) == pytest.approx((1 + 5 + 2) / 3)


def test_one_process_keeps_its_means() -> None:
    assert ONE_PROCESS.weights_of_means(torch.tensor([4, 0]), 2).tolist() == [1, 1]
    assert ONE_PROCESS.total(5, torch.device("cpu")) == 5
