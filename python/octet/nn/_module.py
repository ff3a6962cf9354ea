"""Modules: what torch.nn.Module is to PyTorch.

C++ holds a module; the Python object is a view of it that is made when it is wanted. Of a class written in
Python, C++ holds the class and the attributes too (python/modules.h).
"""
from __future__ import annotations

import functools
import inspect
import threading
import weakref
from collections import OrderedDict
from typing import Any, Callable, Iterable, Iterator, Sequence, TypeVar

from .. import _octet
from .._octet import Tensor
from .._trees import Leaf, flatten, is_plain, unflatten

M = TypeVar("M", bound="Module")
_Handle = _octet._Module

_views: weakref.WeakValueDictionary[int, Module] = weakref.WeakValueDictionary()
_classes: dict[str, type[Module]] = {}  # octet's own, by registered name


class Parameter(Tensor):
    """A tensor that is trained: an attribute of a module that is one becomes a parameter of it."""

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data)
        self.requires_grad = requires_grad


class _Frame:
    """A call of a module from Python: what its arguments were before they became a list of tensors."""

    def __init__(self, key: int, arguments: Leaf, count: int) -> None:
        self.key, self.arguments, self.count = key, arguments, count
        self.used = False
        self.results: Leaf | None = None


class _Calls(threading.local):
    def __init__(self) -> None:
        self.frames: list[_Frame] = []


_calls = _Calls()


class RemovableHandle:
    """Takes a hook away again."""

    def __init__(self, module: Module, name: str) -> None:
        self._handle, self._name = module._m, name

    def remove(self) -> None:
        self._handle.remove_forward_hook(self._name)


class Module:
    """A model or a part of one. Derive from it, set submodules as attributes, and write `forward`."""

    __slots__ = ("_m", "__dict__", "__weakref__")
    _m: _Handle
    _registered: str | None = None  # of octet's own classes

    def __init__(self) -> None:
        self._adopt(_Handle.python(type(self), self.__dict__))

    def _adopt(self, handle: _Handle) -> None:
        _set_handle(self, handle)
        _views[handle.key] = self

    # -- calling ---------------------------------------------------------------------------------
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if type(self).forward is Module.forward and self._m.python_side is None:
            return self(*args, **kwargs)
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        handle = self._m
        tensors, spec = flatten((args, kwargs))
        frame = _Frame(handle.key, spec, len(tensors))
        _calls.frames.append(frame)
        try:
            results = handle.call(tensors)
        finally:
            _calls.frames.pop()
        if frame.results is not None:
            return unflatten(frame.results, results)
        return self._results(results)

    def _results(self, results: list[Tensor]) -> Any:
        return results[0] if len(results) == 1 else tuple(results)

    # -- attributes ------------------------------------------------------------------------------
    def __getattr__(self, name: str) -> Any:
        if name == "_m":
            raise AttributeError(f"{type(self).__name__}: call super().__init__() first")
        child = self._m.child(name)
        if child is not None:
            return _wrap(child[0])
        if self._m.has_tensor(name):
            return self._m.tensor(name)
        if self._m.python_side is None:
            value = self._attribute(name)
            if value is not _missing:
                return value
        raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")

    def _attribute(self, name: str) -> Any:
        """An attribute of a module of C++: what it was made with."""
        if name.startswith("_"):
            return _missing
        if name in ("weight", "bias") and "quantized" in str(self._registered):
            return getattr(self._m, name)
        config = self._m.config()
        if "kernel" in config:  # of pools, as their operators have it: borders before, then behind
            config["kernel_size"] = config["kernel"]
            if "padding" in config:
                config["padding"] = config["padding"][:len(config["padding"]) // 2]
        if name in config:
            value = config[name]
            return tuple(value) if isinstance(value, list) else value
        state = self._m.extra_state()
        if name in ("scale", "zero_point") and name in state:
            value = state[name].item()
            return int(value) if name == "zero_point" else value
        return _missing

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(getattr(type(self), name, None), property) or name == "_m":
            object.__setattr__(self, name, value)
            return
        handle = self._m
        if isinstance(value, Module):
            self.__dict__.pop(name, None)
            handle.set_child(name, value._m)
        elif handle.child(name) is not None:
            if value is not None:
                raise TypeError(f"'{name}' is a submodule; it takes a module or None")
            handle.set_child(name, None)
        elif handle.has_tensor(name):
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(f"'{name}' is a parameter or a buffer; it takes a tensor or None")
            handle.set_tensor(name, value)
        elif isinstance(value, Parameter):
            self.__dict__.pop(name, None)
            handle.register_parameter(name, value)
        elif handle.python_side is not None:
            object.__setattr__(self, name, value)
        else:
            raise AttributeError(f"a {type(self).__name__} keeps no attribute '{name}'")

    def __delattr__(self, name: str) -> None:
        if name == "qconfig":
            self._m.delete_qconfig()
        elif not self._m.remove_child(name):
            object.__delattr__(self, name)

    def __dir__(self) -> Iterable[str]:
        names = [name for name, _ in self._m.children()] + [name for name, _, _ in self._m.own_tensors()]
        return [*object.__dir__(self), *names]

    # -- modes -----------------------------------------------------------------------------------
    @property
    def training(self) -> bool:
        return self._m.training()

    def train(self: M, mode: bool = True) -> M:
        self._m.train(mode)
        return self

    def eval(self: M) -> M:
        return self.train(False)

    @property
    def qconfig(self) -> _octet.QConfig | None:
        """How quantization treats this module; None keeps it float. Without one: as the module around it."""
        own, value = self._m.qconfig()
        if not own:
            raise AttributeError("qconfig")
        return value

    @qconfig.setter
    def qconfig(self, value: _octet.QConfig | None) -> None:
        self._m.set_qconfig(value)

    # -- structure -------------------------------------------------------------------------------
    def add_module(self, name: str, module: Module | None) -> None:
        self._m.set_child(name, None if module is None else _handle(module))

    register_module = add_module

    def register_parameter(self, name: str, param: Tensor | None) -> None:
        self._m.register_parameter(name, param)

    def register_buffer(self, name: str, tensor: Tensor | None) -> None:
        self._m.register_buffer(name, tensor)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        for name, child in self._m.children():
            if child is not None:
                yield name, _wrap(child)

    def children(self) -> Iterator[Module]:
        for _, child in self.named_children():
            yield child

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        for path, module in self._m.named_modules():
            yield path, _wrap(module)

    def modules(self) -> Iterator[Module]:
        for _, module in self.named_modules():
            yield module

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        yield from self._m.named_parameters()

    def parameters(self) -> Iterator[Tensor]:
        for _, tensor in self._m.named_parameters():
            yield tensor

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        yield from self._m.named_buffers()

    def buffers(self) -> Iterator[Tensor]:
        for _, tensor in self._m.named_buffers():
            yield tensor

    def get_submodule(self, target: str) -> Module:
        if not target:
            return self
        found: Module = _wrap(self._m.submodule(target))
        return found

    def set_submodule(self, target: str, module: Module) -> None:
        self._m.set_submodule(target, _handle(module))

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # -- state -----------------------------------------------------------------------------------
    def state_dict(self) -> OrderedDict[str, Tensor]:
        """The model's own tensors by name, quantized weights among them."""
        return OrderedDict(self._m.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes octet's state dicts and PyTorch's (octet.from_torch_state_dict). Strict: an error names all that
        does not fit."""
        from .. import _torch
        self._m.load_state_dict(_torch.from_torch_state_dict(state_dict))

    def zero_grad(self) -> None:
        self._m.zero_grad()

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        self._m.requires_grad(requires_grad)
        return self

    def to(self: M, *args: Any, **kwargs: Any) -> M:
        """For programs that were written for PyTorch: parameters are float32 on the CPU and stay so."""
        for wanted in (*args, *kwargs.values()):
            if isinstance(wanted, _octet.dtype) and wanted != _octet.dtype.float32:
                _octet.fail("unsupported", f"to: parameters are float32; {wanted} is for quantization to make")
            if isinstance(wanted, str) and wanted != "cpu":
                _octet.fail("unsupported", f"to: octet runs on the CPU; there is no '{wanted}'")
        return self

    def cpu(self: M) -> M:
        return self

    def float(self: M) -> M:
        return self

    # -- hooks -----------------------------------------------------------------------------------
    def register_forward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """hook(module, inputs, output), after each call; what it returns, if anything, is the output then."""
        return self._hook(self._m.add_forward_hook, hook)

    def register_forward_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """hook(module, inputs), before each call; what it returns, if anything, are the inputs then."""
        return self._hook(self._m.add_forward_pre_hook, hook)

    def _hook(self, add: Callable[[str, Callable[..., Any]], None], hook: Callable[..., Any]) -> RemovableHandle:
        global _hooks
        _hooks += 1
        add(f"python hook {_hooks}", hook)
        return RemovableHandle(self, f"python hook {_hooks}")

    # -- copies ----------------------------------------------------------------------------------
    def clone(self: M) -> M:
        copy: M = _wrap(self._m.clone())
        return copy

    def __deepcopy__(self: M, memo: dict[int, Any]) -> M:
        return self.clone()

    def __copy__(self: M) -> M:
        return self.clone()

    def __reduce__(self) -> Any:
        return _restored, (_saved(self),)

    def extra_repr(self) -> str:
        return "" if self._m.python_side is not None else self._m.extra_repr()

    def __repr__(self) -> str:
        return self._m.to_string().rstrip("\n")


_missing = object()
_hooks = 0


def _set_handle(module: Module, handle: _Handle) -> None:
    Module._m.__set__(module, handle)  # type: ignore[attr-defined]


def layer(name: str, config: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> Callable[[type[M]], type[M]]:
    """A class of modules of C++, registered there under `name`. Its constructor's arguments, by the names of its
    signature, are the module's configuration, or what `config` makes of them."""
    def decorate(cls: type[M]) -> type[M]:
        written: Any = cls.__init__
        signature = inspect.signature(written)

        @functools.wraps(written)
        def __init__(self: M, *args: Any, **kwargs: Any) -> None:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            given = dict(bound.arguments)
            del given["self"]
            tensors = {key: value for key, value in given.items() if isinstance(value, Tensor)}
            given.update((key, list(value.shape)) for key, value in tensors.items())
            self._adopt(_Handle.make(name, config(given) if config else given))
            for key, value in tensors.items():
                self._m.set_tensor(key, value)

        setattr(cls, "__init__", __init__)
        cls._registered = name
        _classes[name] = cls

        def __init_subclass__(sub: type[Module], **kwargs: Any) -> None:
            if "_registered" not in sub.__dict__ and not sub.__module__.startswith("octet."):
                raise TypeError(f"a class cannot be derived from octet's {cls.__name__}: derive it from "
                                f"octet.nn.Module, and keep a {cls.__name__} in it")
        setattr(cls, "__init_subclass__", classmethod(__init_subclass__))
        return cls
    return decorate


class _Quantized(Module):
    """A quantized layer: weight() is its quantized tensor, bias() its float one."""

    __slots__ = ()

    @classmethod
    def from_float(cls, module: Module) -> Any:
        """The quantized layer of a prepared one: it has a qconfig and, if this class is static, an
        activation_post_process that has seen data."""
        return _octet._from_float(str(cls._registered), module)


class _QuantizedRecurrent(_Quantized):
    """Gives y and the last state, as the float network does."""

    __slots__ = ()

    def _results(self, results: list[Tensor]) -> Any:
        return _recurrent_results(results)


def _recurrent_results(results: list[Tensor]) -> Any:
    if len(results) == 1:
        return results[0]
    return results[0], (results[1] if len(results) == 2 else tuple(results[1:]))


def _class_of(name: str) -> type[Module]:
    """The class of a module of C++: written in this package, or made now."""
    if name not in _classes:
        from .containers import _Indexed
        scope, _, short = name.rpartition("::")
        base = _QuantizedRecurrent if short in ("LSTM", "GRU", "RNN") else \
            _Quantized if "quantized" in scope else \
            _Indexed if scope == "octet::nn::intrinsic" or short in ("Sequential", "ModuleList") else Module
        package = scope.replace("::", ".").replace("octet.quant", "octet.quantization")
        _classes[name] = type(short, (base,), {"_registered": name, "__slots__": (), "__module__": package})
    return _classes[name]


def _named(module: str, name: str) -> type[Module]:
    if name not in _octet.registered_modules():
        raise AttributeError(f"module '{module}' has no attribute '{name.rpartition('::')[2]}'")
    return _class_of(name)


# -- what C++ calls (python/nn.cpp) ----------------------------------------------------------------

def _wrap(handle: _Handle) -> Any:
    view = _views.get(handle.key)
    if view is not None:
        return view
    side = handle.python_side
    cls = _class_of(handle.registered_name) if side is None else side[0]
    view = object.__new__(cls)
    _set_handle(view, handle)
    if side is not None:
        view.__dict__ = side[1]
    _views[handle.key] = view
    return view


def _handle(module: Any) -> _Handle:
    if not isinstance(module, Module):
        raise TypeError(f"an octet.nn.Module is needed; this is a {type(module).__name__}")
    return module._m


def _run_forward(module: Module, tensors: list[Tensor]) -> list[Tensor]:
    frame = _calls.frames[-1] if _calls.frames else None
    args: Sequence[Any] = tensors
    kwargs: dict[str, Any] = {}
    if frame and frame.key == module._m.key and not frame.used and frame.count == len(tensors):
        frame.used = True
        args, kwargs = unflatten(frame.arguments, tensors)
        if not is_plain(frame.arguments):  # so will a graph that calls it
            module.__dict__["_arguments"] = (frame.count, frame.arguments)
    else:
        frame = None
        count, spec = module.__dict__.get("_arguments", (-1, None))
        if count == len(tensors):
            args, kwargs = unflatten(spec, tensors)
    flat, spec = flatten(module.forward(*args, **kwargs))
    if frame:
        frame.results = spec
    return flat


def example_tensors(module: Module, inputs: Any) -> list[Tensor]:
    """The tensors in example inputs: a tuple or list of arguments, or the only one. The module's forward is given
    the arguments that they are parts of."""
    given = tuple(inputs) if type(inputs) in (tuple, list) else (inputs,)
    tensors, spec = flatten((given, {}))
    if is_plain(spec):
        module.__dict__.pop("_arguments", None)
    else:
        module.__dict__["_arguments"] = (len(tensors), spec)
    return tensors


def _made_of(cls: type[Module], method: str, module: Module) -> Module:
    """A module that takes another's place: called as that was."""
    made: Module = getattr(cls, method)(module)
    if not isinstance(made, Module):
        raise TypeError(f"{cls.__name__}.{method} gave a {type(made).__name__}; a module is needed")
    if "_arguments" in module.__dict__ and made._m.python_side is not None:
        made.__dict__.setdefault("_arguments", module.__dict__["_arguments"])
    return made


def _run_hook(hook: Callable[..., Any], module: Module, inputs: list[Tensor], outputs: list[Tensor]) -> Any:
    changed = hook(module, tuple(inputs), module._results(outputs))
    return None if changed is None else flatten(changed)[0]


def _run_pre_hook(hook: Callable[..., Any], module: Module, inputs: list[Tensor]) -> Any:
    changed = hook(module, tuple(inputs))
    return None if changed is None else flatten(changed)[0]


def _overrides(cls: type[Module], method: str) -> bool:
    found = getattr(cls, method, None)
    return found is not None and not getattr(found, "__module__", "octet.").startswith("octet.")


# -- pickles ---------------------------------------------------------------------------------------

def _saved(root: Module) -> dict[str, Any]:
    """A model as data: its modules in one list, each with the numbers of its children."""
    from ..quantization._observers import _portable
    modules: list[_Handle] = []
    numbers: dict[int, int] = {}

    def visit(handle: _Handle) -> int:
        if handle.key not in numbers:
            numbers[handle.key] = len(modules)
            modules.append(handle)
            for _, child in handle.children():
                if child is not None:
                    visit(child)
        return numbers[handle.key]

    visit(root._m)
    nodes = []
    for handle in modules:
        side = handle.python_side
        nodes.append({
            "class": handle.registered_name if side is None else side[0],
            "config": _portable(_config(handle)) if side is None else None,
            "dict": None if side is None else dict(side[1]),
            "options": _octet._observer_options(handle) if _is_python_observer(handle) else None,
            "children": [(name, None if child is None else numbers[child.key]) for name, child in handle.children()],
            "tensors": [(name, tensor, buffer, tensor is not None and tensor.requires_grad)
                        for name, tensor, buffer in handle.own_tensors()],
            "extra": handle.extra_state(),
            "training": handle.training()})
    return {"nodes": nodes, "annotations": [(path, name, _portable(data)) for path, name, data in root._m.annotations()]}


def _config(handle: _Handle) -> dict[str, Any]:
    """The configuration; that of a fake-quantize module names the observer in it, which Python may have written."""
    config = handle.config()
    child = handle.child("activation_post_process")
    if "observer" in config and child is not None and _is_python_observer(child[0]):
        cls, attributes = child[0].python_side or (None, {})
        config["observer"] = (cls, attributes.get("_with_args", {}))
    return config


def _is_python_observer(handle: _Handle) -> bool:
    from ..quantization._observers import ObserverBase
    side = handle.python_side
    return side is not None and issubclass(side[0], ObserverBase)


def _restored(saved: dict[str, Any]) -> Module:
    from ..quantization._observers import _local
    handles: list[_Handle] = []
    for node in saved["nodes"]:
        if node["config"] is not None:
            handles.append(_Handle.make(node["class"], _local(node["config"])))
        elif node["options"] is not None:
            handles.append(_octet._python_observer(node["class"], node["dict"], node["options"]))
        else:
            handles.append(_Handle.python(node["class"], node["dict"]))
    for handle, node in zip(handles, saved["nodes"]):
        for name, _ in handle.children():
            if name not in [kept for kept, _ in node["children"]]:
                handle.remove_child(name)
        for name, number in node["children"]:
            handle.set_child(name, None if number is None else handles[number])
    for handle, node in zip(handles, saved["nodes"]):
        for name, tensor, buffer, trained in node["tensors"]:
            if tensor is not None and tensor.requires_grad != trained:
                tensor.requires_grad = trained
            if handle.has_tensor(name):
                handle.set_tensor(name, tensor)
            elif buffer:
                handle.register_buffer(name, tensor)
            else:
                handle.register_parameter(name, tensor)
        if node["extra"]:
            handle.set_extra_state(node["extra"])
    for handle, node in zip(handles, saved["nodes"]):  # those around a module before it
        if handle.training() != node["training"]:
            handle.train(node["training"])
    for path, name, data in saved["annotations"]:
        handles[0].load_annotation(path, name, _local(data))
    view: Module = _wrap(handles[0])
    return view
