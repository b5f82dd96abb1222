"""Files -> samples -> batches, for classifiers and for detectors.

`sources` lists labelled images and `detection_sources` annotated ones (read by `coco` and `yolo`), `decoding` reads
one, `transforms` and `detection_transforms` size it, `dealing` says which batch it is in, `batches` and
`detection_batches` make that batch.

Nothing is imported here: the workers of `dealing` start faster for every module they do not need.
"""
