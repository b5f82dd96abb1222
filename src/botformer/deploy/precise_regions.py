"""OpenVINO in bfloat16: where a detector reads its maps stays in float32.

OpenVINO computes in float32 what lies between the last convolution or product and a result, everything before in
bfloat16. The coordinates at which RoIAlign reads come before the heads, and bfloat16 has eight bits for them: boxes
would move by pixels. As results of the model they are computed in float32.
"""

from typing import Any


def keep_regions_precise(model: Any) -> None:
    """Give an `openvino.Model` the coordinates of every RoIAlign as results after its own, in place."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "ROIAlign":
            model.add_outputs([node.input(1).get_source_output()])
