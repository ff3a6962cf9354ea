"""Methods of tensors as functions; _methods.pyi has their arguments."""
from typing import Any

from ._octet import Tensor


def _method(name: str) -> Any:
    def function(input: Any, *args: Any, **kwargs: Any) -> Any:
        from ._functions import tensor
        return getattr(input if isinstance(input, Tensor) else tensor(input), name)(*args, **kwargs)
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"input.{name}(...)"
    return function


__all__ = ["add", "allclose", "amax", "amin", "argmax", "argmin", "chunk", "clamp", "clip", "clone", "dequantize", "div", "eq",
           "equal", "flatten", "ge", "gt", "le", "lt", "matmul", "max", "maximum", "mean", "min", "minimum", "mul", "ne",
           "permute", "pow", "prod", "remainder", "reshape", "split", "squeeze", "sub", "sum", "t", "transpose",
           "unsqueeze"]
globals().update((name, _method(name)) for name in __all__)
