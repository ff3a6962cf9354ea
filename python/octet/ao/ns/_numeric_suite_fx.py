"""A quantized model beside the float one, in graph mode (torch.ao.ns._numeric_suite_fx). Models are what trace, prepare_fx
and convert_fx give, or Graphs. Results are PyTorch's: results[layer][type][model] is a list of dictionaries, with the type
"weight", "node_output" or "node_input" and the tensors in "values".

    weights = extract_weights("fp32", prepared, "int8", quantized)
    extend_logger_results_with_comparison(weights, "fp32", "int8", octet.metrics.compute_sqnr, "sqnr")
    print(weights["conv"]["weight"]["int8"][0]["sqnr"])
"""
from __future__ import annotations

from typing import Any, Callable, Iterable

from ... import _octet
from ..._octet import BackendConfig, Graph, QConfigMultiMapping as QConfigMultiMapping, Tensor
from ...nn._graph import GraphModule
from ...nn._module import Module, example_tensors

NSResultsType = dict[str, dict[str, dict[str, list[dict[str, Any]]]]]
Model = GraphModule | Graph


class OutputLogger:
    """The class of loggers: it keeps every tensor that passes."""


def _only_output_loggers(logger_cls: Any) -> None:
    if logger_cls is not OutputLogger:
        _octet.fail("unsupported", f"loggers of the class {getattr(logger_cls, '__name__', logger_cls)} cannot be put into "
                                   "graphs from Python; expected OutputLogger")


def extract_weights(model_name_a: str, model_a: Model, model_name_b: str, model_b: Model) -> NSResultsType:
    """The weights of matching layers: float32 or quantized tensors. Layers are named after model b."""
    return _octet._extract_weights(model_name_a, model_a, model_name_b, model_b)


def add_loggers(name_a: str, model_a: Model, name_b: str, model_b: Model, logger_cls: Any = OutputLogger,
                should_log_inputs: bool = False) -> tuple[Any, Any]:
    """Both models with loggers at the results of matching layers, and at their operands if asked to."""
    _only_output_loggers(logger_cls)
    return _octet._add_loggers(name_a, model_a, name_b, model_b, should_log_inputs)


def extract_logger_info(model_a: Module, model_b: Module, logger_cls: Any, model_name_to_use_for_layer_names: str) -> NSResultsType:
    """What all loggers of both models kept. Layers are named after the model of that name."""
    _only_output_loggers(logger_cls)
    return _octet._extract_logger_info(model_a, model_b, model_name_to_use_for_layer_names)


def add_shadow_loggers(name_a: str, model_a: Model, name_b: str, model_b: Model, logger_cls: Any = OutputLogger,
                       should_log_inputs: bool = False) -> Any:
    """Model b with the layers of a beside its own, each on b's operands, and loggers at both results."""
    _only_output_loggers(logger_cls)
    return _octet._add_shadow_loggers(name_a, model_a, name_b, model_b, should_log_inputs)


def extract_shadow_logger_info(model_a_shadows_b: Module, logger_cls: Any, model_name_to_use_for_layer_names: str) -> NSResultsType:
    _only_output_loggers(logger_cls)
    return _octet._extract_shadow_logger_info(model_a_shadows_b, model_name_to_use_for_layer_names)


def extend_logger_results_with_comparison(results: NSResultsType, model_name_1: str, model_name_2: str,
                                          comparison_fn: Callable[[Tensor, Tensor], float], comparison_name: str) -> None:
    """Adds comparison_fn(value of model 1, value of model 2) of every value to model 2's results, under that name."""
    _octet._compare_results(results, model_name_1, model_name_2, comparison_fn, comparison_name)


def split_layer_errors(float_model: Model, quantized: Model, samples: Iterable[Any]) -> dict[str, dict[str, float]]:
    """By layer of `quantized`: own_sqnr, of the layer on the float model's values, and total_sqnr, of the layer within the
    quantized model; in dB, over all samples."""
    return _octet._split_layer_errors(float_model, quantized, samples)


# -- several qconfigs of each layer ----------------------------------------------------------------

def prepare_n_shadows_model(model: Module, example_inputs: Any, qconfig_multi_mapping: QConfigMultiMapping,
                            backend_config: BackendConfig | None = None) -> Any:
    """The model with every layer beside itself once with each of its qconfigs, prepared. Its results are the model's."""
    return _octet._prepare_n_shadows_model(model, example_tensors(model, example_inputs), qconfig_multi_mapping,
                                           backend_config)


def convert_n_shadows_model(model: Module) -> Any:
    """Converts the shadows, in place, after the model was run on samples."""
    _octet._convert_n_shadows_model(model)
    return model


def loggers_set_enabled(model: Module, enabled: bool) -> None:
    _octet._loggers_set_enabled(model, enabled)


def loggers_set_save_activations(model: Module, save_activations: bool) -> None:
    """Whether loggers keep the tensors too, and not the comparisons alone."""
    _octet._loggers_set_save_activations(model, save_activations)


def extract_results_n_shadows_model(model: Module) -> NSResultsType:
    """results["model"]["node_output"]["subgraph_L_Q"]: of layer L with its qconfig Q, from 1; 0 is the float layer."""
    return _octet._extract_results_n_shadows_model(model)


def print_comparisons_n_shadows_model(results: NSResultsType) -> None:
    """A table: a row for each layer, a column with the mean SQNR (dB) for each of its qconfigs."""
    print(_octet._comparisons_text(results), end="")
