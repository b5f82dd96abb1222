import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from botformer.detection import Settings
from botformer.detection.anchors import Anchors

STRIDES = [4, 8, 16, 32, 64]


def test_square_anchors_are_torchvisions_moved_to_the_middle_of_the_cell():
    maps = [torch.zeros(1, 1, 256 // stride, 192 // stride) for stride in STRIDES]
    ours = Anchors(STRIDES, Settings(anchor_ratios=(1.0,)))(maps)
    generator = AnchorGenerator(tuple((8 * stride,) for stride in STRIDES), ((1.0,),) * 5)
    peer = generator(ImageList(torch.zeros(1, 3, 256, 192), [(256, 192)]), maps)[0]
    shift = torch.cat([torch.full((len(level), 1), stride / 2) for level, stride in zip(ours, STRIDES, strict=True)])
    torch.testing.assert_close(torch.cat(ours), peer + shift, rtol=0, atol=0)


def test_anchors_keep_their_area_and_take_the_ratios_of_height_to_width():
    (anchors,) = Anchors([2], Settings(levels=("p2",), anchor_sizes=(13.0,), anchor_ratios=(1.6, 1.0, 0.5)))(
        [torch.zeros(1, 1, 5, 3)]
    )
    width, height = (anchors[:, 2:] - anchors[:, :2]).unbind(1)
    torch.testing.assert_close(width * height, torch.full((45,), 169.0))
    torch.testing.assert_close((height / width).reshape(15, 3), torch.tensor([1.6, 1.0, 0.5]).expand(15, 3))


def test_anchors_run_along_rows_with_the_ratios_of_a_cell_together():
    (anchors,) = Anchors([4], Settings(levels=("p2",), anchor_ratios=(1.0, 2.0)))([torch.zeros(1, 1, 2, 3)])
    middle = ((anchors[:, :2] + anchors[:, 2:]) / 2).reshape(2, 3, 2, 2).round(decimals=4)
    assert middle[1, 2].tolist() == [[10.0, 6.0], [10.0, 6.0]]
    assert middle[0, 1].tolist() == [[6.0, 2.0], [6.0, 2.0]]
