"""What a recipe may say. Standard library only: a recipe is data, and reading it must cost nothing."""

from dataclasses import dataclass, field
from typing import Literal

from botformer.errors import InputError
from botformer.recipes.detector_settings import Settings


@dataclass(frozen=True)
class Model:
    """The network."""

    name: str = "botnet50"
    """A row of `botformer models`."""
    position: Literal["relative", "absolute", "none", "position_only", "blog"] = "relative"
    """What the attention knows about positions (the paper: relative)."""
    drop_path: float = 0.0
    """Stochastic depth at the last block, growing linearly from 0 at the first."""
    dropout: float = 0.0
    """Dropout before the final linear layer."""
    zero_gamma: bool = True
    """Start every block as the identity: gamma 0 in its last BatchNorm (the paper: yes)."""
    shortcut_activation: bool = False
    """Activation on the projection shortcut, as in the authors' reference code."""
    frozen_stages: int = 0
    """Stages that do not train, counted from the stem (1 = stem, 2 = stem and c2, ...)."""
    normalization: Literal["batch", "frozen", "sync"] = "batch"
    """BatchNorm: live, frozen at its loaded statistics, or synchronised over processes. Of a detector: its backbone's;
    pyramid and heads have `settings.normalization`."""
    gradient_checkpointing: bool = False
    """Recompute each block in the backward pass: less memory, about a third more time."""
    tables: Literal["interpolate", "offset"] = "interpolate"
    """Position tables at another map size: an entry is a share of the map, or a distance in cells."""
    weights: str = ""
    """Weights to start from: a .safetensors or .pth file, a run's folder, hf://owner/name, or a network of the package
    by name. A classifier's or a ResNet's go into a detector's backbone."""


@dataclass(frozen=True)
class Images:
    """What happens to an image before the network sees it."""

    size: int = 224
    """Side of the square the network sees, in pixels."""
    augmentation: Literal["standard", "crop", "none"] = "standard"
    """standard: random resized crop (8 to 100 % of the area) and flip; crop: pad 4 px and crop, and flip; none."""
    hflip: bool = True
    """Flip half of the training images left to right (digits and text must not be)."""
    rand_augment_layers: int = 0
    """RandAugment operations an image; 0 is off (the paper: 2)."""
    rand_augment_magnitude: int = 10
    """RandAugment magnitude of 0 to 30 (the paper: 10)."""
    mixup: float = 0.0
    """Alpha of mixup; 0 is off."""
    cutmix: float = 0.0
    """Alpha of cutmix; 0 is off."""
    evaluation_crop: float = 0.875
    """Side of the centre crop in evaluation, as a share of the resized shorter side."""
    max_bad_files: int = 20
    """Stop when more images than this cannot be read; fewer are skipped, counted and listed."""
    max_megapixels: float = 100.0
    """An image larger than this counts as unreadable (it may be a decompression bomb)."""


@dataclass(frozen=True)
class DetectionImages:
    """What happens to an image before the detector sees it."""

    size: int = 1024
    """Side of the canvas in pixels. An image lies in its upper left corner, the rest is padding."""
    test_size: int = 0
    """Side of the canvas in evaluation and prediction, where the whole image fits on it; 0: `size`."""
    scale_jitter: tuple[float, float] = (0.8, 1.25)
    """Least and greatest scale in training. At 1 the image just fits the canvas; beyond, a part of it is cut out."""
    hflip: bool = True
    """Flip half of the training images left to right."""
    rot90: bool = False
    """Turn training images by 0, 90, 180 or 270 degrees: for images without an up and a down."""
    keypoint_pairs: tuple[tuple[str, str], ...] = ()
    """Key points that a flip exchanges, such as port starboard; none: those whose names say left and right."""
    mask_crop: int = 112
    """Side of the square that a mask is kept as."""
    max_bad_files: int = 20
    """Stop when more images than this cannot be read; fewer are skipped, counted and listed."""
    max_megapixels: float = 100.0
    """An image larger than this counts as unreadable (it may be a decompression bomb)."""

    def __post_init__(self) -> None:
        low, high = self.scale_jitter
        if not 0 < low <= high:
            raise InputError(f"images.scale_jitter is {low} to {high}; two scales above 0, the smaller first")
        if min(self.size, self.mask_crop) < 1 or self.test_size < 0:
            raise InputError(
                f"images.size {self.size} and images.mask_crop {self.mask_crop} must be at least 1 pixel, "
                f"images.test_size {self.test_size} 0 or more"
            )

    @property
    def canvas(self) -> int:
        """Side of the canvas in evaluation and prediction."""
        return self.test_size or self.size


@dataclass(frozen=True)
class Optimizer:
    """How weights move."""

    name: Literal["sgd", "momentum", "adamw"] = "sgd"
    """sgd is Nesterov's with momentum 0.9; momentum is the plain one with 0.9."""
    learning_rate: float = 0.4
    """Peak learning rate."""
    reference_batch: int = 0
    """The batch size that the learning rate is for: at another one it is scaled in proportion, and the log says so.
    0: it is used as it stands."""
    weight_decay: float = 1e-4
    """On kernels only: not on biases, BatchNorm or position tables."""
    label_smoothing: float = 0.0
    clip_norm: float = 0.0
    """Largest norm of the gradient; 0 is off."""
    ema: float = 0.0
    """Decay of the moving average of the weights that is evaluated and saved as well; 0 is off."""


@dataclass(frozen=True)
class Schedule:
    """How long, and the learning rate over time."""

    epochs: int = 100
    kind: Literal["cosine", "step"] = "cosine"
    warmup_epochs: float = 5.0
    """Linear warm-up, in epochs."""
    warmup_start: float = 0.0
    """Learning rate of the first step, as a share of the peak."""
    milestones: tuple[float, ...] = (0.67, 0.89)
    """step: where the learning rate falls, as shares of the whole run."""
    milestone_factor: float = 0.1
    """step: by how much it falls."""


@dataclass(frozen=True)
class Run:
    """The machine's side of it. Batch size, accumulation (through BatchNorm), precision and seed change the result."""

    batch_size: int = 1024
    """Images an optimiser step, over all processes and accumulated parts together."""
    accumulation: int = 1
    """Parts a batch is computed in, one after the other, when it does not fit into memory."""
    precision: Literal["float32", "bf16"] = "bf16"
    seed: int = 0
    workers: int = -1
    """Processes that read images; -1: one a core, at most 8; 0: none."""
    threads: int = 0
    """Threads of the network on a CPU; 0: PyTorch's choice, one a core. Small networks are fastest with 1."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    evaluate_every: int = 1
    """Epochs between evaluations."""
    checkpoint_every: int = 1
    """Epochs between checkpoints."""
    keep: int = 2
    """Latest checkpoints to keep, besides the best."""
    max_steps: int = 0
    """Stop after so many steps (the schedule keeps its length); 0: run to the end."""
    tensorboard: bool = False
    """Also write TensorBoard files (needs `botformer[log]`)."""


@dataclass(frozen=True)
class Recipe:
    """One experiment, as the training loop reads it. `ours` names the fields that no source gives: our choice."""

    source: str = ""
    """Where the settings come from."""
    expect: str = ""
    """What the source reports; never what we measured."""
    cost: str = ""
    """What it takes."""
    ours: tuple[str, ...] = ()
    model: Model = field(default_factory=Model)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    run: Run = field(default_factory=Run)


@dataclass(frozen=True)
class ClassificationRecipe(Recipe):
    """Images with one label each."""

    task: Literal["classification"] = "classification"
    images: Images = field(default_factory=Images)


@dataclass(frozen=True)
class DetectionRecipe(Recipe):
    """Images with objects in them."""

    task: Literal["detection"] = "detection"
    detector: Literal["mask_rcnn", "faster_rcnn", "keypoint_rcnn"] = "mask_rcnn"
    """Boxes and masks, boxes alone, or boxes and key points."""
    keypoint_sigmas: tuple[float, ...] = ()
    """Of object key point similarity, one per key point: how far people disagree, as a fraction of an object's size.
    None: COCO's for COCO's 17 points, 0.05 for all others."""
    images: DetectionImages = field(default_factory=DetectionImages)
    settings: Settings = field(default_factory=Settings)
    """Pyramid, proposals and heads."""
