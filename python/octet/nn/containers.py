"""Modules that hold modules."""
from __future__ import annotations

from collections import OrderedDict
from typing import Any, Iterable, Iterator, Mapping

from ._module import Module


class _Indexed(Module):
    """Children by number."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self._m.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, index: Any) -> Any:
        children = list(self.children())
        if isinstance(index, slice):
            return type(self)(*children[index]) if isinstance(self, Sequential) else ModuleList(children[index])
        return children[index]

    def __setitem__(self, index: int, module: Module) -> None:
        name = list(self.named_children())[index][0]
        self._m.set_child(name, module._m)


class Sequential(_Indexed):
    """Feeds each module's result to the next. Takes modules, or one OrderedDict of them by name."""

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.add_module(name, module)
        else:
            for each in modules:
                self.add_module(str(len(self)), each)  # type: ignore[arg-type]

    def append(self, module: Module) -> Sequential:
        self.add_module(str(len(self)), module)
        return self

    def forward(self, *inputs: Any) -> Any:
        result: Any = inputs
        for i, module in enumerate(self.children()):
            result = module(*result) if i == 0 else module(result)
        return result[0] if result is inputs and len(inputs) == 1 else result


class ModuleList(_Indexed):
    """Modules that their owner calls as it likes."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def append(self, module: Module) -> ModuleList:
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        for module in modules:
            self.append(module)
        return self


class ModuleDict(Module):
    """Modules by name."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        for name, module in (modules or {}).items():
            self.add_module(name, module)

    def __getitem__(self, key: str) -> Module:
        found = dict(self.named_children()).get(key)
        if found is None:
            raise KeyError(key)
        return found

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __len__(self) -> int:
        return len(self._m.children())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: str) -> bool:
        return self._m.child(key) is not None

    def keys(self) -> list[str]:
        return [name for name, _ in self._m.children()]

    def values(self) -> list[Module]:
        return list(self.children())

    def items(self) -> list[tuple[str, Module]]:
        return list(OrderedDict(self.named_children()).items())
