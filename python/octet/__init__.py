"""octet quantizes neural networks and runs them in 8 bits.

    import numpy, octet
    net = octet.load("net.onnx")
    int8 = octet.quantize(net, [image for image in images])    # numpy arrays, each with a batch dimension
    int8.save("net.octet")
    y = octet.compile(int8)(images[0]).numpy()
"""
from typing import Any, Iterable, Optional

from ._octet import *  # noqa: F401,F403
from ._octet import (Graph, QConfigMapping, convert_fx, get_default_qconfig_mapping, load, prepare_fx, quantize_dynamic_fx,
                     quantize_weight_only_fx, version)

__version__ = version()


def _inputs(sample: Any) -> tuple:
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
    prepared = prepare_fx(graph, qconfig_mapping or get_default_qconfig_mapping(), list(skip))
    for sample in data:
        prepared(*_inputs(sample))
    return convert_fx(prepared)
