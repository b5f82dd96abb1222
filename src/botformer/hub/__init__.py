"""The Hugging Face hub: a trained network with a card that says what it is, up and down again."""

from botformer.hub.from_hub import from_pretrained
from botformer.hub.model_card import write_card
from botformer.hub.publish import prepare_folder, push_to_hub, upload_folder

__all__ = ["from_pretrained", "prepare_folder", "push_to_hub", "upload_folder", "write_card"]
