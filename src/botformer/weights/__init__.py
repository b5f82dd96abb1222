"""Where weights come from."""

from botformer.weights.files import read_state_dict
from botformer.weights.initialise import Match, initialise, load_weights

__all__ = ["Match", "initialise", "load_weights", "read_state_dict"]
