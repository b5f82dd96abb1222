"""How much training fits into the minutes: pure functions of what was measured. THE FIGURES stand at the top."""

import math
from dataclasses import dataclass

EVALUATION_FRACTION = 0.10
"""Of the training time, at most, goes into evaluations before the last one."""
MOST_EVALUATIONS = 20
"""More points make no better curve, and the best checkpoint no better."""
MARGIN = 0.04
"""Of the time left stays unused: speeds of two minutes are not those of an hour."""
LEAST_STEPS = 10
"""However little time there is."""
WARMUP = 0.05
"""Of the steps: the learning rate rises."""
FEW_IMAGES = 200
"""Of which an accuracy of 90 % has a standard deviation of 2 points: evaluations see no fewer where there is time."""
WHOLE_EPOCHS = 5
"""From so many epochs on their number is whole, so that the last evaluation does not follow another at once."""
NIGHT_S = 8 * 3600.0
"""Without minutes: the first candidate that is fully trained by the morning."""
EVALUATION_EXTRA_S = 1.5
"""Of each evaluation beside the images: workers that start, a checkpoint, curves."""
REPORT_S = 10.0
"""The page at the end, beside one more pass over the validation images."""


@dataclass(frozen=True)
class Work:
    """Images."""

    train: int
    validation: int
    test: int = 0


@dataclass(frozen=True)
class Speed:
    """Of one candidate on this machine, in seconds."""

    train_s: float
    """Per image: the slower of reading and of forward, backward and optimiser."""
    evaluate_s: float
    """Per image: the slower of reading and of forward."""
    create_s: float = 0.0
    """Network, first weights, data and workers, until the first step."""


@dataclass(frozen=True)
class Length:
    """How long a candidate is trained."""

    steps: int
    evaluate_every: float
    """Epochs."""
    evaluation_images: int
    """0: all."""
    seconds: float
    """From here to the end, everything counted."""
    is_enough: bool
    """It gets the images that it needs, within the time."""
    tests: bool
    """There is time for the test split."""


def split_cores(one_thread_s: float, all_threads_s: float, read_s: float, cores: int) -> tuple[int, int, float]:
    """Threads of the network, processes that read, and seconds per image, for CPUs.

    Either the network has every core and shares them with the readers, or the readers have cores of their own.

    Args:
        one_thread_s, all_threads_s: of a training step, per image, on one core and on all.
        read_s: of one process that reads images, per image.
    """
    if cores == 1:
        return 1, 0, one_thread_s + read_s
    most = min(8, cores - 1)
    readers = min(most, math.ceil(read_s / all_threads_s))
    choices = [(all_threads_s + read_s / cores, cores, readers)]
    # Where cores are promised that there are not, a step on all of them is slower than on one.
    choices += [(max(one_thread_s, read_s / readers), 1, readers) for readers in range(1, most + 1)]
    # Amdahl: a part of the step that does not become faster, and one that is divided among the threads.
    divided = max(0.0, one_thread_s - all_threads_s) / (1 - 1 / cores)
    for readers in range(1, most + 1):
        threads = cores - readers
        step = one_thread_s - divided * (1 - 1 / threads)
        choices.append((max(step, read_s / readers), threads, readers))
    seconds, threads, readers = min(choices)
    return threads, readers, seconds


def length(
    needed: int,
    most: int,
    batch_size: int,
    speed: Speed,
    work: Work,
    left_s: float | None,
    *,
    calibration: int,
    fixed_steps: int = 0,
) -> Length:
    """The steps that fit into the time that is left, evaluations, saving and report included.

    Args:
        needed, most: training images, repetitions counted: from which on it is worth its time, and no more.
        left_s: None: as long as it takes.
        calibration: images that are seen once before training, for statistics of BatchNorm.
        fixed_steps: by the user; 0: as many as fit, up to a full training.
    """
    per_epoch = max(1, work.train // batch_size)
    measured = _evaluation_images(work, speed, left_s)
    evaluation_s = measured * speed.evaluate_s + EVALUATION_EXTRA_S
    test_s = work.test * speed.evaluate_s + EVALUATION_EXTRA_S
    in_time = left_s is None or work.test * speed.evaluate_s <= EVALUATION_FRACTION * left_s
    tests = work.test > 0 and in_time
    around_s = (
        speed.create_s
        + calibration * speed.evaluate_s
        + evaluation_s  # the last
        + (test_s if tests else 0.0)
        + REPORT_S
        + measured * speed.evaluate_s
    )
    step_s = batch_size * speed.train_s
    steps, enough = fixed_steps, True
    if not fixed_steps:
        steps = math.ceil(most / batch_size)
        if left_s is not None:
            available_s = left_s * (1 - MARGIN) - around_s
            steps = min(steps, int(available_s / (step_s * (1 + EVALUATION_FRACTION))))
        steps = max(steps, LEAST_STEPS)
        enough = steps * batch_size >= needed
        if steps >= WHOLE_EPOCHS * per_epoch:
            steps -= steps % per_epoch
    every = _evaluate_every(steps, per_epoch, steps * step_s, evaluation_s)
    between = (steps - 1) // max(1, round(every * per_epoch))
    seconds = around_s + steps * step_s + between * evaluation_s
    return Length(
        steps,
        every,
        0 if measured == work.validation else measured,
        seconds,
        enough and (left_s is None or seconds <= left_s),
        tests,
    )


def _evaluation_images(work: Work, speed: Speed, left_s: float | None) -> int:
    """All, unless one pass over them takes more than a tenth of the time; then what that tenth is enough for, or a few,
    as long as those take no more than a fifth."""
    if left_s is None or work.validation * speed.evaluate_s <= EVALUATION_FRACTION * left_s:
        return work.validation
    in_a_tenth = int(EVALUATION_FRACTION * max(left_s, 0.0) / speed.evaluate_s)
    return min(work.validation, max(1, in_a_tenth, min(FEW_IMAGES, 2 * in_a_tenth)))


def _evaluate_every(steps: int, per_epoch: int, train_s: float, evaluation_s: float) -> float:
    """Epochs between evaluations, so that those before the last take at most their fraction of the training time. Whole
    ones, unless the training is shorter than that, or an epoch longer."""
    affordable = min(MOST_EVALUATIONS, int(EVALUATION_FRACTION * train_s / evaluation_s))
    every = steps / per_epoch / (affordable + 1)
    if every > 1 or steps >= WHOLE_EPOCHS * per_epoch:
        return math.ceil(every - 1e-9)
    return math.ceil(steps / (affordable + 1)) / per_epoch  # of whole steps: none is evaluated just before the last
