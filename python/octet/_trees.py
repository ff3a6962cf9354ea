"""Arguments and results of a forward as a list of tensors, and back: tuples, lists, dictionaries, values of classes
that register_value knows, and what is in them."""
from __future__ import annotations

from typing import Any, Callable, Sequence

from ._octet import Tensor, from_numpy

Leaf = Any  # (kind, what is needed to make it again)
_values: dict[type, tuple[Callable[[Any], Sequence[Any]], Callable[..., Any]]] = {}


def register_value(cls: type, parts: Callable[[Any], Sequence[Any]], make: Callable[..., Any]) -> None:
    """A class of values that wrap tensors flows through modules then: parts(value) are its parts, tensors among them,
    make(*parts) is a value again. Graphs, observers and files see the tensors."""
    _values[cls] = (parts, make)


def flatten(value: Any) -> tuple[list[Tensor], Leaf]:
    """The tensors in a value, and its shape without them."""
    tensors: list[Tensor] = []

    def walk(v: Any) -> Leaf:
        if isinstance(v, Tensor):
            tensors.append(v)
            return ("tensor", None)
        if type(v) in _values:
            return ("value of", (type(v), [walk(each) for each in _values[type(v)][0](v)]))
        if isinstance(v, (tuple, list)):
            if hasattr(v, "_fields"):
                return ("named", (type(v), [walk(each) for each in v]))
            return ("list" if isinstance(v, list) else "tuple", [walk(each) for each in v])
        if isinstance(v, dict):
            return ("dict", [(key, walk(each)) for key, each in v.items()])
        package = type(v).__module__.split(".")[0]
        if (package, type(v).__name__) == ("numpy", "ndarray"):
            tensors.append(from_numpy(v))
            return ("tensor", None)
        if (package, type(v).__name__) == ("torch", "Tensor"):
            tensors.append(Tensor(v.detach()))
            return ("tensor", None)
        return ("as it is", v)

    return tensors, walk(value)


def is_plain(spec: Leaf) -> bool:
    """Are these the arguments ((tensor, ...), {})?"""
    (_, ((_, args), (_, kwargs))) = spec
    return not kwargs and all(kind == "tensor" for kind, _ in args)


def unflatten(spec: Leaf, tensors: Sequence[Tensor]) -> Any:
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
        if kind == "value of":
            return _values[data[0]][1](*(make(each) for each in data[1]))
        if kind == "dict":
            return {key: make(each) for key, each in data}
        return data

    return make(spec)
