"""Quantized modules: what convert() puts into models (octet::nn::quantized)."""
from typing import Any

from .._module import _named
from ...quantization._observers import FloatFunctional as FloatFunctional, QFunctional as QFunctional


def __getattr__(name: str) -> Any:
    return _named(__name__, "octet::nn::quantized::" + name)
