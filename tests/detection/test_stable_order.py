import pytest
import torch
from torchvision.ops import batched_nms, nms

from botformer.detection.stable_order import stable_nms, stable_topk


@pytest.mark.parametrize("values", [1, 3, 40, 10_000])
@pytest.mark.parametrize("n", [1, 2, 17, 1000, 50_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_topk_is_the_beginning_of_a_stable_sort(n, values, dtype):
    scores = torch.randint(-values // 2, values // 2 + 1, (3, n), dtype=dtype)
    expected = scores.sort(descending=True, stable=True)
    for count in {1, n // 3, n - 1, n} - {0}:
        for found, exact in zip(stable_topk(scores, count), expected, strict=True):
            assert torch.equal(found, exact[:, :count])
        assert torch.equal(stable_topk(scores[1], count)[1], expected.indices[1, :count])


def test_scores_that_are_no_numbers_take_places_once():
    scores = torch.randn(200)
    scores[::3] = torch.nan
    for count in (10, 100, 200):
        assert len(stable_topk(scores, count)[1].unique()) == count


@pytest.mark.parametrize("n", [50, 3000])
def test_suppression_leaves_boxes_of_equal_scores_in_their_order(n):
    """torchvision goes two ways, for few boxes and for many."""
    corner = torch.randint(0, 300, (n, 2)).float()
    boxes, groups = torch.cat([corner, corner + 20], 1), torch.randint(0, 4, (n,))
    scores = torch.randint(0, 5, (n,)) / 5
    kept = stable_nms(boxes, scores, groups, 0.5)
    assert set(kept.tolist()) == set(batched_nms(boxes, scores, groups, 0.5).tolist())
    assert kept.tolist() == sorted(kept.tolist(), key=lambda place: (-scores[place], place))


@pytest.mark.parametrize("n", [400, 1500])
@pytest.mark.parametrize("group", [1, 80, 1203, 21841, 999_999])
def test_suppression_does_not_depend_on_the_number_of_the_group(n, group):
    generator = torch.Generator().manual_seed(n)
    clusters = torch.rand(n // 10, 2, generator=generator).repeat(10, 1)
    near, side, scores = torch.rand(3, n, 2, generator=generator)
    corner = 1000 * clusters + 4 * near
    boxes, scores = torch.cat([corner, corner + 3 + 20 * side], 1), scores[:, 0]
    kept = stable_nms(boxes, scores, torch.full((n,), group), 0.5)
    assert torch.equal(kept, nms(boxes.double(), scores.double(), 0.5))
    assert 10 < len(kept) < n
