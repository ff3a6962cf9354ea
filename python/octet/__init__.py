"""octet quantizes neural networks and runs them in 8 bits.

    import numpy, octet
    net = octet.load("net.onnx")
    int8 = octet.quantize(net, [image for image in images])    # numpy arrays, each with a batch dimension
    int8.save("net.octet")
    y = octet.compile(int8)(images[0]).numpy()

Models of modules, as in PyTorch: octet.nn, octet.quantization, octet.optim.
"""
from __future__ import annotations

from typing import Any, Callable, Iterable, Optional, TypeVar

from . import _octet, backends
from ._octet import *  # noqa: F401,F403
from ._octet import Graph, QConfigMapping, Tensor, load, quantize_dynamic_fx, quantize_weight_only_fx, version
from . import nn, optim, quantization
from .nn.functional import *  # noqa: F401,F403
from ._torch import from_torch, from_torch_state_dict
from .nn import GraphModule, ObservedGraphModule, trace
from .quantization.quantize_fx import convert_fx, convert_to_reference_fx, fuse_fx, prepare_fx, prepare_qat_fx
from .nn import intrinsic, qat, quantizable, quantized as _quantized  # noqa: F401
from .nn.quantized import dynamic, reference, weight_only  # noqa: F401

ops = _octet.call
__version__ = version()
_Fn = TypeVar("_Fn", bound=Callable[..., Any])


class _GradMode:
    """A mode of recording: a context, or a decorator of functions."""

    def __init__(self, on: Any) -> None:
        self._on = on

    def __enter__(self) -> None:
        _octet._enter_grad_mode(self._on)

    def __exit__(self, *error: Any) -> None:
        _octet._leave_grad_mode()

    def __call__(self, fn: _Fn) -> _Fn:
        import functools

        @functools.wraps(fn)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with self:
                return fn(*args, **kwargs)
        return wrapper  # type: ignore[return-value]


def no_grad() -> _GradMode:
    """Within it nothing is recorded for gradients."""
    return _GradMode(False)


def enable_grad() -> _GradMode:
    return _GradMode(True)


inference_mode = no_grad


def tensor(data: Any, dtype: Any = None, requires_grad: Any = False) -> Tensor:
    """A copy of numbers, nested lists of them, or an array. Fractions without a dtype are float32, as in PyTorch."""
    import numpy
    if isinstance(data, (Tensor, numpy.ndarray, numpy.generic)):
        made = Tensor(data)
        made = made.detach().clone() if isinstance(data, Tensor) else made
    else:
        array = numpy.asarray(data)
        made = Tensor(array.astype(numpy.float32) if array.dtype == numpy.float64 else array)
    if dtype is not None:
        made = made.to(dtype)
    if requires_grad:
        made.requires_grad = True
    return made


def arange(*bounds: Any, dtype: Any = None) -> Tensor:
    """arange(end), arange(start, end) or arange(start, end, step)."""
    import numpy
    return tensor(numpy.arange(*bounds), dtype) if all(isinstance(b, int) for b in bounds) \
        else tensor(numpy.arange(*bounds).astype(numpy.float32), dtype)


def randint(low: Any, high: Any = None, size: Any = ()) -> Tensor:
    """Whole numbers from low to high - 1 (or 0 to low - 1), int64."""
    if not isinstance(high, int):
        low, high, size = 0, low, high if high is not None else size
    return (_octet.rand(*size) * (high - low)).floor().clamp(0, high - low - 1).long() + low


def zeros_like(x: Tensor) -> Tensor:
    return _octet.zeros(*x.shape, dtype=x.dtype)


def ones_like(x: Tensor) -> Tensor:
    return _octet.ones(*x.shape, dtype=x.dtype)


def randn_like(x: Tensor) -> Tensor:
    return _octet.randn(*x.shape, dtype=x.dtype)


def _method(name: str) -> Any:
    def function(input: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(input if isinstance(input, Tensor) else tensor(input), name)(*args, **kwargs)
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"input.{name}(...)"
    return function


add, sub, mul, div = _method("add"), _method("sub"), _method("mul"), _method("div")
matmul, pow, maximum, minimum = _method("matmul"), _method("pow"), _method("maximum"), _method("minimum")
sum, mean, prod, amax, amin = _method("sum"), _method("mean"), _method("prod"), _method("amax"), _method("amin")
max, min, argmax, argmin = _method("max"), _method("min"), _method("argmax"), _method("argmin")
clamp, clip, flatten, reshape = _method("clamp"), _method("clip"), _method("flatten"), _method("reshape")
squeeze, unsqueeze, transpose = _method("squeeze"), _method("unsqueeze"), _method("transpose")
permute, chunk, split = _method("permute"), _method("chunk"), _method("split")
dequantize, allclose, equal = _method("dequantize"), _method("allclose"), _method("equal")


def _inputs(sample: Any) -> Any:
    return sample if isinstance(sample, tuple) else (sample,)


def quantize(model: Any, data: Optional[Iterable[Any]] = None, mode: str = "static",
             qconfig_mapping: Optional[QConfigMapping] = None, skip: Iterable[str] = ()) -> Graph:
    """The network in 8 bits.

    `model` is a Graph or a file's name. `data`: samples for mode "static": arrays with a batch dimension, or tuples of them for
    networks with several inputs. `mode`: "static", "dynamic" or "weight-only". `skip`: names of layers that stay float.
    """
    graph = model if isinstance(model, Graph) else load(str(model))
    if mode == "dynamic":
        return quantize_dynamic_fx(graph)
    if mode == "weight-only":
        return quantize_weight_only_fx(graph)
    if mode != "static":
        raise ValueError(f"mode {mode!r}: expected 'static', 'dynamic' or 'weight-only'")
    if data is None:
        raise ValueError("static quantization chooses scales from samples: give data")
    prepared = prepare_fx(graph, qconfig_mapping, skip=list(skip))
    for sample in data:
        prepared(*_inputs(sample))
    made: Graph = convert_fx(prepared)
    return made

