"""Reading, loading, converting and saving weights."""

from botformer.weights.load import Match, load_state, load_weights
from botformer.weights.model_file import SHIPPED, read_model_config, save
from botformer.weights.read_state_dict import read_state_dict

__all__ = ["SHIPPED", "Match", "load_state", "load_weights", "read_model_config", "read_state_dict", "save"]
