#!/usr/bin/python3
"""Writes tests/golden/backend_config.json: the patterns of PyTorch 1.13's native, qnnpack and tensorrt backend configs, under octet's
names (tests/quant/backend_config_test.cpp).

Run by hand, from the repository's root, with Debian's python3 and python3-torch (1.13); a second:

    /usr/bin/python3 scripts/oracle/backend_config.py

Patterns are in the order of the forward pass. Those with a function that octet has under no name of its own (view is reshape, stack is
unsqueeze and cat, size gives numbers ...) are left out; addmm is linear.
"""
import operator
import warnings

import torch
import torch.nn.functional as F
from torch.ao.quantization.backend_config import get_native_backend_config, get_qnnpack_backend_config, get_tensorrt_backend_config

from dynamic import write

warnings.filterwarnings("ignore")

OPERATORS = {operator.add: "add", torch.add: "add", operator.mul: "mul", torch.mul: "mul", torch.matmul: "matmul", torch.cat: "cat",
             F.linear: "linear", F.conv1d: "conv1d", F.conv2d: "conv2d", F.conv3d: "conv3d", F.relu: "relu", torch.relu: "relu",
             F.layer_norm: "layer_norm", F.group_norm: "group_norm", F.instance_norm: "instance_norm", F.elu: "elu",
             F.hardswish: "hardswish", F.leaky_relu: "leaky_relu", F.dropout: "dropout", F.hardsigmoid: "hardsigmoid",
             torch.sigmoid: "sigmoid", torch.tanh: "tanh", torch.adaptive_avg_pool1d: "adaptive_avg_pool1d",
             F.adaptive_avg_pool2d: "adaptive_avg_pool2d", F.adaptive_avg_pool3d: "adaptive_avg_pool3d", F.hardtanh: "clamp",
             F.hardtanh_: "clamp", F.interpolate: "interpolate", F.max_pool1d: "max_pool1d", F.max_pool2d: "max_pool2d",
             F.max_pool3d: "max_pool3d", F.relu6: "relu6", torch.avg_pool1d: "avg_pool1d", torch._C._nn.avg_pool2d: "avg_pool2d",
             torch._C._nn.avg_pool3d: "avg_pool3d", torch.clamp: "clamp", torch.flatten: "flatten", torch.mean: "mean",
             torch.squeeze: "squeeze", torch.unsqueeze: "unsqueeze", torch.addmm: "linear", "repeat": "tile"}
SAME_NAME = {"clamp", "hardsigmoid", "sigmoid", "tanh", "mean", "permute", "reshape", "relu", "squeeze", "unsqueeze"}
NO_NAME = {torch.repeat_interleave, torch.transpose, torch.stack, operator.floordiv, "contiguous", "detach", "detach_", "repeat_interleave",
           "resize_", "shape", "size", "transpose", "view"}


def name(item):
    if isinstance(item, type):
        room = "qat::" if ".qat." in item.__module__ else "intrinsic::" if ".intrinsic." in item.__module__ else ""
        room = "quantized::reference::" if "reference" in item.__module__ else room
        return "octet::nn::" + room + item.__name__
    if isinstance(item, str) and item.rstrip("_") in SAME_NAME:
        return item.rstrip("_")
    return None if item in NO_NAME else OPERATORS[item]


def flatten(pattern):
    """(ReLU, (BatchNorm, Conv)) to [Conv, BatchNorm, ReLU]."""
    if not isinstance(pattern, tuple):
        return [pattern]
    return [item for part in reversed(pattern) for item in flatten(part)]


def dtype(d):
    if d.dtype is None:
        return None
    result = {"dtype": str(d.dtype)[6:]}
    for key in ["quant_min_lower_bound", "quant_max_upper_bound", "scale_min_lower_bound", "scale_max_upper_bound"]:
        if getattr(d, key) is not None:
            result[key] = getattr(d, key)
    return result


def main():
    cases = []
    for backend in [get_native_backend_config(), get_qnnpack_backend_config(), get_tensorrt_backend_config()]:
        for config in backend.configs.values():
            pattern = [name(item) for item in flatten(config.pattern)]
            if None in pattern:
                continue
            c = {"backend": backend.name, "pattern": pattern, "observation_type": config.observation_type.name.lower()}
            if config._input_output_observed is False:
                c["observation_type"] = "input_output_not_observed"
            c["dtype_configs"] = [{"input": dtype(d.input_dtype_with_constraints), "output": dtype(d.output_dtype_with_constraints),
                                   "weight": dtype(d.weight_dtype_with_constraints), "is_dynamic": bool(d.is_dynamic)}
                                  for d in config.dtype_configs]
            for key in ["root_module", "qat_module", "reference_quantized_module", "fused_module"]:
                if getattr(config, key) is not None:
                    c[key] = name(getattr(config, key))
            c["fuser_method"] = config.fuser_method is not None
            cases.append(c)
    write("backend_config", cases)


if __name__ == "__main__":
    main()
