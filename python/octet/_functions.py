"""What stands in the package itself: making tensors, functions of tensors, files, quantizing in one call."""
from __future__ import annotations

import copyreg
import functools
import os
import tempfile
import warnings
from collections import OrderedDict
from typing import Any, Callable, Iterable, Mapping, Sequence, Sized, TypeVar

import numpy

from . import _octet
from ._octet import Graph, QConfigMapping, Tensor
from .nn._graph import GraphModule
from .nn._module import Module
from .quantization import ConversionReport
from .quantization.quantize_fx import convert_fx, prepare_fx

Fn = TypeVar("Fn", bound=Callable[..., Any])


class _GradMode:
    """A mode of recording: a context, or a decorator of functions."""

    def __init__(self, on: bool) -> None:
        self._on = on

    def __enter__(self) -> None:
        _octet._enter_grad_mode(self._on)

    def __exit__(self, *error: Any) -> None:
        _octet._leave_grad_mode()

    def __call__(self, fn: Fn) -> Fn:
        @functools.wraps(fn)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with self:
                return fn(*args, **kwargs)
        return wrapper  # type: ignore[return-value]


def no_grad() -> _GradMode:
    """Within it nothing is recorded for gradients."""
    return _GradMode(False)


def enable_grad() -> _GradMode:
    """Within it calls are recorded, also within no_grad()."""
    return _GradMode(True)


inference_mode = no_grad


# -- making tensors --------------------------------------------------------------------------------

def tensor(data: Any, dtype: _octet.dtype | None = None, requires_grad: bool = False) -> Tensor:
    """A copy of numbers, nested lists of them, or an array. Fractions without a dtype are float32, as in PyTorch."""
    if isinstance(data, Tensor):
        made = data.detach().clone()
    elif isinstance(data, (numpy.ndarray, numpy.generic)):
        made = Tensor(data)
    else:
        array = numpy.asarray(data)
        made = Tensor(array.astype(numpy.float32) if array.dtype == numpy.float64 else array)
    if dtype is not None:
        made = made.to(dtype)
    if requires_grad:
        made.requires_grad = True
    return made


def arange(*bounds: float, dtype: _octet.dtype | None = None) -> Tensor:
    """arange(end), arange(start, end) or arange(start, end, step)."""
    array = numpy.arange(*bounds)
    return tensor(array if array.dtype.kind == "i" else array.astype(numpy.float32), dtype)


def linspace(start: float, end: float, steps: int) -> Tensor:
    return tensor(numpy.linspace(start, end, steps).astype(numpy.float32))


def eye(n: int, m: int | None = None) -> Tensor:
    return tensor(numpy.eye(n, m, dtype=numpy.float32))


def randint(low: int, high: Any = None, size: Any = ()) -> Tensor:
    """Whole numbers from low to high - 1 (randint(high, size): from 0), int64."""
    if not isinstance(high, int):
        low, high, size = 0, low, high if high is not None else size
    made: Tensor = (_octet.rand(*size) * (high - low)).floor().clamp(0, high - low - 1).long() + low
    return made


def zeros_like(input: Tensor) -> Tensor:
    return _octet.zeros(*input.shape, dtype=input.dtype)


def ones_like(input: Tensor) -> Tensor:
    return _octet.ones(*input.shape, dtype=input.dtype)


def full_like(input: Tensor, fill_value: float) -> Tensor:
    return _octet.full(input.shape, fill_value, input.dtype)


def randn_like(input: Tensor) -> Tensor:
    return _octet.randn(*input.shape, dtype=input.dtype)


def rand_like(input: Tensor) -> Tensor:
    return _octet.rand(*input.shape, dtype=input.dtype)


def is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


# -- others ----------------------------------------------------------------------------------------

def where(condition: Tensor, input: Any, other: Any) -> Tensor:
    a = input if isinstance(input, Tensor) else tensor(float(input))
    b = other if isinstance(other, Tensor) else tensor(float(other))
    found: Tensor = _octet.call("where", condition, a, b)
    return found


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True) -> tuple[Tensor, Tensor]:
    """(values, indices)."""
    found: tuple[Tensor, Tensor] = _octet.call("topk", input, k=k, dim=dim, largest=largest)
    return found


# -- files -----------------------------------------------------------------------------------------

_STATES = (".pt", ".pth", ".bin", ".safetensors", ".index.json")


def load(path: Any, shapes: Mapping[str, Sequence[int]] | None = None) -> Any:
    """The network in a file .octet or .onnx as a Graph; a model of modules in a file .octet (save of a Module); the
    tensors of a state dict, of octet's or of PyTorch, in other files and in open ones. Nothing in a file is run."""
    if hasattr(path, "read"):
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "state")
            with open(name, "wb") as file:
                file.write(path.read())
            return OrderedDict(_octet.load_state_dict(name))
    name = os.fspath(path)
    if name.endswith(_STATES):
        return OrderedDict(_octet.load_state_dict(name))
    if name.endswith(".octet") and os.path.isfile(name) and _octet.is_model_file(name):
        return _octet.load_model(name)
    return _octet._load(name, dict(shapes or {}))


def save(what: Any, path: Any) -> None:
    """A Graph, a model of octet's modules, or a state dict; the latter also into an open file."""
    if isinstance(what, Graph):
        what.save(os.fspath(path))
    elif isinstance(what, Module):
        _octet.save_model(os.fspath(path), what)
    elif hasattr(path, "write"):
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "state")
            _octet.save_state_dict(name, dict(what))
            with open(name, "rb") as file:
                path.write(file.read())
    else:
        _octet.save_state_dict(os.fspath(path), dict(what))


def _graph_of(data: bytes) -> Graph:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "graph.octet")
        with open(path, "wb") as file:
            file.write(data)
        return _octet._load(path)


def _pickled_graph(graph: Graph) -> Any:
    """A graph is pickled as its .octet file."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "graph.octet")
        graph.save(path)
        with open(path, "rb") as file:
            return _graph_of, (file.read(),)


copyreg.pickle(Graph, _pickled_graph)


# -- quantizing in one call ------------------------------------------------------------------------

def quantize(model: Graph | str | os.PathLike[str], data: Iterable[Any] | None = None, mode: str = "static",
             qconfig_mapping: QConfigMapping | None = None, skip: Iterable[str] = (),
             progress: Callable[[int], Any] | None = None) -> Graph:
    """The network in 8 bits.

    `model` is a Graph or a file's name. `data`: samples for mode "static": arrays with a batch dimension, or tuples of them for
    networks with several inputs. `mode`: "static", "dynamic" or "weight-only". `skip`: names of layers that stay float. progress(n) is
    called after each sample, of which n were seen. Samples that are not enough are a warning (UserWarning), as is what codes cannot
    tell apart.
    """
    graph = model if isinstance(model, Graph) else _octet._load(os.fspath(model), {})
    if mode == "dynamic":
        return _octet.quantize_dynamic_fx(graph)
    if mode == "weight-only":
        return _octet.quantize_weight_only_fx(graph)
    if mode != "static":
        raise ValueError(f"mode {mode!r}: expected 'static', 'dynamic' or 'weight-only'")
    if data is None:
        raise ValueError("static quantization chooses scales from samples: give data")
    prepared = prepare_fx(graph, qconfig_mapping, skip=list(skip))
    watch, report, samples = _octet.CalibrationWatch(prepared), ConversionReport(), 0
    half = len(data) // 2 if isinstance(data, Sized) else 0  # of others it is not known before
    for seen, sample in enumerate(data, 1):
        inputs = sample if isinstance(sample, tuple) else (sample,)
        prepared(*inputs)
        samples += len(inputs[0])
        if seen == half:
            watch.half_way(samples)
        if progress is not None:
            progress(seen)
    made: Graph = convert_fx(prepared, report=report)
    for line in report.warnings + watch.finish(samples)["warnings"]:
        warnings.warn(line, stacklevel=2)
    return made


def compile(model: Graph | GraphModule, engine: str = "") -> _octet.Program:
    """What runs fastest: kernels, layouts and memory are chosen once. Takes what convert_fx and trace give."""
    return _octet._compile(model if isinstance(model, Graph) else model.to_graph(), engine)
