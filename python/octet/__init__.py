"""octet quantizes neural networks and runs them in 8 bits.

    import numpy, octet
    net = octet.load("net.onnx")
    int8 = octet.quantize(net, [image for image in images])    # numpy arrays, each with a batch dimension
    int8.save("net.octet")
    y = octet.compile(int8)(images[0]).numpy()

Models of modules, as in PyTorch: octet.nn, octet.quantization, octet.optim.
"""
from . import _octet, backends
from ._octet import *  # noqa: F401,F403
from ._octet import call as ops, version
from . import nn, optim, quantization
from .nn import GraphModule, ObservedGraphModule, trace
from .nn.functional import *  # noqa: F401,F403
from .quantization.quantize_fx import convert_fx, convert_to_reference_fx, fuse_fx, prepare_fx, prepare_qat_fx
from ._functions import (
    arange, compile, enable_grad, eye, full_like, inference_mode, is_tensor, linspace, load, methods as _methods, no_grad,
    ones_like, quantize, rand_like, randint, randn_like, save, tensor, topk, where, zeros_like)
from ._torch import from_torch, from_torch_state_dict
from ._trees import register_value
from .nn import intrinsic, qat, quantizable, quantized as _quantized_modules  # noqa: F401
from .nn.quantized import dynamic as _dynamic, reference as _reference, weight_only as _weight_only  # noqa: F401
from . import ao

__version__ = version()
# PyTorch's other names of dtypes, and functions that are methods of tensors too; last, for some hide Python's own here.
globals().update(_methods)
float, double, half = _octet.float32, _octet.float64, _octet.float16
int, long = _octet.int32, _octet.int64
