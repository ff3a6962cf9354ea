"""A quantized model beside the float one, in eager mode (torch.ao.ns._numeric_suite)."""
from __future__ import annotations

from typing import Any, Iterable

from ... import _octet
from ..._octet import Tensor
from ..._trees import flatten
from ...nn._module import Module
from ...quantization import _type_name


def compare_weights(float_model: Module, q_model: Module) -> dict[str, dict[str, Tensor]]:
    """By key of the quantized state dict: the tensors "float" and "quantized"."""
    return _octet._compare_weights(float_model, q_model)


def compare_model_outputs(float_model: Module, q_model: Module, *data: Any) -> dict[str, dict[str, list[Tensor]]]:
    """What matching modules of both give for these inputs: by path and ".stats", "float" and "quantized". Loggers
    stay in both models."""
    return _octet._compare_model_outputs(float_model, q_model, flatten(data)[0])


def compare_model_stub(float_model: Module, q_model: Module, module_swap_list: Iterable[Any],
                       *data: Any) -> dict[str, dict[str, list[Tensor]]]:
    """The same for modules of these float classes, each on the quantized model's own input. Shadows stay in q_model."""
    return _octet._compare_model_stub(float_model, q_model, [_type_name(cls) for cls in module_swap_list], flatten(data)[0])
