"""Graph mode: a model of modules is traced, or a network comes as a graph (from ONNX), and the graph is rewritten."""
from __future__ import annotations

from typing import Any, Mapping, Sequence

from .. import _octet
from .._octet import Graph, QConfigMapping
from ..nn._module import Module, example_tensors
from ..quantization import ConversionReport, _by_name, _type_name


class PrepareCustomConfig:
    """torch.ao.quantization.fx.custom_config.PrepareCustomConfig."""

    def __init__(self) -> None:
        self._config = _octet._CustomConfig()

    def set_float_to_observed_mapping(self, float_class: type[Module], observed_class: type[Module],
                                      quant_type: str = "static") -> PrepareCustomConfig:
        custom = self._config.custom
        custom.setdefault(quant_type, {})[_type_name(float_class)] = observed_class
        self._config.custom = custom
        return self

    def set_standalone_module_names(self, names: Sequence[str]) -> PrepareCustomConfig:
        self._config.standalone_names = list(names)
        return self

    def set_non_traceable_module_names(self, names: Sequence[str]) -> PrepareCustomConfig:
        self._config.non_traceable_names = list(names)
        return self

    def set_non_traceable_module_classes(self, classes: Sequence[type[Module]]) -> PrepareCustomConfig:
        self._config.non_traceable_classes = [_type_name(cls) for cls in classes]
        return self

    def set_input_quantized_indexes(self, indexes: Sequence[int]) -> PrepareCustomConfig:
        self._config.inputs = list(indexes)
        return self

    def set_output_quantized_indexes(self, indexes: Sequence[int]) -> PrepareCustomConfig:
        self._config.outputs = list(indexes)
        return self

    def set_preserved_attributes(self, paths: Sequence[str]) -> PrepareCustomConfig:
        self._config.preserved = list(paths)
        return self

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PrepareCustomConfig:
        config = cls()
        for key, value in values.items():
            if key == "float_to_observed_custom_module_class":
                for mode, classes in value.items():
                    for float_class, observed in classes.items():
                        config.set_float_to_observed_mapping(float_class, observed, mode)
            elif key == "non_traceable_module_name":
                config.set_non_traceable_module_names(value)
            elif key == "non_traceable_module_class":
                config.set_non_traceable_module_classes(value)
            elif key == "input_quantized_idxs":
                config.set_input_quantized_indexes(value)
            elif key == "output_quantized_idxs":
                config.set_output_quantized_indexes(value)
            elif key == "preserved_attributes":
                config.set_preserved_attributes(value)
            else:
                _octet.fail("invalid_argument", f"prepare_custom_config: unknown key '{key}'")
        return config


class ConvertCustomConfig:
    """torch.ao.quantization.fx.custom_config.ConvertCustomConfig."""

    def __init__(self) -> None:
        self._config = _octet._CustomConfig()

    def set_observed_to_quantized_mapping(self, observed_class: type[Module], quantized_class: type[Module],
                                          quant_type: str = "static") -> ConvertCustomConfig:
        custom = self._config.custom
        custom.setdefault(quant_type, {})[_type_name(observed_class)] = quantized_class
        self._config.custom = custom
        return self

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ConvertCustomConfig:
        config = cls()
        for key, value in values.items():
            if key != "observed_to_quantized_custom_module_class":
                _octet.fail("invalid_argument", f"convert_custom_config: unknown key '{key}'")
            for mode, classes in value.items():
                for observed, quantized in classes.items():
                    config.set_observed_to_quantized_mapping(observed, quantized, mode)
        return config


def _mapping(given: Any) -> QConfigMapping:
    """A QConfigMapping as it is, one QConfig for all, or PyTorch's older dictionary."""
    if isinstance(given, QConfigMapping):
        return given
    if given is None or isinstance(given, _octet.QConfig):
        return QConfigMapping().set_global(given)
    mapping = QConfigMapping()
    for key, value in given.items():
        if key == "":
            mapping.set_global(value)
        elif key == "object_type":
            for type_, qconfig in value:
                mapping.set_object_type(type_, qconfig)
        elif key == "module_name_regex":
            for regex, qconfig in value:
                mapping.set_module_name_regex(regex, qconfig)
        elif key == "module_name":
            for name, qconfig in value:
                mapping.set_module_name(name, qconfig)
        elif key == "module_name_object_type_order":
            for name, type_, index, qconfig in value:
                mapping.set_module_name_object_type_order(name, type_, index, qconfig)
        else:
            _octet.fail("invalid_argument", f"qconfig_dict: unknown key '{key}'")
    return mapping


def _prepare_config(config: Any, older: Mapping[str, Any] | None) -> Any:
    given = config if config is not None else older
    if given is None:
        return _octet._CustomConfig()
    return (given if isinstance(given, PrepareCustomConfig) else PrepareCustomConfig.from_dict(given))._config


def _convert_config(config: Any, older: Mapping[str, Any] | None) -> Any:
    given = config if config is not None else older
    if given is None:
        return _octet._CustomConfig()
    return (given if isinstance(given, ConvertCustomConfig) else ConvertCustomConfig.from_dict(given))._config


class DeferredGraphModule(Module):
    """A model that prepare_fx was given without example inputs: it is traced when it is first called."""

    def __init__(self, model: Module, mapping: QConfigMapping, custom: Any, backend: Any) -> None:
        super().__init__()
        self.model = model.clone()
        self._mapping, self._custom, self._backend = mapping, custom, backend
        self._convert: Any = None
        self._state: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        _octet.fail("unsupported", "a model that is not traced yet cannot be copied: call it first, or give "
                                   "prepare_fx example_inputs")

    def _made(self, inputs: Sequence[Any]) -> Module:
        if self._m.child("made") is None:
            made = _octet._prepare_fx(self.model, self._mapping, example_tensors(self.model, tuple(inputs)), self._custom,
                                     self._backend)
            if self._convert is not None:
                custom, strict, backend = self._convert
                made = _octet._convert_fx(made._m, custom, self._state is not None, strict, None, backend)
                if self._state is not None:
                    made.load_state_dict(self._state)
            self.made = made
        return self.made  # type: ignore[no-any-return]

    def forward(self, *inputs: Any) -> Any:
        return self._made(inputs)(*inputs)

    def state_dict(self) -> Any:
        if self._m.child("made") is None:
            _octet.fail("unsupported", "a model that is not traced yet has no state_dict: call it first, or give "
                                       "prepare_fx example_inputs")
        return self.made.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._m.child("made") is not None:
            self.made.load_state_dict(state_dict)
        else:
            self._state = dict(state_dict)


def _prepare(qat: bool, model: Any, mapping: Any, example_inputs: Any, custom: Any, skip: Sequence[str],
             backend: Any) -> Any:
    who = "prepare_qat_fx" if qat else "prepare_fx"
    if isinstance(model, Graph):
        default: Any = _octet.get_default_qat_qconfig_mapping if qat else _octet.get_default_qconfig_mapping
        on_graph: Any = _octet._prepare_qat_graph if qat else _octet._prepare_graph
        return on_graph(model, default() if mapping is None else _mapping(mapping), list(skip), backend)
    if not isinstance(model, Module):
        raise TypeError(f"{who}: a model of modules or a Graph is needed; this is a {type(model).__name__}")
    if skip:
        _octet.fail("unsupported", f"{who}: skip is for graphs; of modules, set_module_name(path, None) leaves one float")
    if example_inputs is None:
        if qat:
            _octet.fail("invalid_argument", "prepare_qat_fx: give example_inputs, from which the model is traced")
        return DeferredGraphModule(model, _mapping(mapping), custom, backend)
    inputs = example_tensors(model, example_inputs)
    fn: Any = _octet._prepare_qat_fx if qat else _octet._prepare_fx
    return fn(model, _mapping(mapping), inputs, custom, backend)


def prepare_fx(model: Graph | Module, qconfig_mapping: Any = None, example_inputs: Any = None,
               prepare_custom_config: PrepareCustomConfig | Mapping[str, Any] | None = None, *,
               prepare_custom_config_dict: Mapping[str, Any] | None = None, skip: Sequence[str] = (),
               backend_config: _octet.BackendConfig | None = None) -> Any:
    """Observers in the traced model, or in a graph. `example_inputs`, a tuple, say what types the model takes;
    without them it is traced at its first call. `qconfig_mapping`: a QConfigMapping, a QConfig for all, or PyTorch's
    dictionary. `skip`: layers of a graph that stay float."""
    if isinstance(model, Graph) and isinstance(example_inputs, (list, tuple)) and not skip \
            and all(isinstance(name, str) for name in example_inputs):
        skip, example_inputs = example_inputs, None
    return _prepare(False, model, qconfig_mapping, example_inputs,
                    _prepare_config(prepare_custom_config, prepare_custom_config_dict), skip, backend_config)


def prepare_qat_fx(model: Graph | Module, qconfig_mapping: Any = None, example_inputs: Any = None,
                   prepare_custom_config: PrepareCustomConfig | Mapping[str, Any] | None = None, *,
                   prepare_custom_config_dict: Mapping[str, Any] | None = None, skip: Sequence[str] = (),
                   backend_config: _octet.BackendConfig | None = None) -> Any:
    """Fake quantization in the traced model, which must be in training mode."""
    return _prepare(True, model, qconfig_mapping, example_inputs,
                    _prepare_config(prepare_custom_config, prepare_custom_config_dict), skip, backend_config)


def fuse_fx(model: Module, example_inputs: Any) -> Any:
    """The traced model with conv, batch norm and relu fused."""
    inputs = example_tensors(model, example_inputs)
    return _octet._fuse_fx(model, inputs)


def convert_fx(prepared: Any, convert_custom_config: ConvertCustomConfig | Mapping[str, Any] | None = None, *,
               convert_custom_config_dict: Mapping[str, Any] | None = None, for_loading: bool = False,
               strict: bool = False, report: ConversionReport | None = None,
               backend_config: _octet.BackendConfig | None = None) -> Any:
    """Quantized modules and operators. Of a model of modules a GraphModule, of a graph a Graph."""
    custom = _convert_config(convert_custom_config, convert_custom_config_dict)
    if isinstance(prepared, DeferredGraphModule):
        if prepared._m.child("made") is None:
            converted = DeferredGraphModule(prepared.model, prepared._mapping, prepared._custom, prepared._backend)
            converted._convert = (custom, strict, backend_config)
            return converted
        prepared = prepared.made
    made = _octet._convert_fx(prepared._m, custom, for_loading, strict, None if report is None else report._set,
                              backend_config)
    return made.to_graph() if _octet._is_of_operators(prepared._m) else made


def convert_to_reference_fx(prepared: Any, convert_custom_config: ConvertCustomConfig | Mapping[str, Any] | None = None,
                            *, convert_custom_config_dict: Mapping[str, Any] | None = None,
                            backend_config: _octet.BackendConfig | None = None) -> Any:
    """The same with quantize and dequantize around float layers, for backends that lower it themselves."""
    custom = _convert_config(convert_custom_config, convert_custom_config_dict)
    made = _octet._convert_to_reference_fx(prepared._m, custom, False, False, None, backend_config)
    return made.to_graph() if _octet._is_of_operators(prepared._m) else made
