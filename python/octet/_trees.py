"""Arguments and results of a forward as a list of tensors, and back: tuples, lists, dictionaries and what is in
them."""
from __future__ import annotations

from typing import Any

from ._octet import Tensor, from_numpy

Leaf = Any  # (kind, what is needed to make it again)


def flatten(value: Any) -> tuple[list[Tensor], Leaf]:
    """The tensors in a value, and its shape without them."""
    tensors: list[Tensor] = []

    def walk(v: Any) -> Leaf:
        if isinstance(v, Tensor):
            tensors.append(v)
            return ("tensor", None)
        if isinstance(v, (tuple, list)):
            if hasattr(v, "_fields"):
                return ("named", (type(v), [walk(each) for each in v]))
            return (type(v).__name__ if type(v) in (tuple, list) else "tuple", [walk(each) for each in v])
        if isinstance(v, dict):
            return ("dict", [(key, walk(each)) for key, each in v.items()])
        if type(v).__module__ == "numpy" and type(v).__name__ == "ndarray" or type(v).__module__ == "torch":
            tensors.append(from_numpy(v) if type(v).__module__ == "numpy" else Tensor(v))
            return ("tensor", None)
        return ("value", v)

    return tensors, walk(value)


def unflatten(spec: Leaf, tensors: list[Tensor]) -> Any:
    left = iter(tensors)

    def make(leaf: Leaf) -> Any:
        kind, data = leaf
        if kind == "tensor":
            return next(left)
        if kind == "tuple":
            return tuple(make(each) for each in data)
        if kind == "list":
            return [make(each) for each in data]
        if kind == "named":
            return data[0](*(make(each) for each in data[1]))
        if kind == "dict":
            return {key: make(each) for key, each in data}
        return data

    return make(spec)
