"""Any model that FLAMES made, whatever it was written as."""

from __future__ import annotations

from pathlib import Path

from flames.errors import FlamesError
from flames.inference.score import TrainedModel, load_model, model_of
from flames.models.precision import Precision
from flames.models.weights import named_tensors, refuse_not_finite


def load_any(path: Path, precision: Precision) -> TrainedModel:
    """Return the model in a ``.safetensors``, ``.onnx`` or ``.ts`` file.

    Raises:
        FlamesError: The file is damaged, does not say which model it is, or has weights that are
            not finite.
    """
    if path.suffix == ".onnx":
        from flames.inference.export.onnx import load_onnx, onnx_metadata, onnx_weights

        refuse_not_finite(onnx_weights(path), path)
        return model_of(path, onnx_metadata(path), load_onnx(path))
    if path.suffix in (".ts", ".pt"):
        from flames.inference.export.torchscript import load_torchscript, torchscript_metadata

        network = load_torchscript(path).to(precision.device)
        refuse_not_finite(named_tensors(network).items(), path)
        return model_of(path, torchscript_metadata(path), network)
    if path.suffix != ".safetensors":
        raise FlamesError(f"{path} is not a model file", "known endings: .safetensors, .onnx, .ts")
    return load_model(path, precision)
