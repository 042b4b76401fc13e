"""ONNX: one file that onnxruntime runs on any machine, its facts in the file's own properties."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flames.errors import FlamesError
from flames.inference.score import TrainedModel

OPSET = 17
MISSING = "in the folder of FLAMES: scripts/setup export"


class OnnxNetwork(nn.Module):
    """A network that onnxruntime runs, in the place of one of torch's."""

    def __init__(self, path: Path) -> None:
        """Open the file at ``path``."""
        super().__init__()
        self.session = _session(path)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits of squares ``(N, 1, S, S)`` or patches ``(N, 1, D, H, W)``."""
        given = np.ascontiguousarray(image.detach().cpu().float().numpy())
        return torch.from_numpy(self.session.run(["logits"], {"image": given})[0])


def write_onnx(model: TrainedModel, metadata: dict[str, str], folder: Path) -> Path:
    """Write ``model.onnx``: ``image`` ``(N, 1, S, S)`` in [-1, 1] → ``logits`` of that shape.

    A network in three dimensions takes ``(N, 1, D, H, W)``, patches of its plan: only their number
    is free, since a larger patch changes the statistics that it normalises by.
    """
    try:
        import onnx
    except ImportError as error:
        raise FlamesError("onnx is not installed", MISSING) from error
    path = folder / "model.onnx"
    model.network.eval()
    torch.onnx.export(
        model.network,
        (torch.zeros(1, 1, *model.sides),),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}},
        opset_version=OPSET,
        dynamo=False,
    )
    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, metadata)
    graph.producer_name = "FLAMES"
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)
    return path


def load_onnx(path: Path) -> OnnxNetwork:
    """Return the network in an ONNX file.

    Raises:
        FlamesError: It is damaged, or onnxruntime is not installed.
    """
    return OnnxNetwork(path)


def onnx_metadata(path: Path) -> dict[str, str]:
    """Return the facts that `write_onnx` put into the file."""
    return dict(_session(path).get_modelmeta().custom_metadata_map)


def onnx_weights(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of an ONNX file by name, but for dtypes that torch does not share.

    None where only onnxruntime is installed, which does not tell them.

    Raises:
        FlamesError: It is damaged.
    """
    try:
        import onnx
    except ImportError:
        return
    try:
        graph = onnx.load(path).graph
    except Exception as error:
        raise _unreadable(path, error) from error
    for one in graph.initializer:
        array = onnx.numpy_helper.to_array(one)
        if array.dtype in (np.float16, np.float32, np.float64):
            yield one.name, torch.from_numpy(array.copy())


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise FlamesError("onnxruntime is not installed", MISSING) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime raises its own kinds, one a fault.
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> FlamesError:
    return FlamesError(
        f"cannot read {path}: {type(error).__name__}: {error}", "export the model again"
    )
