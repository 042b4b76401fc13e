"""The local training loop and its checkpoints."""
