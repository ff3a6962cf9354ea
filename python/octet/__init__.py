"""octet quantizes neural networks and runs them in 8 bits.

    import numpy, octet
    net = octet.load("net.onnx")
    int8 = octet.quantize(net, [image for image in images])    # numpy arrays, each with a batch dimension
    int8.save("net.octet")
    y = octet.compile(int8)(images[0]).numpy()

Models of modules, as in PyTorch: octet.nn, octet.quantization, octet.optim.
"""
from . import _octet, _pages as _pages, ao as ao, backends as backends, metrics as metrics, nn as nn, optim as optim
from . import quantization as quantization
from ._octet import *  # noqa: F401,F403
from ._octet import call as ops, version as version
from .nn.functional import *  # noqa: F401,F403
from .nn._graph import GraphModule as GraphModule, ObservedGraphModule as ObservedGraphModule, trace as trace
from .quantization.quantize_fx import (
    convert_fx as convert_fx, convert_to_reference_fx as convert_to_reference_fx, fuse_fx as fuse_fx,
    prepare_fx as prepare_fx, prepare_qat_fx as prepare_qat_fx)
from ._functions import (
    arange as arange, enable_grad as enable_grad, eye as eye, full_like as full_like, inference_mode as inference_mode,
    compile as compile, is_tensor as is_tensor, linspace as linspace, load as load, no_grad as no_grad, ones_like as ones_like,
    quantize as quantize, rand_like as rand_like, randint as randint, randn_like as randn_like, save as save,
    tensor as tensor, topk as topk, where as where, zeros_like as zeros_like)
from ._methods import *  # noqa: F401,F403
from ._torch import from_torch as from_torch, from_torch_state_dict as from_torch_state_dict
from ._trees import register_value as register_value
from .nn import intrinsic as _intrinsic, qat as _qat, quantizable as _quantizable, quantized as _quantized  # noqa: F401
from .nn.quantized import dynamic as _dynamic, reference as _reference, weight_only as _weight_only  # noqa: F401

__version__ = version()
# PyTorch's other names of dtypes; last, for they hide Python's own here.
float, double, half = _octet.float32, _octet.float64, _octet.float16
int, long = _octet.int32, _octet.int64
