#!/usr/bin/python3
"""Writes tests/golden/input_weight_equalization.json: PyTorch 1.13's input-weight equalization of small models
(tests/quant/input_weight_equalization_test.cpp).

Run by hand, from the repository's root, with Debian's python3 and python3-torch (1.13); a second:

    /usr/bin/python3 scripts/oracle/input_weight_equalization.py

Models, weights and data are made on both sides, as in model_report.py. For each layer: the scale, the equalized weight and bias,
(base64 of their float32), and where a mul takes the scale the scaled range of the quantization observer behind it. The ranges
between two equalized layers are not here: PyTorch leaves them as they were before the values were scaled.
"""
import copy
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.ao.quantization import QConfig, QConfigMapping, default_weight_observer
from torch.ao.quantization.fx import _equalize
from torch.ao.quantization.observer import MinMaxObserver
from torch.ao.quantization.quantize_fx import prepare_fx

from dynamic import write
from model_report import batches, build, parameters
from modules import pack

warnings.filterwarnings("ignore")

CASES = [
    {"name": "linear", "layers": [["Linear", 8, 4]], "input": [16, 8], "spread": 1},
    {"name": "linear relu", "layers": [["Linear", 5, 4], ["ReLU"]], "input": [16, 5], "spread": -1},
    {"name": "two linear", "layers": [["Linear", 8, 6], ["Linear", 6, 3]], "input": [16, 8], "spread": 1},
    {"name": "three linear, relu", "layers": [["Linear", 8, 6], ["ReLU"], ["Linear", 6, 5], ["ReLU"], ["Linear", 5, 3]],
     "input": [16, 8], "spread": 0.5},
    {"name": "conv", "layers": [["Conv2d", 4, 6, 3]], "input": [2, 4, 6, 6], "spread": 2},
    {"name": "convs", "layers": [["Conv2d", 3, 6, 3], ["ReLU"], ["Conv2d", 6, 4, 2]], "input": [2, 3, 6, 6], "spread": 2},
    {"name": "conv pool conv", "layers": [["Conv2d", 3, 6, 3], ["ReLU"], ["MaxPool2d", 2], ["Conv2d", 6, 4, 2]],
     "input": [2, 3, 8, 8], "spread": 1},
    {"name": "conv1d", "layers": [["Conv1d", 4, 5, 3], ["ReLU"], ["Conv1d", 5, 2, 2]], "input": [3, 4, 9], "spread": 1},
    {"name": "conv3d", "layers": [["Conv3d", 2, 3, 2]], "input": [2, 2, 4, 4, 4], "spread": 3},
    {"name": "conv flatten linear", "layers": [["Conv2d", 3, 4, 3], ["ReLU"], ["Flatten"], ["Linear", 16, 3]],
     "input": [2, 3, 4, 4], "spread": 1},
    {"name": "constant channels", "layers": [["Linear", 8, 4]], "input": [16, 8], "data": [["normal", 0, 1.5]]},
    {"name": "no bias", "layers": [["Linear", 4, 6, False], ["Linear", 6, 3, False]], "input": [16, 4], "spread": 1},
    {"name": "functional", "functional": True, "layers": [["Linear", 8, 6], ["ReLU"], ["Linear", 6, 3]],
     "input": [16, 8], "spread": 1},
]


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        for name, shape in ("w1", (6, 8)), ("bias1", (6,)), ("w2", (3, 6)), ("bias2", (3,)):
            self.register_buffer(name, torch.zeros(shape))  # not parameters, and biases called so: PyTorch needs both

    def forward(self, x):
        return F.linear(F.relu(F.linear(x, self.w1, self.bias1)), self.w2, self.bias2)


def main():
    for i, c in enumerate(CASES):
        c["seed"] = 9300000 + 1000 * i
        c.setdefault("data", [["normal", 1, 0]] * 3)
        model = Functional() if c.get("functional") else build(c["layers"])
        parameters(model, c["seed"])
        model.eval()
        qconfig = QConfig(activation=MinMaxObserver, weight=default_weight_observer)
        prepared = prepare_fx(model, QConfigMapping().set_global(qconfig), (next(batches(c)),),
                              _equalization_config=QConfigMapping().set_global(_equalize.default_equalization_qconfig))
        for x in batches(c):
            prepared(x)
        modules = dict(prepared.named_modules(remove_duplicate=False))
        asked = copy.deepcopy(prepared)
        _equalize.update_obs_for_equalization(asked, dict(asked.named_modules(remove_duplicate=False)))
        scales = {}
        for node in asked.graph.nodes:
            if node.op == "call_module" and isinstance(modules[node.target], _equalize._InputEqualizationObserver):
                layer = next(iter(node.users))
                scales[layer.target if layer.op == "call_module" else layer.name] = asked.get_submodule(node.target).equalization_scale
        done = _equalize._convert_equalization_ref(prepared)
        c["layers_after"] = []
        for name, scale in scales.items():
            node = next(n for n in done.graph.nodes if n.name == name or n.target == name)
            source = node.args[0]  # the observer of the input
            out = {"path": name, "scale": pack(scale.reshape(-1).detach().numpy()), "mul": source.args[0].target is torch.mul}
            if node.op == "call_module":
                layer = done.get_submodule(name)
                layer = layer if hasattr(layer, "weight") else layer[0]
                weight, bias = layer.weight, layer.bias
            else:
                weight, bias = getattr(done, str(node.args[1].args[0].target)), getattr(done, str(node.args[2].target))
            out["weight"] = pack(weight.detach().numpy())
            if bias is not None:
                out["bias"] = pack(bias.detach().numpy())
            if out["mul"]:
                observer = done.get_submodule(source.target)
                out["range"] = [float(observer.min_val), float(observer.max_val)]
            c["layers_after"].append(out)
    write("input_weight_equalization", CASES)


if __name__ == "__main__":
    main()
