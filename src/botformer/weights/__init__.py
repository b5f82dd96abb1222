"""Where weights come from."""

from botformer.weights.cards import SHIPPED, read_card, save
from botformer.weights.files import read_state_dict
from botformer.weights.initialise import Match, initialise, load_weights

__all__ = ["SHIPPED", "Match", "initialise", "load_weights", "read_card", "read_state_dict", "save"]
