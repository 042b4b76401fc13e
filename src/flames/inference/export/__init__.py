"""A trained model leaves FLAMES: as ONNX, as a MONAI bundle or as TorchScript, each with a card."""
