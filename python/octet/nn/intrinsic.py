"""octet's classes of this name, which fusion and quantization put into models (octet::nn::intrinsic)."""
from typing import Any

from ._module import _named


def __getattr__(name: str) -> Any:
    return _named(__name__, "octet::nn::intrinsic::" + name)
