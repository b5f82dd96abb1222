"""One loop for every task. It knows modules and tensors, never BoTNet: start with `loop.fit`."""
