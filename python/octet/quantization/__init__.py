"""Quantization under PyTorch's names (torch.ao.quantization): observers, QConfigs, eager mode, graph mode."""
from __future__ import annotations

from typing import Any, Callable, Iterable, Mapping, Sequence, Union

from .. import _octet
from .._octet import (
    BackendConfig as BackendConfig, get_backend_config as get_backend_config,
    get_fbgemm_backend_config as get_fbgemm_backend_config, get_native_backend_config as get_native_backend_config,
    get_onednn_backend_config as get_onednn_backend_config, get_qnnpack_backend_config as get_qnnpack_backend_config,
    get_tensorrt_backend_config as get_tensorrt_backend_config,
    ObserverFactory as ObserverFactory, QConfig as QConfig, QConfigMapping as QConfigMapping, Tensor as Tensor,
    absorb_high_biases as absorb_high_biases, adaround as adaround, add_quant_dequant as add_quant_dequant, awq as awq,
    choose_ranges as choose_ranges, choose_weight_ranges as choose_weight_ranges,
    convert_equalization_fx as convert_equalization_fx, correct_bias as correct_bias,
    correct_bias_analytically as correct_bias_analytically, cross_layer_equalization as cross_layer_equalization,
    default_equalization_qconfig as default_equalization_qconfig, distill as distill, gptq as gptq,
    hadamard_rotation as hadamard_rotation,
    prepare_equalization_fx as prepare_equalization_fx, quantize_block_weights as quantize_block_weights,
    reestimate_batch_norms as reestimate_batch_norms, smooth_quant as smooth_quant, start_qat_from as start_qat_from,
    disable_fake_quant as disable_fake_quant,
    disable_observer as disable_observer, enable_fake_quant as enable_fake_quant, enable_observer as enable_observer,
    enable_param_learning as enable_param_learning,
    get_default_qat_qconfig as get_default_qat_qconfig,
    get_default_qat_qconfig_mapping as get_default_qat_qconfig_mapping, get_default_qconfig as get_default_qconfig,
    get_default_qconfig_mapping as get_default_qconfig_mapping, qconfig_names as qconfig_names)
from ..nn._module import M, Module
from ._model_report import (
    Detector as Detector, DynamicStaticDetector as DynamicStaticDetector,
    InputWeightEqualizationDetector as InputWeightEqualizationDetector, ModelReport as ModelReport,
    OutlierDetector as OutlierDetector, PerChannelDetector as PerChannelDetector)
from ._observers import (
    ACIQObserver as ACIQObserver, DeQuantStub as DeQuantStub, EntropyObserver as EntropyObserver,
    FakeQuantize as FakeQuantize, FakeQuantizeBase as FakeQuantizeBase,
    FixedQParamsFakeQuantize as FixedQParamsFakeQuantize, FixedQParamsObserver as FixedQParamsObserver,
    FloatFunctional as FloatFunctional, FusedMovingAvgObsFakeQuantize as FusedMovingAvgObsFakeQuantize,
    HistogramObserver as HistogramObserver, LearnableFakeQuantize as LearnableFakeQuantize,
    MinMaxObserver as MinMaxObserver, MovingAverageMinMaxObserver as MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver as MovingAveragePerChannelMinMaxObserver, MSEObserver as MSEObserver,
    NoopObserver as NoopObserver, ObserverBase as ObserverBase, PercentileObserver as PercentileObserver,
    PerChannelMinMaxObserver as PerChannelMinMaxObserver, PerChannelMSEObserver as PerChannelMSEObserver, PlaceholderObserver as PlaceholderObserver,
    QFunctional as QFunctional, QuantStub as QuantStub, QuantWrapper as QuantWrapper,
    RecordingObserver as RecordingObserver, ReuseInputObserver as ReuseInputObserver,
    UniformQuantizationObserverBase as UniformQuantizationObserverBase, _factory)

# -- what PyTorch has by name ----------------------------------------------------------------------

_named = _octet._factories
default_observer: ObserverFactory = _named["default_observer"]
default_histogram_observer: ObserverFactory = _named["default_histogram_observer"]
default_weight_observer: ObserverFactory = _named["default_weight_observer"]
default_per_channel_weight_observer: ObserverFactory = _named["default_per_channel_weight_observer"]
weight_observer_range_neg_127_to_127: ObserverFactory = _named["weight_observer_range_neg_127_to_127"]
per_channel_weight_observer_range_neg_127_to_127: ObserverFactory = \
    _named["per_channel_weight_observer_range_neg_127_to_127"]
default_placeholder_observer: ObserverFactory = _named["default_placeholder_observer"]
default_debug_observer: ObserverFactory = _named["default_debug_observer"]
default_dynamic_quant_observer: ObserverFactory = _named["default_dynamic_quant_observer"]
default_float_qparams_observer: ObserverFactory = _named["default_float_qparams_observer"]
default_float_qparams_observer_4bit: ObserverFactory = _named["default_float_qparams_observer_4bit"]
default_fixed_qparams_range_0to1_observer: ObserverFactory = _named["default_fixed_qparams_range_0to1_observer"]
default_fixed_qparams_range_neg1to1_observer: ObserverFactory = _named["default_fixed_qparams_range_neg1to1_observer"]
default_affine_fixed_qparams_observer: ObserverFactory = _named["default_affine_fixed_qparams_observer"]
default_symmetric_fixed_qparams_observer: ObserverFactory = _named["default_symmetric_fixed_qparams_observer"]
default_reuse_input_observer: ObserverFactory = _named["default_reuse_input_observer"]
default_fake_quant: ObserverFactory = _named["default_fake_quant"]
default_weight_fake_quant: ObserverFactory = _named["default_weight_fake_quant"]
default_per_channel_weight_fake_quant: ObserverFactory = _named["default_per_channel_weight_fake_quant"]
default_dynamic_fake_quant: ObserverFactory = _named["default_dynamic_fake_quant"]
default_histogram_fake_quant: ObserverFactory = _named["default_histogram_fake_quant"]
default_embedding_fake_quant: ObserverFactory = _named["default_embedding_fake_quant"]
default_embedding_fake_quant_4bit: ObserverFactory = _named["default_embedding_fake_quant_4bit"]
default_fused_act_fake_quant: ObserverFactory = _named["default_fused_act_fake_quant"]
default_fused_wt_fake_quant: ObserverFactory = _named["default_fused_wt_fake_quant"]
default_fused_per_channel_wt_fake_quant: ObserverFactory = _named["default_fused_per_channel_wt_fake_quant"]
fused_wt_fake_quant_range_neg_127_to_127: ObserverFactory = _named["fused_wt_fake_quant_range_neg_127_to_127"]
fused_per_channel_wt_fake_quant_range_neg_127_to_127: ObserverFactory = \
    _named["fused_per_channel_wt_fake_quant_range_neg_127_to_127"]

default_qconfig: QConfig = get_default_qconfig("default_qconfig")
default_per_channel_qconfig: QConfig = get_default_qconfig("default_per_channel_qconfig")
default_debug_qconfig: QConfig = get_default_qconfig("default_debug_qconfig")
default_reuse_input_qconfig: QConfig = get_default_qconfig("default_reuse_input_qconfig")
default_symmetric_qnnpack_qconfig: QConfig = get_default_qconfig("default_symmetric_qnnpack_qconfig")
default_per_channel_symmetric_qnnpack_qconfig: QConfig = \
    get_default_qconfig("default_per_channel_symmetric_qnnpack_qconfig")
default_dynamic_qconfig: QConfig = get_default_qconfig("default_dynamic_qconfig")
per_channel_dynamic_qconfig: QConfig = get_default_qconfig("per_channel_dynamic_qconfig")
float16_dynamic_qconfig: QConfig = get_default_qconfig("float16_dynamic_qconfig")
float16_static_qconfig: QConfig = get_default_qconfig("float16_static_qconfig")
float_qparams_weight_only_qconfig: QConfig = get_default_qconfig("float_qparams_weight_only_qconfig")
float_qparams_weight_only_qconfig_4bit: QConfig = get_default_qconfig("float_qparams_weight_only_qconfig_4bit")
default_qat_qconfig: QConfig = get_default_qconfig("default_qat_qconfig")
default_qat_qconfig_v2: QConfig = get_default_qconfig("default_qat_qconfig_v2")
default_dynamic_qat_qconfig: QConfig = get_default_qconfig("default_dynamic_qat_qconfig")
default_weight_only_qconfig: QConfig = get_default_qconfig("default_weight_only_qconfig")
default_activation_only_qconfig: QConfig = get_default_qconfig("default_activation_only_qconfig")
default_symmetric_qnnpack_qat_qconfig: QConfig = get_default_qconfig("default_symmetric_qnnpack_qat_qconfig")
default_per_channel_symmetric_qnnpack_qat_qconfig: QConfig = \
    get_default_qconfig("default_per_channel_symmetric_qnnpack_qat_qconfig")
default_embedding_qat_qconfig: QConfig = get_default_qconfig("default_embedding_qat_qconfig")
default_embedding_qat_qconfig_4bit: QConfig = get_default_qconfig("default_embedding_qat_qconfig_4bit")

Type = Union[type, str, Callable[..., Any]]


def _type_name(type_: Any) -> str:
    """What C++ calls a class of modules or an operator: torch.nn.Linear's namesake, operator.add, "add"."""
    if isinstance(type_, str):
        return type_
    if isinstance(type_, type):
        if not issubclass(type_, Module):
            _octet.fail("invalid_argument", f"{type_.__name__} is no class of modules")
        name: str | None = type_.__dict__.get("_registered")
        return name if name is not None else _octet._class_name(type_)
    return str(type_.__name__)


def _by_name(classes: Mapping[Any, Any]) -> dict[str, Any]:
    return {_type_name(key): value for key, value in classes.items()}


class ConversionReport:
    """What convert did: `entries` are (module or node, class or operator, whether it is quantized, why not)."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str, bool, str]] = []
        self.warnings: list[str] = []

    def _set(self, found: Any) -> None:
        self.entries, self.warnings = found

    def left_float(self) -> list[tuple[str, str, bool, str]]:
        return [entry for entry in self.entries if not entry[2]]


# -- eager mode ------------------------------------------------------------------------------------

def propagate_qconfig_(module: Module, qconfig_dict: Mapping[Any, QConfig | None] | None = None) -> None:
    """Gives every submodule without a qconfig of its own the one of the dictionary (by path or class), else that of
    the module around it."""
    by_path = {key: value for key, value in (qconfig_dict or {}).items() if isinstance(key, str)}
    by_class = {key: value for key, value in (qconfig_dict or {}).items() if not isinstance(key, str)}
    _octet._propagate_qconfig(module, by_path, _by_name(by_class))


def fuse_modules(model: M, modules_to_fuse: Sequence[Any], inplace: bool = False) -> M:
    """[["conv", "bn", "relu"], ...] or one such list: one fused module in the first place, Identity in the others."""
    return _fuse(model, modules_to_fuse, inplace, False)


def fuse_modules_qat(model: M, modules_to_fuse: Sequence[Any], inplace: bool = False) -> M:
    return _fuse(model, modules_to_fuse, inplace, True)


def _fuse(model: M, modules: Sequence[Any], inplace: bool, qat: bool) -> M:
    lists = [modules] if modules and all(isinstance(name, str) for name in modules) else modules
    return _octet._fuse_modules(model, inplace, [list(each) for each in lists], qat)  # type: ignore[no-any-return]


def prepare(model: M, inplace: bool = False, *,
            prepare_custom_config_dict: Mapping[str, Any] | None = None,
            backend_config: BackendConfig | None = None) -> M:
    """Observers for what the qconfigs select. Run the result on samples, then convert it."""
    custom = (prepare_custom_config_dict or {}).get("float_to_observed_custom_module_class", {})
    return _octet._prepare(model, inplace, _by_name(custom), backend_config)  # type: ignore[no-any-return]


def prepare_qat(model: M, inplace: bool = False, *,
                prepare_custom_config_dict: Mapping[str, Any] | None = None,
                backend_config: BackendConfig | None = None) -> M:
    """Fake quantization for training; the model must be in training mode."""
    custom = (prepare_custom_config_dict or {}).get("float_to_observed_custom_module_class", {})
    return _octet._prepare_qat(model, inplace, _by_name(custom), backend_config)  # type: ignore[no-any-return]


def convert(module: Module, inplace: bool = False, *, convert_custom_config_dict: Mapping[str, Any] | None = None,
            for_loading: bool = False, strict: bool = False, report: ConversionReport | None = None,
            backend_config: BackendConfig | None = None) -> Any:
    """Quantized modules in the places of prepared ones. `for_loading`: the model need not be calibrated, for
    load_state_dict will say what calibration would have; `strict`: an error if anything stays float."""
    custom = (convert_custom_config_dict or {}).get("observed_to_quantized_custom_module_class", {})
    return _octet._convert(module, inplace, _by_name(custom), for_loading, strict,
                           None if report is None else report._set, backend_config)


def equalize(model: M, paired_modules_list: Sequence[Sequence[str]], threshold: float = 1e-4, inplace: bool = False,
             sample: Sequence[Tensor] = ()) -> M:
    """Evens out the ranges of the channels between layers that follow each other ([["conv1", "bn1", "conv2"], ...]);
    the float model computes what it did, which `sample` (inputs of the model) checks."""
    lists = [list(each) for each in paired_modules_list]
    return _octet._equalize(model, inplace, lists, threshold, list(sample))  # type: ignore[no-any-return]


def quantize(model: M, run_fn: Callable[..., Any], run_args: Sequence[Any] = (), inplace: bool = False) -> Any:
    prepared = prepare(model.clone() if not inplace else model, inplace=True)
    run_fn(prepared, *run_args)
    return convert(prepared, inplace=True)


def quantize_qat(model: M, run_fn: Callable[..., Any], run_args: Sequence[Any] = (), inplace: bool = False) -> Any:
    prepared = prepare_qat(model.clone() if not inplace else model, inplace=True)
    run_fn(prepared, *run_args)
    prepared.eval()
    return convert(prepared, inplace=True)


def _spec(spec: Any, dtype: _octet.dtype) -> tuple[dict[str, QConfig | None], dict[str, QConfig | None]]:
    if spec is None:
        return {}, {}
    if not isinstance(spec, Mapping):
        qconfig = _octet._dynamic_qconfig_for(dtype)
        spec = {key: qconfig for key in spec}
    return ({key: value for key, value in spec.items() if isinstance(key, str)},
            {_type_name(key): value for key, value in spec.items() if not isinstance(key, str)})


def quantize_dynamic(model: M, qconfig_spec: Iterable[Any] | Mapping[Any, QConfig | None] | None = None,
                     dtype: _octet.dtype = _octet.dtype.qint8, inplace: bool = False) -> M:
    """Weights as codes, activations quantized at each call; no calibration. `qconfig_spec`: classes or paths, or
    QConfigs by these; None: all that have a dynamic form."""
    return _octet._quantize_dynamic(model, inplace, *_spec(qconfig_spec, dtype), dtype)  # type: ignore[no-any-return]


def quantize_weight_only(model: M, qconfig_spec: Mapping[Any, QConfig | None] | None = None,
                         dtype: _octet.dtype = _octet.dtype.qint8, inplace: bool = False) -> M:
    """Weights as codes, arithmetic in float."""
    by_path, by_class = _spec(qconfig_spec or {}, dtype)
    return _octet._quantize_weight_only(model, inplace, by_path, by_class, dtype)  # type: ignore[no-any-return]


from .quantize_fx import (  # noqa: E402
    ConvertCustomConfig as ConvertCustomConfig, DeferredGraphModule as DeferredGraphModule,
    PrepareCustomConfig as PrepareCustomConfig, convert_fx as convert_fx,
    convert_to_reference_fx as convert_to_reference_fx, fuse_fx as fuse_fx, prepare_fx as prepare_fx,
    prepare_qat_fx as prepare_qat_fx)
