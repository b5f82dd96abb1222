from botformer.attention.triton_blocks import Blocks

CANDIDATES = {
    (k, d, h): (Blocks(16, 16, 4, 1), Blocks(32, 16, 4, 1))
    for k in ("forward", "query_gradient", "key_gradient")
    for d in ("float32",)
    for h in (16,)
}
