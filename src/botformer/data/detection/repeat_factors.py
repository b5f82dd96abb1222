"""Repeat-factor sampling: images of rare classes are drawn more often (LVIS: Gupta et al. 2019, section 5.1)."""

import numpy as np

from botformer.data.detection.dataset import DetectionDataset


def repeat_factors(dataset: DetectionDataset, threshold: float) -> np.ndarray:
    """float64 (images,): of each image the greatest `max(1, sqrt(threshold / f))` of its classes, where f is the
    fraction of the images that the class is in; 1 without objects. Crowds are not counted."""
    classes = classes_of_images(dataset)
    factors = np.maximum(1.0, np.sqrt(threshold / class_frequencies(classes, len(dataset.categories)).clip(min=1e-12)))
    return np.array([factors[list(present)].max(initial=1.0) for present in classes])


def class_frequencies(classes: list[set[int]], count: int) -> np.ndarray:
    """Which classes (from 0) each image has -> float64 (count,): the fraction of the images that each class is in."""
    labels = np.array([label for present in classes for label in present], dtype=np.int64)
    images = np.bincount(labels, minlength=count)
    return images / max(len(classes), 1)


def classes_of_images(dataset: DetectionDataset) -> list[set[int]]:
    """Of each image the classes of its objects, from 0."""
    return [
        {found.label - 1 for found in dataset.image(index).annotations if not found.crowd}
        for index in range(len(dataset))
    ]
