"""Files -> samples -> batches: `sources` lists pictures, `decoding` reads one, `transforms` sizes it, `batches` deals.

Nothing is imported here: the workers of `batches` start faster for every module they do not need.
"""
