"""The fields of a recipe. Standard library only: a recipe is data, and reading it must cost nothing."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from botformer.errors import InputError
from botformer.recipes.check import check_fields
from botformer.recipes.detector_settings import Kind, Settings
from botformer.recipes.model_options import ModelOptions

Device = Literal["auto", "cuda", "mps", "cpu"]
"""Where a network runs. auto: on a GPU if there is one."""


@dataclass(frozen=True)
class Model(ModelOptions):
    """The network: a row of the table, its options, and the weights it starts from."""

    name: str = "botnet50"
    """A row of `botformer models`."""
    weights: str = ""
    """Weights to start from: a .safetensors or .pth file, a run's folder, hf://owner/name, or a network of the package
    by name. imagenet: weights trained on ImageNet, where there are any for the row (see docs/models.md); the log says
    which. A classifier's or a ResNet's go into a detector's backbone. Empty: random weights."""


@dataclass(frozen=True)
class Images:
    """What happens to an image before the network sees it."""

    size: int = 224
    """Side of the square the network sees, in pixels."""
    fit: Literal["crop", "letterbox"] = "crop"
    """How an image that is not square becomes one: crop (the middle is kept) or letterbox (all of it, with a grey
    margin; for long images, of which the middle shows too little)."""
    augmentation: Literal["standard", "crop", "none"] = "standard"
    """standard: random resized crop and flip; crop: pad 4 px and crop, and flip; none."""
    least_area: float = 0.08
    """standard: the smallest random crop, as a fraction of the image's area; the largest is all of it."""
    balance: float = 0.0
    """Class-balanced sampling: images are drawn in proportion to (images of their class) ** -balance. 0: each once per
    epoch; 1: every class equally often."""
    hflip: bool = True
    """Flip half of the training images left to right (digits and text must not be)."""
    rand_augment_layers: int = 0
    """RandAugment operations per image; 0 is off (the paper: 2)."""
    rand_augment_magnitude: int = 10
    """RandAugment magnitude of 0 to 30 (the paper: 10)."""
    mixup: float = 0.0
    """Alpha of mixup; 0 is off."""
    cutmix: float = 0.0
    """Alpha of cutmix; 0 is off."""
    evaluation_crop: float = 0.875
    """Side of the centre crop in evaluation, as a fraction of the resized shorter side."""
    max_bad_files: int = 20
    """Stop when more images than this cannot be read; fewer are skipped, counted and listed."""
    max_megapixels: float = 100.0
    """An image larger than this counts as unreadable (it may be a decompression bomb)."""

    def __post_init__(self) -> None:
        check_fields(self, "images")


SMALLEST_TILE_PX = 64
"""Of the tiles into which large images are cut."""
NO_TILED_KEYPOINTS = "key points of objects that lie in several tiles cannot be joined"


@dataclass(frozen=True)
class DetectionImages:
    """What happens to an image before the detector sees it."""

    size: int = 1024
    """Side of the canvas in pixels. An image lies in its upper left corner, the rest is padding."""
    test_size: int = 0
    """Side of the canvas in evaluation and prediction, where the whole image fits on it; 0: `size`."""
    scale_jitter: tuple[float, float] = (0.8, 1.25)
    """Least and greatest scale in training. At 1 the image just fits the canvas; beyond, a part of it is cut out."""
    crop_around_object: float = 0.0
    """Probability that a part that is cut out in training shows an object, any with the same chance, wherever on the
    canvas; else, and on an image without objects, it lies anywhere. For small objects that most parts would miss."""
    hflip: bool = True
    """Flip half of the training images left to right."""
    rot90: bool = False
    """Turn training images by 0, 90, 180 or 270 degrees: for images without an up and a down."""
    keypoint_pairs: tuple[tuple[str, str], ...] = ()
    """All key points that a flip exchanges, such as port starboard; none: those whose names say left and right."""
    mask_crop: int = 112
    """Side of the square, in pixels, in which the mask of an object's box is kept as a training target."""
    copy_paste: float = 0.0
    """Probability that objects of another training image are pasted into an image, with their masks (Ghiasi et al.
    2021); 0 is off. Needs masks, and no key points."""
    repeat_threshold: float = 0.0
    """Repeat-factor sampling (LVIS, Gupta et al. 2019): images of a class that is in less than this fraction of the
    training images are drawn more often, by the root of what it lacks, and the others less; 0 is off."""
    tile: int = 0
    """Side in pixels of the file of the overlapping tiles into which evaluation and prediction cut larger images, each
    then seen like an image of its own; 0: the whole image at once."""
    max_bad_records: int = 20
    """Stop when more annotations of a split than this make no sense; fewer are skipped, counted and listed."""
    max_bad_files: int = 20
    """Stop when more images than this cannot be read; fewer are skipped, counted and listed."""
    max_megapixels: float = 100.0
    """An image larger than this counts as unreadable (it may be a decompression bomb)."""

    def __post_init__(self) -> None:
        check_fields(self, "images")
        low, high = self.scale_jitter
        if low > high:
            raise InputError(f"images.scale_jitter is {low} to {high}; two scales above 0, the smaller first")
        if 0 < self.tile < SMALLEST_TILE_PX:
            raise InputError(f"images.tile is {self.tile}; expected 0 (no tiles) or at least {SMALLEST_TILE_PX} pixels")

    @property
    def canvas(self) -> int:
        """Side of the canvas in evaluation and prediction."""
        return self.test_size or self.size


@dataclass(frozen=True)
class Optimizer:
    """The optimiser and its regularisation."""

    name: Literal["sgd", "momentum", "adamw"] = "sgd"
    """sgd is Nesterov's with momentum 0.9; momentum is the plain one with 0.9."""
    learning_rate: float = 0.4
    """Peak learning rate."""
    reference_batch: int = 0
    """The batch size that the learning rate is for: at another one it is scaled in proportion, and the log says so.
    0: it is used as it stands."""
    loaded_rate: float = 1.0
    """Learning rate of the parameters that come from model.weights, as a fraction of that of the new ones."""
    weight_decay: float = 1e-4
    """On kernels only: not on biases, BatchNorm or position tables."""
    label_smoothing: float = 0.0
    """Of the cross-entropy; classifiers only."""
    clip_norm: float = 0.0
    """Largest norm of the gradient; 0 is off."""
    ema: float = 0.0
    """Decay of the moving average of the weights that is evaluated and saved as well; 0 is off."""

    def __post_init__(self) -> None:
        check_fields(self, "optimizer")


@dataclass(frozen=True)
class Schedule:
    """The length of training and the learning rate over time."""

    epochs: int = 100
    """Passes over the training images."""
    steps: int = 0
    """Optimiser steps, in place of epochs; 0: as many as the epochs have."""
    kind: Literal["cosine", "step"] = "cosine"
    """cosine: down to 0; step: multiplied at milestones."""
    warmup_epochs: float = 5.0
    """Linear warm-up, in epochs."""
    warmup_start: float = 0.0
    """Learning rate of the first step, as a fraction of the peak."""
    milestones: tuple[float, ...] = (0.67, 0.89)
    """step: where the learning rate falls, as fractions of the whole run."""
    milestone_factor: float = 0.1
    """step: what the learning rate is multiplied by at each milestone."""

    def __post_init__(self) -> None:
        check_fields(self, "schedule")


@dataclass(frozen=True)
class Run:
    """Batch, hardware, checkpoints. Batch size, accumulation (through BatchNorm), precision, seed change the result."""

    batch_size: int = 1024
    """Images per optimiser step, over all processes and accumulated parts together."""
    accumulation: int = 1
    """Parts a batch is split into and computed one after the other, when it does not fit into memory."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """bf16: mixed precision; auto: bf16 where this machine trains faster with it, which is measured once."""
    seed: int = 0
    """Of initial weights, order of images and augmentation."""
    workers: int = -1
    """Processes that read images; -1: one per core, at most 8 per process; 0: none."""
    threads: int = 0
    """Threads of the network on a CPU; 0: PyTorch's choice, one per core. Small networks are fastest with 1."""
    device: Device = "auto"
    """auto: a GPU if there is one."""
    evaluate_every: float = 1
    """Epochs between evaluations; less than 1 is a part of an epoch."""
    evaluation_images: int = 0
    """Validation images of each evaluation, evenly spread over the split; 0: all."""
    checkpoint_every: float = 1
    """Epochs between checkpoints, likewise. One is also written before each evaluation, which then adds its results."""
    checkpoint_every_steps: int = 0
    """Another checkpoint after every so many steps; 0: none."""
    checkpoint_every_minutes: float = 15
    """Another checkpoint when the last one is so many minutes old; 0: none."""
    keep: int = 2
    """Latest checkpoints to keep, besides the best."""
    max_steps: int = 0
    """Stop after this many steps (the schedule keeps its length); 0: run to the end."""
    trackers: tuple[str, ...] = ()
    """Where the journal goes besides OUT/metrics.jsonl, such as tensorboard (needs `botformer[log]`), wandb or mlflow:
    the experiment trackers of accelerate by name, or one of your own as module:Class."""

    def __post_init__(self) -> None:
        check_fields(self, "run")


@dataclass(frozen=True)
class Recipe:
    """What the training loop reads."""

    model: Model = field(default_factory=Model)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    run: Run = field(default_factory=Run)

    most_evaluated_at_once: ClassVar[int] = 256

    @property
    def evaluation_batch(self) -> int:
        """Images at a time in evaluation, in each process: as many as one process trains on, within bounds. With
        several, each gets whole batches, so that the last bits of what the network gives stay the same."""
        return min(max(1, self.run.batch_size // self.run.accumulation), self.most_evaluated_at_once)


@dataclass(frozen=True)
class ClassificationRecipe(Recipe):
    """Images with one label each."""

    images: Images = field(default_factory=Images)


@dataclass(frozen=True)
class DetectionRecipe(Recipe):
    """Images with objects in them."""

    detector: Kind = "mask_rcnn"
    """mask_rcnn: boxes and masks; faster_rcnn: boxes alone; keypoint_rcnn: boxes and key points."""
    keypoint_sigmas: tuple[float, ...] = ()
    """Of object key point similarity, one per key point: how far people disagree, as a fraction of an object's size.
    None: COCO's for COCO's 17 points, 0.05 for all others."""
    images: DetectionImages = field(default_factory=DetectionImages)
    settings: Settings = field(default_factory=Settings)
    """Pyramid, proposals and heads."""

    most_evaluated_at_once: ClassVar[int] = 8

    def __post_init__(self) -> None:
        if self.images.tile and self.detector == "keypoint_rcnn":
            raise InputError(f"images.tile is {self.images.tile}; {NO_TILED_KEYPOINTS}: leave it 0")
