"""octet's classes of this name, which quantization puts into models (octet::nn::quantized::dynamic)."""
from typing import Any

from .._module import _named


def __getattr__(name: str) -> Any:
    return _named(__name__, "octet::nn::quantized::dynamic::" + name)
