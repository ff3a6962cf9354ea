#!/usr/bin/python3
"""Writes tests/golden/fx_graphs.json: the graphs that PyTorch 1.13's FX graph mode makes of small models.

Run by hand, from the repository's root, with Debian's python3 and python3-torch (1.13); a few seconds:

    /usr/bin/python3 scripts/oracle/fx_graphs.py

Each case is a class below (tests/quant/fx_models.h has the same, with the same member names), its inputs, its config (what
QConfigMapping and PrepareCustomConfig are made of) and five graphs: `traced`, `fused`, `prepared` (prepare_fx or
prepare_qat_fx), `reference` (convert_to_reference_fx) and `lowered` (convert_fx). A graph is a list of nodes in PyTorch's
order, normalised so that octet's graphs can be written the same way:

    {"kind": "input|constant|call|module|output", "target": ..., "inputs": [...], "class": ..., "dtype": ..., "activation": ...}

- inputs: indices of nodes; [node, i] is result i of a node with several (getitem is folded away).
- target: of calls octet's operator (docs/operators.md); of modules their path; of constants the parameter's; of observers
  "observer k", the same k where one observer serves several values; of inputs their number.
- class: modules only, as they print themselves; observers are their classes; QAT's have "qat." before them; reference
  modules are QuantizedReference..., fused ones around them too: QuantizedReferenceConvReLU2d.
- dtype: of the result, where it is quantized. activation: of a call with one inside.
- Folded away: scales and zero points, sizes and the arithmetic on them, dequantize nodes whose result only such use.
- A packed weight is the constants it was packed from.

A graph inside a module (a standalone one) is in `inside`, by stage and path.
"""
import json
import operator
import os
import re
import warnings

import torch
import torch.ao.nn.quantized as nnq
import torch.ao.nn.quantized.reference as nnqr
import torch.nn.functional as F
from torch import fx, nn
from torch.ao.quantization import (QConfig, QConfigMapping, default_dynamic_qconfig, default_per_channel_weight_observer,
                                   float_qparams_weight_only_qconfig, get_default_qat_qconfig_mapping, get_default_qconfig_mapping,
                                   get_default_qconfig, get_default_qat_qconfig)
from torch.ao.quantization.fx.custom_config import ConvertCustomConfig, PrepareCustomConfig
from torch.ao.quantization.fx.tracer import QuantizationTracer
from torch.ao.quantization.fx.utils import get_skipped_module_name_and_classes
from torch.ao.quantization.observer import HistogramObserver, ObserverBase
from torch.ao.quantization.fake_quantize import FakeQuantizeBase
from torch.ao.quantization.quantize_fx import (_fuse_fx, convert_fx, convert_to_reference_fx, prepare_fx, prepare_qat_fx)

from dynamic import OUT

warnings.filterwarnings("ignore")

MODELS = []


class Model(nn.Module):
    """inputs: shapes; ("index", shape, n): whole numbers below n. config: see `mapping` and `custom`."""
    inputs = [(2, 3, 6, 6)]
    config = {}

    def __init_subclass__(cls):
        MODELS.append(cls)


IMAGE, ROWS = (2, 3, 6, 6), (4, 5)


# -- layers and what fuses with them ---------------------------------------------------------------------------

class ConvAlone(Model):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x)


class LinearAlone(Model):
    inputs = [ROWS]

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 4)

    def forward(self, x):
        return self.fc(x)


class ConvRelu(Model):
    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU()

    def forward(self, x):
        return self.relu(self.conv(x))


class ConvReluFunctional(Model):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return F.relu(self.conv(x))


class ConvBn(Model):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.bn(self.conv(x))


class ConvBnRelu(Model):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, x):
        return self.relu(self.bn(self.conv(x)))


class LinearRelu(Model):
    inputs = [ROWS]

    def __init__(self):
        super().__init__()
        self.fc, self.relu = nn.Linear(5, 4), nn.ReLU()

    def forward(self, x):
        return self.relu(self.fc(x))


class LinearBn(Model):
    inputs = [ROWS]

    def __init__(self):
        super().__init__()
        self.fc, self.bn = nn.Linear(5, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        return self.bn(self.fc(x))


class BnRelu(Model):
    def __init__(self):
        super().__init__()
        self.bn, self.relu = nn.BatchNorm2d(3), nn.ReLU()

    def forward(self, x):
        return self.relu(self.bn(x))


class BnAlone(Model):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.bn(x)


class Conv1dBnRelu(Model):
    inputs = [(2, 3, 8)]

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU()

    def forward(self, x):
        return self.relu(self.bn(self.conv(x)))


class Conv3dRelu(Model):
    inputs = [(1, 2, 4, 4, 4)]

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv3d(2, 3, 2), nn.ReLU()

    def forward(self, x):
        return self.relu(self.conv(x))


class ConvTransposed(Model):
    def __init__(self):
        super().__init__()
        self.up, self.conv = nn.ConvTranspose2d(3, 4, 2, stride=2), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.conv(self.up(x))


class ConvTransposedBn(Model):
    def __init__(self):
        super().__init__()
        self.up, self.bn = nn.ConvTranspose2d(3, 4, 2), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.bn(self.up(x))


class FunctionalLinear(Model):
    inputs = [ROWS]

    def __init__(self):
        super().__init__()
        self.w1, self.b1 = nn.Parameter(torch.randn(6, 5)), nn.Parameter(torch.randn(6))
        self.w2 = nn.Parameter(torch.randn(4, 6))

    def forward(self, x):
        return F.linear(F.relu(F.linear(x, self.w1, self.b1)), self.w2)


class FunctionalConv(Model):
    def __init__(self):
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(4, 3, 3, 3)), nn.Parameter(torch.randn(4))

    def forward(self, x):
        return F.conv2d(x, self.w, self.b, (1, 1), (0, 0), (1, 1), 1)  # PyTorch lowers only calls with all arguments


# -- operations between tensors -----------------------------------------------------------------------------------

class Add(Model):
    inputs = [IMAGE, IMAGE]

    def forward(self, x, y):
        return x + y


class AddRelu(Model):
    inputs = [IMAGE, IMAGE]

    def forward(self, x, y):
        return F.relu(x + y)


class Mul(Model):
    inputs = [IMAGE, IMAGE]

    def forward(self, x, y):
        return x * y


class MulRelu(Model):
    inputs = [IMAGE, IMAGE]

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x, y):
        return self.relu(x * y)


class Cat(Model):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return torch.cat([self.conv(x), x], 1)


class CatOfConvs(Model):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        return self.conv3(torch.cat([self.conv1(x), self.conv2(x)], 1))


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + x)


class Residual(Model):
    def __init__(self):
        super().__init__()
        self.block1, self.block2 = Block(3), Block(3)

    def forward(self, x):
        return self.block2(self.block1(x))


class ScalarAdd(Model):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x) + 2


class ScalarMul(Model):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x) * 0.5


class ScalarAddRelu(Model):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return F.relu(self.conv(x) + 2)


class Matmul(Model):
    inputs = [(2, 3, 4), (2, 4, 5)]

    def forward(self, x, y):
        return torch.matmul(x, y)


class Bmm(Model):
    inputs = [(2, 3, 4)]

    def __init__(self):
        super().__init__()
        self.q, self.k = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return torch.bmm(self.q(x), self.k(x).transpose(1, 2))


# -- pools, shapes, activations, norms --------------------------------------------------------------------------

class Pools(Model):
    def __init__(self):
        super().__init__()
        self.conv, self.max_pool, self.avg_pool = nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.AvgPool2d(3)

    def forward(self, x):
        return self.avg_pool(self.max_pool(self.conv(x)))


class PoolsFunctional(Model):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return F.avg_pool2d(F.max_pool2d(self.conv(x), 2), 3)


class AdaptivePool(Model):
    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.fc = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(torch.flatten(self.pool(self.conv(x)), 1))


class PoolOfInput(Model):
    def __init__(self):
        super().__init__()
        self.pool, self.conv = nn.MaxPool2d(2), nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(self.pool(x))


class Mean(Model):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.conv(x).mean([2, 3]))


class Reshape(Model):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(64, 2)

    def forward(self, x):
        x = self.conv(x)
        return self.fc(x.reshape(x.shape[0], -1))  # x.size(0) makes PyTorch 1.13 leave conv float


class Flatten(Model):
    def __init__(self):
        super().__init__()
        self.conv, self.flatten, self.fc = nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 2)

    def forward(self, x):
        return self.fc(self.flatten(self.conv(x)))


class Transposes(Model):
    inputs = [(2, 4, 5)]

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 6), nn.Linear(4, 3)

    def forward(self, x):
        x = self.fc2(self.fc1(x).transpose(1, 2))
        return x.permute(0, 2, 1)


class Slice(Model):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 1), nn.Conv2d(2, 3, 1)

    def forward(self, x):
        return self.conv2(self.conv1(x)[:, :2])


class Chunk(Model):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 1), nn.Conv2d(2, 3, 1)

    def forward(self, x):
        parts = torch.chunk(self.conv1(x), 2, 1)
        return self.conv2(parts[0]) + self.conv2(parts[1])


class Squeezes(Model):
    inputs = [ROWS]

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.fc2(self.fc1(x).unsqueeze(1)).squeeze(1)


class Activations(Model):
    inputs = [ROWS]

    def __init__(self):
        super().__init__()
        self.fc, self.hardswish, self.elu, self.leaky = nn.Linear(5, 4), nn.Hardswish(), nn.ELU(), nn.LeakyReLU(0.1)

    def forward(self, x):
        return self.leaky(self.elu(self.hardswish(self.fc(x))))


class ActivationsFunctional(Model):
    inputs = [ROWS]

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 4)

    def forward(self, x):
        return F.leaky_relu(F.elu(F.hardswish(self.fc(x))))


class PRelu(Model):
    def __init__(self):
        super().__init__()
        self.conv, self.prelu = nn.Conv2d(3, 4, 3), nn.PReLU()

    def forward(self, x):
        return self.prelu(self.conv(x))


class Clamps(Model):
    def __init__(self):
        super().__init__()
        self.conv, self.relu6, self.hardtanh = nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Hardtanh()

    def forward(self, x):
        return self.hardtanh(self.relu6(self.conv(x)))


class FixedRanges(Model):
    inputs = [ROWS]

    def __init__(self):
        super().__init__()
        self.fc, self.sigmoid, self.tanh, self.softmax = nn.Linear(5, 4), nn.Sigmoid(), nn.Tanh(), nn.Softmax(dim=-1)

    def forward(self, x):
        return self.softmax(self.tanh(self.sigmoid(self.fc(x))))


class FixedRangesFunctional(Model):
    inputs = [ROWS]

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        return torch.tanh(self.fc2(torch.sigmoid(self.fc1(x))))


class LayerNorm(Model):
    inputs = [ROWS]

    def __init__(self):
        super().__init__()
        self.fc1, self.norm, self.fc2 = nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc2(self.norm(self.fc1(x)))


class GroupNorm(Model):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)

    def forward(self, x):
        return self.norm(self.conv(x))


class InstanceNorm(Model):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x))


class Dropout(Model):
    inputs = [ROWS]

    def __init__(self):
        super().__init__()
        self.fc1, self.dropout, self.fc2 = nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc2(self.dropout(self.fc1(x)))


class Interpolate(Model):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.conv2(F.interpolate(self.conv1(x), scale_factor=2.0, mode="nearest"))


class FloatInTheMiddle(Model):
    inputs = [ROWS]

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc2(torch.exp(self.fc1(x)))


# -- dynamic and weight-only --------------------------------------------------------------------------------------

class EmbeddingNet(Model):
    inputs = [("index", (3, 4), 10)]
    config = {"object_type": {"Embedding": "float_qparams"}}

    def __init__(self):
        super().__init__()
        self.embedding, self.fc = nn.Embedding(10, 12), nn.Linear(12, 3)

    def forward(self, x):
        return self.fc(self.embedding(x))


class EmbeddingBagNet(Model):
    inputs = [("index", (3, 4), 10)]
    config = {"global": "none", "object_type": {"EmbeddingBag": "float_qparams"}}

    def __init__(self):
        super().__init__()
        self.bag, self.fc = nn.EmbeddingBag(10, 12, mode="sum"), nn.Linear(12, 3)

    def forward(self, x):
        return self.fc(self.bag(x))


class DynamicLinear(Model):
    inputs = [ROWS]
    config = {"global": "dynamic"}

    def __init__(self):
        super().__init__()
        self.fc1, self.relu, self.fc2 = nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)

    def forward(self, x):
        return self.fc2(self.relu(self.fc1(x)))


class DynamicFunctional(Model):
    inputs = [ROWS]
    config = {"global": "dynamic"}

    def __init__(self):
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(6, 5)), nn.Parameter(torch.randn(6))

    def forward(self, x):
        return F.linear(x, self.w, self.b)


class DynamicLstm(Model):
    inputs = [(3, 2, 5)]
    config = {"global": "dynamic"}

    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(5, 6), nn.Linear(6, 3)

    def forward(self, x):
        results = self.lstm(x)
        return self.fc(results[0]), results[1][1]


class DynamicAndStatic(Model):
    inputs = [ROWS]
    config = {"module_name": {"fc2": "dynamic"}}

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc3(self.fc2(self.fc1(x)))


# -- which parts ----------------------------------------------------------------------------------------------

class ThreeLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc3(self.fc2(self.fc1(x)))


class OnlyByName(ThreeLayers, Model):
    inputs = [ROWS]
    config = {"global": "none", "module_name": {"fc2": "default"}}


class OnlyByType(Model):
    config = {"global": "none", "object_type": {"Conv2d": "default"}}

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(64, 2)

    def forward(self, x):
        return self.fc(torch.flatten(self.conv(x), 1))


class NoneInTheMiddle(ThreeLayers, Model):
    inputs = [ROWS]
    config = {"module_name": {"fc2": "none"}}


class NoneByType(Model):
    config = {"object_type": {"Linear": "none"}}

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(64, 2)

    def forward(self, x):
        return self.fc(torch.flatten(self.conv(x), 1))


class NoneByOperator(Model):
    inputs = [ROWS]
    config = {"object_type": {"add": "none"}}

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc3(self.fc1(x) + self.fc2(x))


class OnlyByRegex(ThreeLayers, Model):
    inputs = [ROWS]
    config = {"global": "none", "module_name_regex": {"fc[13]": "default"}}


class NameTypeOrder(Model):
    """The second linear of "" is float, the name beats the type."""
    inputs = [ROWS]
    config = {"module_name_object_type_order": [["", "linear", 1, "none"]]}

    def __init__(self):
        super().__init__()
        self.w1, self.w2 = nn.Parameter(torch.randn(5, 5)), nn.Parameter(torch.randn(4, 5))

    def forward(self, x):
        return F.linear(F.linear(x, self.w1), self.w2)


class Precedence(ThreeLayers, Model):
    """Type, regex and name say different things of fc2 and fc3: the name wins, then the regex."""
    inputs = [ROWS]
    config = {"global": "none", "object_type": {"Linear": "none"}, "module_name_regex": {"fc[23]": "default"},
              "module_name": {"fc2": "none"}}


class PerChannel(Model):
    config = {"global": "per_channel"}

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(F.relu(self.conv(x)).mean([2, 3]))


# -- inputs, results, structure -------------------------------------------------------------------------------------

class TwoInputs(Model):
    inputs = [ROWS, (4, 6)]

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 3), nn.Linear(6, 3)

    def forward(self, x, y):
        return self.fc1(x) + self.fc2(y)


class TwoOutputs(Model):
    inputs = [ROWS]

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(5, 6), nn.Linear(6, 3), nn.Linear(6, 2)

    def forward(self, x):
        x = self.fc1(x)
        return self.fc2(x), self.fc3(x)


class SharedModule(Model):
    inputs = [ROWS]

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 5)

    def forward(self, x):
        return self.fc(self.fc(x))


class SharedModuleOneRelu(Model):
    """One of its two calls is followed by a relu."""
    inputs = [ROWS]

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 5)

    def forward(self, x):
        return self.fc(F.relu(self.fc(x)))


class SharedValue(Model):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.conv1(x) + self.conv2(x)


class InputQuantized(Model):
    inputs = [ROWS]
    config = {"input_quantized_idxs": [0]}

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 4)

    def forward(self, x):
        return self.fc(x)


class OutputQuantized(Model):
    inputs = [ROWS]
    config = {"output_quantized_idxs": [0]}

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 4)

    def forward(self, x):
        return self.fc(x)


class BothQuantized(Model):
    inputs = [IMAGE, IMAGE]
    config = {"input_quantized_idxs": [1], "output_quantized_idxs": [0]}

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x, y):
        return F.relu(self.conv(x) + y)


class Preserved(Model):
    inputs = [ROWS]
    config = {"preserved_attributes": ["extra"]}

    def __init__(self):
        super().__init__()
        self.fc, self.extra = nn.Linear(5, 4), nn.Linear(2, 2)

    def forward(self, x):
        return self.fc(x)


class DependsOnData(nn.Module):
    """Cannot be traced."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(x) if x.sum() > 0 else x


class NonTraceableName(Model):
    inputs = [ROWS]
    config = {"non_traceable_module_name": ["middle"]}

    def __init__(self):
        super().__init__()
        self.fc1, self.middle, self.fc2 = nn.Linear(5, 4), DependsOnData(), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc2(self.middle(self.fc1(x)))


class NonTraceableClass(Model):
    inputs = [ROWS]
    config = {"non_traceable_module_class": ["DependsOnData"]}

    def __init__(self):
        super().__init__()
        self.fc1, self.middle, self.fc2 = nn.Linear(5, 4), DependsOnData(), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc2(self.middle(self.fc1(x)))


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return F.relu(self.fc(x))


class Standalone(Model):
    """Takes and gives floats."""
    inputs = [ROWS]
    config = {"standalone_module_name": {"inner": {}}}

    def __init__(self):
        super().__init__()
        self.fc1, self.inner, self.fc2 = nn.Linear(5, 4), Inner(), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc2(self.inner(self.fc1(x)))


class StandaloneQuantized(Model):
    """Takes and gives quantized tensors."""
    inputs = [ROWS]
    config = {"standalone_module_name": {"inner": {"input_quantized_idxs": [0], "output_quantized_idxs": [0]}}}

    def __init__(self):
        super().__init__()
        self.fc1, self.inner, self.fc2 = nn.Linear(5, 4), Inner(), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc2(self.inner(self.fc1(x)))


class CustomModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        return self.linear(x)


class ObservedCustomModule(nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        return self.linear(x)

    @classmethod
    def from_float(cls, float_module):
        observed = cls(float_module.linear)
        observed.qconfig = float_module.qconfig
        return observed


class StaticQuantCustomModule(nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        return self.linear(x)

    @classmethod
    def from_observed(cls, observed_module):
        observed_module.linear.activation_post_process = observed_module.activation_post_process
        return cls(nnq.Linear.from_float(observed_module.linear))


class Custom(Model):
    """The custom module of PyTorch's documents."""
    inputs = [(4, 3)]
    config = {"custom": True}

    def __init__(self):
        super().__init__()
        self.linear, self.custom = nn.Linear(3, 3), CustomModule()

    def forward(self, x):
        return self.custom(self.linear(x))


class CustomInTheMiddle(Model):
    inputs = [(4, 3)]
    config = {"custom": True}

    def __init__(self):
        super().__init__()
        self.fc1, self.custom, self.fc2 = nn.Linear(3, 3), CustomModule(), nn.Linear(3, 2)

    def forward(self, x):
        return self.fc2(self.custom(self.fc1(x)))


class NestedSequential(Model):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), nn.MaxPool2d(2),
                                      nn.Sequential(nn.Conv2d(4, 5, 2), nn.ReLU()))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(5, 3))

    def forward(self, x):
        return self.head(self.features(x))


class UnusedBranch(Model):
    inputs = [ROWS]

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 4), nn.Linear(5, 3)

    def forward(self, x):
        y = self.fc2(x)  # noqa: F841
        return self.fc1(x)


class Nothing(Model):
    """Nothing in it can be quantized."""
    inputs = [ROWS]

    def forward(self, x):
        return torch.exp(x)


# -- training ---------------------------------------------------------------------------------------------------

class QatConvAlone(ConvAlone):
    config = {"qat": True}


class QatConvRelu(ConvRelu):
    config = {"qat": True}


class QatConvBn(ConvBn):
    config = {"qat": True}


class QatConvBnRelu(ConvBnRelu):
    config = {"qat": True}


class QatLinearRelu(LinearRelu):
    config = {"qat": True}


class QatLinearBn(LinearBn):
    config = {"qat": True}


class QatResidual(Residual):
    config = {"qat": True}


class QatFixedRanges(FixedRanges):
    config = {"qat": True}


class QatFunctional(FunctionalLinear):
    config = {"qat": True}


# -- configs -----------------------------------------------------------------------------------------------------

TYPES = {name: getattr(nn, name) for name in ("Conv2d", "Linear", "Embedding", "EmbeddingBag")}
TYPES.update({"linear": F.linear, "add": operator.add})


def qconfig(name, qat):
    if name == "default":
        return get_default_qat_qconfig("qnnpack") if qat else get_default_qconfig("qnnpack")
    return {"none": None, "dynamic": default_dynamic_qconfig, "float_qparams": float_qparams_weight_only_qconfig,
            "per_channel": QConfig(HistogramObserver.with_args(reduce_range=False), default_per_channel_weight_observer)}[name]


def mapping(config):
    """global: get_default_qconfig_mapping("qnnpack"), unless it is named."""
    qat = config.get("qat", False)
    if "global" in config:
        m = QConfigMapping().set_global(qconfig(config["global"], qat))
    else:
        m = (get_default_qat_qconfig_mapping if qat else get_default_qconfig_mapping)("qnnpack")
    for t, q in config.get("object_type", {}).items():
        m.set_object_type(TYPES[t], qconfig(q, qat))
    for pattern, q in config.get("module_name_regex", {}).items():
        m.set_module_name_regex(pattern, qconfig(q, qat))
    for name, q in config.get("module_name", {}).items():
        m.set_module_name(name, qconfig(q, qat))
    for name, t, i, q in config.get("module_name_object_type_order", []):
        m.set_module_name_object_type_order(name, TYPES[t], i, qconfig(q, qat))
    return m


def prepare_custom(config):
    c = PrepareCustomConfig()
    c.set_input_quantized_indexes(config.get("input_quantized_idxs", []))
    c.set_output_quantized_indexes(config.get("output_quantized_idxs", []))
    c.set_preserved_attributes(config.get("preserved_attributes", []))
    c.set_non_traceable_module_names(config.get("non_traceable_module_name", []))
    c.set_non_traceable_module_classes([globals()[k] for k in config.get("non_traceable_module_class", [])])
    for path, inner in config.get("standalone_module_name", {}).items():
        c.set_standalone_module_name(path, None, (), prepare_custom(inner), None)
    if config.get("custom"):
        c.set_float_to_observed_mapping(CustomModule, ObservedCustomModule)
    return c


def convert_custom(config):
    c = ConvertCustomConfig().set_preserved_attributes(config.get("preserved_attributes", []))
    if config.get("custom"):
        c.set_observed_to_quantized_mapping(ObservedCustomModule, StaticQuantCustomModule)
    return c


def tensors(cls):
    out = []
    for shape in cls.inputs:
        if shape[0] == "index":
            out.append(torch.randint(shape[2], shape[1]))
        else:
            out.append(torch.randn(shape))
    return tuple(out)


def make(cls):
    torch.manual_seed(1)
    model = cls()
    return model.train() if cls.config.get("qat") else model.eval()


# -- normalising --------------------------------------------------------------------------------------------------

FUNCTIONS = {F.max_pool2d: "max_pool2d", F.adaptive_avg_pool2d: "adaptive_avg_pool2d", F.interpolate: "interpolate"}
RENAMED = {"view": "reshape", "transpose": "permute", "chunk": "split", "bmm": "matmul", "quantize_per_tensor": "quantize",
           "quantize_per_channel": "quantize", "quantize_per_tensor_dynamic": "quantize_dynamic", "hardtanh": "clamp"}
PACKED = ("linear", "conv1d", "conv2d", "conv3d", "linear_dynamic")


class Recorder(fx.Interpreter):
    """Runs a graph and keeps every node's value."""

    def __init__(self, gm):
        super().__init__(gm)
        self.values = {}

    def run_node(self, n):
        self.values[n] = super().run_node(n)
        return self.values[n]


def is_tensors(v):
    return isinstance(v, torch.Tensor) or (isinstance(v, (tuple, list)) and len(v) > 0 and all(is_tensors(e) for e in v))


def count(v):
    return 1 if isinstance(v, torch.Tensor) else sum(count(e) for e in v)


def operands(node):
    found = []
    fx.map_arg((node.args, node.kwargs), lambda n: found.append(n))
    return found


def has_scalar(node):
    return any(isinstance(a, (int, float)) for a in node.args[:2])


def class_of(module):
    name = module._get_name().replace("Tranpose", "Transpose")
    if "Reference" in name:
        return "QuantizedReference" + type(module).__name__
    if isinstance(module, fx.GraphModule):
        return "Standalone"
    if ".qat" in type(module).__module__:
        return "qat." + name
    if isinstance(module, nn.Sequential) and len(module) and "Reference" in module[0]._get_name():
        return "QuantizedReference" + name
    return name


class Normaliser:
    def __init__(self, gm, inputs, packed_of):
        self.gm, self.packed_of = gm, packed_of  # packed_of: the constants of each packed weight, in order
        self.modules = dict(gm.named_modules(remove_duplicate=False))
        self.inside = {}  # path: (module, inputs)
        for path, m in self.modules.items():
            if path and isinstance(m, fx.GraphModule):
                m.register_forward_pre_hook(lambda m, x, path=path: self.inside.__setitem__(path, (m, x)))
        run = Recorder(gm)
        with torch.no_grad():
            run.run(*inputs)
        self.values = run.values
        self.out, self.where, self.observers, self.constants = [], {}, {}, {}

    def nodes(self):
        live = self.live()
        for n in self.gm.graph.nodes:
            if n in live:
                self.add(n)
        return self.out

    def live(self):
        """Nodes that are not folded away: those that compute tensors, for others that do."""
        live = []
        for n in self.gm.graph.nodes:
            if n.op != "output" and not is_tensors(self.values[n]):
                continue
            if n.op == "get_attr" and re.search(r"_(scale|zero_point|axis)_\d+$", n.target):
                continue
            live.append(n)
        keep = set(live)
        for n in reversed(live):
            users = [u for u in n.users if u in keep]
            if n.users and not users and n.op != "output":  # only folded nodes use it
                keep.discard(n)
        return keep

    def constant(self, name, value):
        if name not in self.constants:
            self.constants[name] = self.emit({"kind": "constant", "target": name}, value)
        return self.constants[name]

    def emit(self, node, value=None):
        if isinstance(value, torch.Tensor) and value.is_quantized:
            node["dtype"] = str(value.dtype).replace("torch.", "")
        self.out.append(node)
        return len(self.out) - 1

    def add(self, n):
        value = self.values[n]
        if n.op == "placeholder":
            number = sum(e["kind"] == "input" for e in self.out)
            self.where[n] = self.emit({"kind": "input", "target": str(number)}, value)
            return
        if n.op == "get_attr":
            if not isinstance(value, torch.Tensor):  # a packed weight: its user lists its constants
                return
            self.where[n] = self.constant(n.target, value)
            return
        ins = []
        for o in operands(n):
            if o in self.where:
                ins.append(self.where[o])
        if n.op == "output":
            self.emit({"kind": "output", "inputs": ins})
            return
        if n.op == "call_module":
            self.where[n] = self.module(n, ins, value)
            return
        self.call(n, ins, value)

    def module(self, n, ins, value):
        m = self.modules[n.target]
        node = {"kind": "module", "target": n.target, "class": class_of(m), "inputs": ins}
        if isinstance(m, (ObserverBase, FakeQuantizeBase)):
            node["target"] = "observer %d" % self.observers.setdefault(id(m), len(self.observers))
        return self.emit(node, value)

    def call(self, n, ins, value):
        name = n.target if isinstance(n.target, str) else FUNCTIONS.get(n.target, n.target.__name__)
        if name == "getitem":
            if isinstance(n.args[1], int) and not isinstance(self.values[n.args[0]], torch.Tensor):
                source = self.values[n.args[0]]
                at = sum(count(e) for e in source[:n.args[1]])
                base = self.where[n.args[0]]
                node, first = base if isinstance(base, list) else (base, 0)
                self.where[n] = [node, first + at]
                return
            parts = n.args[1] if isinstance(n.args[1], tuple) else (n.args[1],)
            at = ins[0]
            for s in parts:
                if s != slice(None):
                    op = "slice" if isinstance(s, slice) else "select"
                    at = self.emit({"kind": "call", "target": op, "inputs": [at]}, value)
            self.where[n] = at
            return
        node = {"kind": "call"}
        if "quantized" in getattr(n.target, "__module__", "") or "quantized" in str(n.target):
            if "_relu" in name and name != "leaky_relu":
                name, node["activation"] = name.replace("_relu", ""), "relu"
        if name.endswith("_") and not name.startswith("_"):
            name = name[:-1]
        name = RENAMED.get(name, name)
        if name in ("add", "mul") and has_scalar(n):
            name += "_scalar"
        if name in PACKED and any(o.op == "get_attr" and not isinstance(self.values[o], torch.Tensor) for o in operands(n)):
            ins = ins[:1] + [self.constant(c, v) for c, v in self.packed_of.pop(0)]
        node["target"], node["inputs"] = name, ins
        self.where[n] = self.emit(node, value)


def packed_constants(reference):
    """What the functional layers of a reference graph have for weights and biases: (name, value) in the order of the graph."""
    run, found = Recorder(reference), []
    for n in reference.graph.nodes:
        if n.op == "call_function" and n.target in (F.linear, F.conv1d, F.conv2d, F.conv3d):
            quantized = [o for o in operands(n)[1:2] if o.op == "call_method" and o.target == "dequantize"]
            if not quantized:
                continue
            consts = []
            for o in operands(n)[1:]:
                dtype = None
                while o.op != "get_attr":
                    if o.op == "call_function":
                        dtype = [a for a in o.args if isinstance(a, torch.dtype)][0]
                    o = operands(o)[0]
                consts.append((o.target, torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, dtype) if dtype else None))
            found.append(consts)
    return found


def dump(gm, inputs, packed_of=()):
    """The nodes, and those of graphs inside by path."""
    norm = Normaliser(gm, inputs, list(packed_of))
    nodes = norm.nodes()
    return nodes, {path: dump(m, x)[0] for path, (m, x) in norm.inside.items()}


def traced(cls):
    model, config = make(cls), prepare_custom(cls.config)
    names, classes = get_skipped_module_name_and_classes(config, False)
    return fx.GraphModule(model, QuantizationTracer(names, classes).trace(model))


def quantized_inputs(cls, inputs):
    idxs = cls.config.get("input_quantized_idxs", [])
    return tuple(torch.quantize_per_tensor(x, 0.05, 128, torch.quint8) if i in idxs else x for i, x in enumerate(inputs))


def case(cls):
    inputs = tensors(cls)
    prepare = prepare_qat_fx if cls.config.get("qat") else prepare_fx

    def prepared():
        p = prepare(make(cls), mapping(cls.config), inputs, prepare_custom(cls.config))
        p(*inputs)
        return p

    def converted(to):
        p = prepared()
        return to(p.eval(), convert_custom_config=convert_custom(cls.config))

    out = {"name": cls.__name__, "inputs": cls.inputs, "config": cls.config}
    inside = {}
    reference = converted(convert_to_reference_fx)
    given = quantized_inputs(cls, inputs)
    fused = _fuse_fx(traced(cls), cls.config.get("qat", False))
    stages = {"traced": (traced(cls), inputs), "fused": (fused, inputs), "prepared": (prepared(), inputs),
              "reference": (reference, given), "lowered": (converted(convert_fx), given)}
    for stage, (gm, x) in stages.items():
        out[stage], within = dump(gm, x, packed_constants(reference) if stage == "lowered" else ())
        if within:
            inside[stage] = within
    if inside:
        out["inside"] = inside
    return out


def compact(value):
    return json.dumps(value, separators=(",", ":"))


def graph_text(nodes):
    return "[\n   " + ",\n   ".join(compact(n) for n in nodes) + "]"


def case_text(c):
    stages = ("traced", "fused", "prepared", "reference", "lowered")
    lines = ["%s:%s" % (compact(k), graph_text(v) if k in stages else compact(v)) for k, v in c.items()]
    return " {" + ",\n  ".join(lines) + "}"


def main():
    torch.backends.quantized.engine = "qnnpack"
    torch.manual_seed(0)
    cases = [case(cls) for cls in MODELS]
    path = os.path.join(OUT, "fx_graphs.json")
    with open(path, "w") as f:
        f.write('{"torch": "%s", "cases": [\n' % torch.__version__)
        f.write(",\n".join(case_text(c) for c in cases))
        f.write("\n]}\n")
    print(path, len(cases), "cases,", os.path.getsize(path), "bytes")


if __name__ == "__main__":
    main()
