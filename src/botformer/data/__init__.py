"""Files -> samples -> batches, for classifiers (`classification`) and for detectors (`detection`).

In both, `dataset` lists labelled images, `transforms` resizes and augments one, and `batches` makes a batch of them.
`image_io` decodes an image file, and `loader` samples the images of each batch and reads them in worker processes.
`synthetic` writes data sets that need no download.

Nothing is imported here: the loader's workers start faster with every module that they do not need.
"""
