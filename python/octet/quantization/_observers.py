"""Observers, fake-quantize modules, stubs."""
from __future__ import annotations

from typing import Any, Sequence

from .. import _octet
from .._octet import ObserverFactory, Tensor
from ..nn._module import Module, _classes, _Handle, layer
from ..nn.layers import Identity


def _factory(observer: Any) -> ObserverFactory:
    """How a QConfig makes observers: of None, a class, or what with_args gave."""
    if observer is None:
        return ObserverFactory()
    if isinstance(observer, ObserverFactory):
        return observer
    if observer is Identity:
        return ObserverFactory("Identity")
    if isinstance(observer, type) and hasattr(observer, "with_args"):
        return observer.with_args()  # type: ignore[no-any-return]
    _octet.fail("invalid_argument", f"{observer!r} is no observer: a class, or what its with_args gave, is needed")


class _Described(Module):
    """The options that observers and fake-quantize modules, of C++ or of Python, have in common."""

    __slots__ = ()

    @property
    def dtype(self) -> _octet.dtype:
        return _octet._observer_dtype(self._m)

    @property
    def qscheme(self) -> _octet.qscheme:
        return _octet._observer_scheme(self._m)

    @property
    def quant_min(self) -> int:
        return _octet._observer_codes(self._m)[0]

    @property
    def quant_max(self) -> int:
        return _octet._observer_codes(self._m)[1]


class _Observing(_Described):
    """What those of C++ have in common."""

    __slots__ = ()

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """(scale, zero_point), one of each or one per channel. An error of code not_calibrated without data."""
        return _octet._observer_qparams(self._m)


class _Observer(_Observing):
    """An observer of C++ (octet/quant/observe)."""

    __slots__ = ()

    @property
    def min_val(self) -> Tensor:
        return _octet._observer_range(self._m)[0]

    @property
    def max_val(self) -> Tensor:
        return _octet._observer_range(self._m)[1]

    def reset_min_max_vals(self) -> None:
        _octet._observer_reset(self._m)

    def merge(self, other: Module) -> None:
        """Takes in what the other one has seen."""
        _octet._observer_merge(self._m, other._m)

    @classmethod
    def with_args(cls, **options: Any) -> ObserverFactory:
        return ObserverFactory(cls.__name__, options)


def _options(given: dict[str, Any]) -> dict[str, Any]:
    # In text, as configurations have them.
    return {name: value.name if isinstance(value, (_octet.qscheme, _octet.dtype)) else value
            for name, value in given.items() if value is not None}


@layer("octet::quant::MinMaxObserver", _options)
class MinMaxObserver(_Observer):
    """The least and greatest of all values."""

    def __init__(self, dtype: _octet.dtype = _octet.dtype.quint8,
                 qscheme: _octet.qscheme = _octet.qscheme.per_tensor_affine, reduce_range: bool = False,
                 quant_min: int | None = None, quant_max: int | None = None, eps: float | None = None) -> None: ...


@layer("octet::quant::MovingAverageMinMaxObserver", _options)
class MovingAverageMinMaxObserver(_Observer):
    def __init__(self, averaging_constant: float = 0.01, dtype: _octet.dtype = _octet.dtype.quint8,
                 qscheme: _octet.qscheme = _octet.qscheme.per_tensor_affine, reduce_range: bool = False,
                 quant_min: int | None = None, quant_max: int | None = None, eps: float | None = None) -> None: ...


@layer("octet::quant::PerChannelMinMaxObserver", _options)
class PerChannelMinMaxObserver(_Observer):
    def __init__(self, ch_axis: int = 0, dtype: _octet.dtype = _octet.dtype.quint8,
                 qscheme: _octet.qscheme = _octet.qscheme.per_channel_affine, reduce_range: bool = False,
                 quant_min: int | None = None, quant_max: int | None = None, eps: float | None = None) -> None: ...


@layer("octet::quant::PerChannelMSEObserver", _options)
class PerChannelMSEObserver(_Observer):
    """For each channel of a weight the range that quantizes it with the least squared error."""

    def __init__(self, ch_axis: int = 0, dtype: _octet.dtype = _octet.dtype.quint8,
                 qscheme: _octet.qscheme = _octet.qscheme.per_channel_affine, reduce_range: bool = False,
                 quant_min: int | None = None, quant_max: int | None = None, eps: float | None = None) -> None: ...


@layer("octet::quant::MovingAveragePerChannelMinMaxObserver", _options)
class MovingAveragePerChannelMinMaxObserver(_Observer):
    def __init__(self, averaging_constant: float = 0.01, ch_axis: int = 0,
                 dtype: _octet.dtype = _octet.dtype.quint8,
                 qscheme: _octet.qscheme = _octet.qscheme.per_channel_affine, reduce_range: bool = False,
                 quant_min: int | None = None, quant_max: int | None = None, eps: float | None = None) -> None: ...


@layer("octet::quant::HistogramObserver", _options)
class HistogramObserver(_Observer):
    """The range with the least expected error on a histogram of all values."""

    def __init__(self, bins: int = 2048, dtype: _octet.dtype = _octet.dtype.quint8,
                 qscheme: _octet.qscheme = _octet.qscheme.per_tensor_affine, reduce_range: bool = False,
                 quant_min: int | None = None, quant_max: int | None = None, eps: float | None = None) -> None: ...


@layer("octet::quant::EntropyObserver", _options)
class EntropyObserver(_Observer):
    def __init__(self, bins: int = 2048, dtype: _octet.dtype = _octet.dtype.quint8,
                 qscheme: _octet.qscheme = _octet.qscheme.per_tensor_affine, reduce_range: bool = False) -> None: ...


@layer("octet::quant::PercentileObserver", _options)
class PercentileObserver(_Observer):
    def __init__(self, percentile: float = 99.99, bins: int = 2048, dtype: _octet.dtype = _octet.dtype.quint8,
                 qscheme: _octet.qscheme = _octet.qscheme.per_tensor_affine, reduce_range: bool = False) -> None: ...


@layer("octet::quant::MSEObserver", _options)
class MSEObserver(_Observer):
    def __init__(self, bins: int = 2048, dtype: _octet.dtype = _octet.dtype.quint8,
                 qscheme: _octet.qscheme = _octet.qscheme.per_tensor_affine, reduce_range: bool = False) -> None: ...


@layer("octet::quant::ACIQObserver", _options)
class ACIQObserver(_Observer):
    def __init__(self, bins: int = 2048, dtype: _octet.dtype = _octet.dtype.quint8,
                 qscheme: _octet.qscheme = _octet.qscheme.per_tensor_affine, reduce_range: bool = False) -> None: ...


@layer("octet::quant::FixedQParamsObserver", _options)
class FixedQParamsObserver(_Observer):
    def __init__(self, scale: float, zero_point: int, dtype: _octet.dtype = _octet.dtype.quint8,
                 qscheme: _octet.qscheme = _octet.qscheme.per_tensor_affine, quant_min: int | None = None,
                 quant_max: int | None = None) -> None: ...


@layer("octet::quant::PlaceholderObserver", _options)
class PlaceholderObserver(_Observer):
    """Stands for a dtype: float16, or (is_dynamic) codes whose qparams are found at each call."""

    def __init__(self, dtype: _octet.dtype = _octet.dtype.float32, is_dynamic: bool = False,
                 quant_min: int | None = None, quant_max: int | None = None) -> None: ...


@layer("octet::quant::NoopObserver", _options)
class NoopObserver(_Observer):
    def __init__(self, dtype: _octet.dtype = _octet.dtype.float16) -> None: ...


@layer("octet::quant::RecordingObserver", _options)
class RecordingObserver(_Observer):
    """Keeps a copy of each tensor."""

    def __init__(self, dtype: _octet.dtype = _octet.dtype.quint8) -> None: ...

    def get_tensor_value(self) -> list[Tensor]:
        return _octet._observed_tensors(self._m)


@layer("octet::quant::ReuseInputObserver", _options)
class ReuseInputObserver(_Observer):
    def __init__(self) -> None: ...


# -- observers written in Python -------------------------------------------------------------------

class ObserverBase(_Described):
    """Derive an observer of your own from it: forward(x) looks at a tensor, calculate_qparams() gives (scale,
    zero_point), as numbers or tensors, one of each or one per channel. The constructor's arguments are those of
    with_args. octet shows every float tensor during calibration; it works as any other observer then."""

    def __init__(self, dtype: _octet.dtype = _octet.dtype.quint8,
                 qscheme: _octet.qscheme = _octet.qscheme.per_tensor_affine, reduce_range: bool = False,
                 quant_min: int | None = None, quant_max: int | None = None, ch_axis: int = 0,
                 eps: float | None = None) -> None:
        options = {"dtype": dtype, "qscheme": qscheme, "reduce_range": reduce_range, "quant_min": quant_min,
                   "quant_max": quant_max, "ch_axis": ch_axis, "eps": eps}
        self._adopt(_octet._python_observer(type(self), self.__dict__, options))

    def forward(self, x: Tensor) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward(x)")

    def calculate_qparams(self) -> tuple[Any, Any]:
        raise NotImplementedError(f"{type(self).__name__} has no calculate_qparams()")

    @classmethod
    def with_args(cls, **options: Any) -> ObserverFactory:
        return _python_factory(cls, options)


# How observers written in Python are made, by the names under which C++ knows that.
_python: dict[str, tuple[type[ObserverBase], dict[str, Any]]] = {}
_factories: dict[Any, ObserverFactory] = {}


def _python_factory(cls: type[ObserverBase], options: dict[str, Any]) -> ObserverFactory:
    key: Any = (cls, tuple(sorted(options.items())))
    try:
        if key in _factories:
            return _factories[key]
    except TypeError:  # options that cannot be looked up
        key = object()
    made = ObserverFactory.python(cls, options)
    _factories[key] = made
    _python[made.name] = (cls, options)
    return made


def _portable(attributes: dict[str, Any]) -> dict[str, Any]:
    """A QConfig's attributes for a pickle: observers written in Python by their class and options."""
    return {name: _python.get(value, value) if isinstance(value, str) else value
            for name, value in attributes.items()}


def _local(attributes: dict[str, Any]) -> dict[str, Any]:
    """The way back."""
    return {name: _python_factory(*value).name if isinstance(value, tuple) else value
            for name, value in attributes.items()}


class UniformQuantizationObserverBase(ObserverBase):
    """An observer of ranges: `calculate_qparams` from the tensors min_val and max_val that forward sets."""

    min_val: Any = None
    max_val: Any = None

    def calculate_qparams(self) -> tuple[Any, Any]:
        return self._calculate_qparams(self.min_val, self.max_val)

    def _calculate_qparams(self, min_val: Any, max_val: Any) -> tuple[Tensor, Tensor]:
        if min_val is None or max_val is None:
            _octet.fail("not_calibrated", f"{type(self).__name__}: no data was seen")
        return _octet._qparams_of_range(Tensor(min_val), Tensor(max_val), _octet._observer_options(self._m))

    def reset_min_max_vals(self) -> None:
        self.min_val = self.max_val = None
        self.__dict__.pop("_seen", None)


# -- fake quantization -----------------------------------------------------------------------------

class FakeQuantizeBase(_Observing):
    """Quantizes and dequantizes, so that training sees what quantizing does."""

    __slots__ = ()

    @classmethod
    def with_args(cls, observer: Any = None, **options: Any) -> ObserverFactory:
        factory = _factory(observer if observer is not None else cls._default_observer())
        if options.pop("use_grad_scaling", False):
            return factory.with_args(**options).fake_quantize(cls.__name__).with_grad_scaling(True)
        return factory.with_args(**options).fake_quantize(cls.__name__)

    @classmethod
    def _default_observer(cls) -> Any:
        return MovingAverageMinMaxObserver

    def __init__(self, observer: Any = None, **options: Any) -> None:
        made: Module = self.with_args(observer=observer, **options)()
        self._adopt(made._m.clone())

    def enable_fake_quant(self, enabled: bool = True) -> None:
        (_octet.enable_fake_quant if enabled else _octet.disable_fake_quant)(self)

    def disable_fake_quant(self) -> None:
        _octet.disable_fake_quant(self)

    def enable_observer(self, enabled: bool = True) -> None:
        (_octet.enable_observer if enabled else _octet.disable_observer)(self)

    def disable_observer(self) -> None:
        _octet.disable_observer(self)

    @property
    def scale(self) -> Tensor:
        found: Tensor = self._m.tensor("scale") if self._m.has_tensor("scale") else self._m.extra_state()["scale"]
        return found

    @property
    def zero_point(self) -> Tensor:
        found: Tensor = (self._m.tensor("zero_point") if self._m.has_tensor("zero_point")
                         else self._m.extra_state()["zero_point"])
        return found


class FakeQuantize(FakeQuantizeBase):
    _registered = "octet::quant::FakeQuantize"


class FixedQParamsFakeQuantize(FakeQuantizeBase):
    _registered = "octet::quant::FixedQParamsFakeQuantize"


class FusedMovingAvgObsFakeQuantize(FakeQuantizeBase):
    _registered = "octet::quant::FusedMovingAvgObsFakeQuantize"


class LearnableFakeQuantize(FakeQuantizeBase):
    _registered = "octet::quant::LearnableFakeQuantize"


# -- stubs and operations between tensors ----------------------------------------------------------

class QuantStub(Module):
    """Where a float tensor becomes codes. Until convert() it returns its input."""

    _registered = "octet::quant::QuantStub"

    def __init__(self, qconfig: _octet.QConfig | None = None) -> None:
        self._adopt(_Handle.make("octet::quant::QuantStub", {}))
        if qconfig is not None:
            self.qconfig = qconfig


@layer("octet::quant::DeQuantStub", lambda given: {})
class DeQuantStub(Module):
    """Where codes become a float tensor. Until convert() it returns its input."""

    def __init__(self, qconfig: Any = None) -> None: ...


class QuantWrapper(Module):
    """A model with a QuantStub before and a DeQuantStub behind it."""

    _registered = "octet::quant::QuantWrapper"

    def __init__(self, module: Module) -> None:
        self._adopt(_octet._quant_wrapper(module._m))


class FloatFunctional(Module):
    """Operations between tensors as a module, so that each result has a place for its observer."""

    _registered = "octet::nn::quantized::FloatFunctional"

    def __init__(self) -> None:
        self._adopt(_Handle.make("octet::nn::quantized::FloatFunctional", {}))

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return self._m.operation("add", [x, y], {})

    def add_scalar(self, x: Tensor, y: float) -> Tensor:
        return self._m.operation("add_scalar", [x], {"value": float(y)})

    def add_relu(self, x: Tensor, y: Tensor) -> Tensor:
        return self._m.operation("add", [x, y], {"activation": "relu"})

    def sub(self, x: Tensor, y: Tensor) -> Tensor:
        return self._m.operation("sub", [x, y], {})

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        return self._m.operation("mul", [x, y], {})

    def mul_scalar(self, x: Tensor, y: float) -> Tensor:
        return self._m.operation("mul_scalar", [x], {"value": float(y)})

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        return self._m.operation("matmul", [x, y], {})

    def cat(self, x: Sequence[Tensor], dim: int = 0) -> Tensor:
        return self._m.operation("cat", list(x), {"dim": dim})


class QFunctional(FloatFunctional):
    """What convert() makes of a FloatFunctional."""

    _registered = "octet::nn::quantized::QFunctional"


_own: list[type[Module]] = [FakeQuantize, FixedQParamsFakeQuantize, FusedMovingAvgObsFakeQuantize, LearnableFakeQuantize,
                            QuantStub, QuantWrapper, FloatFunctional, QFunctional]
_classes.update((str(cls._registered), cls) for cls in _own)
