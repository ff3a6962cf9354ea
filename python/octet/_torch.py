"""A bridge to PyTorch, where that is installed: weights, and whole models by way of ONNX."""
from __future__ import annotations

import importlib
import os
import tempfile
from collections import OrderedDict
from typing import Any, Mapping

from . import _octet
from ._octet import Graph, Tensor


def _tensor(value: Any) -> Any:
    """A tensor of PyTorch as one of octet's: a copy."""
    if type(value).__module__.split(".")[0] != "torch":
        return value
    torch: Any = importlib.import_module("torch")
    value = value.detach().cpu()
    if not value.is_quantized:
        return Tensor(value.numpy())
    dtype = {torch.quint8: _octet.dtype.quint8, torch.qint8: _octet.dtype.qint8,
             torch.qint32: _octet.dtype.qint32}.get(value.dtype)
    if dtype is None:
        _octet.fail("unsupported", f"a tensor of {value.dtype} has no counterpart in octet")
    codes = Tensor(value.int_repr().numpy())
    if value.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return _octet.make_quantized(codes, [value.q_scale()], [value.q_zero_point()], -1, dtype)
    return _octet.make_quantized(codes, value.q_per_channel_scales().tolist(),
                                 value.q_per_channel_zero_points().long().tolist(), value.q_per_channel_axis(), dtype)


def from_torch_state_dict(state_dict: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """A state dict of PyTorch with octet's tensors (copies): what load_state_dict of a model of the same structure
    takes. Tensors of octet stay as they are."""
    return OrderedDict((name, _tensor(value)) for name, value in state_dict.items())


def _count(value: Any) -> int:
    """How many tensors a result of PyTorch has."""
    if isinstance(value, Mapping):
        return sum(_count(each) for each in value.values())
    if isinstance(value, (tuple, list)):
        return sum(_count(each) for each in value)
    return 1


def from_torch(module: Any, example_inputs: Any, opset_version: int = 13, input_names: list[str] | None = None,
               dynamic_batch: bool = True) -> Graph:
    """A module of PyTorch as a graph, by way of torch.onnx.export. `example_inputs`: a tensor or a tuple of them;
    with `dynamic_batch` their first dimension may have any size later. The module is put into eval mode for the
    export."""
    torch: Any = importlib.import_module("torch")
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    names = input_names or ["x" if len(inputs) == 1 else f"x{i}" for i in range(len(inputs))]
    axes = {name: {0: "N"} for name, x in zip(names, inputs) if isinstance(x, torch.Tensor) and x.dim()}
    training = getattr(module, "training", False)
    module.eval()
    try:
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            path = os.path.join(folder, "model.onnx")
            results = _count(module(*inputs))
            outputs = ["y"] if results == 1 else [f"y{i}" for i in range(results)]
            torch.onnx.export(module, inputs, path, opset_version=opset_version, input_names=names,
                              output_names=outputs, dynamic_axes=axes if dynamic_batch else None)
            return _octet._load(path)
    finally:
        if training:
            module.train()
