"""octet's layers under PyTorch's names and with its arguments. They are modules of C++ (octet/nn/*.h)."""
from __future__ import annotations

from typing import Any, Sequence, Union

from .._octet import Tensor, fail
from ._module import Module, _recurrent_results, layer

Size = Union[int, Sequence[int]]


def _sizes(n: int, *names: str) -> Any:
    """A configuration in which these arguments are n numbers."""
    def config(given: dict[str, Any]) -> dict[str, Any]:
        given.pop("inplace", None)
        for name in names:
            if isinstance(given.get(name), int):
                given[name] = [given[name]] * n
            elif given.get(name) is not None and not isinstance(given[name], str):
                given[name] = [-1 if s is None else s for s in given[name]]
        return given
    return config


def _without(*names: str) -> Any:
    def config(given: dict[str, Any]) -> dict[str, Any]:
        for name in names:
            given.pop(name, None)
        return given
    return config


@layer("octet::nn::Identity", lambda given: {})
class Identity(Module):
    """Returns its input."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


@layer("octet::nn::Linear")
class Linear(Module):
    """y = x weight^T + bias over the last dimension."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None: ...


@layer("octet::nn::Bilinear")
class Bilinear(Module):
    def __init__(self, in1_features: int, in2_features: int, out_features: int, bias: bool = True) -> None: ...


# -- convolutions ----------------------------------------------------------------------------------

_conv = ("kernel_size", "stride", "padding", "dilation", "output_padding")


def _conv_config(n: int) -> Any:
    sizes = _sizes(n, *_conv)

    def config(given: dict[str, Any]) -> dict[str, Any]:
        given.setdefault("output_padding", 0)
        if given.get("padding_mode") == "zeros":
            del given["padding_mode"]
        return sizes(given)  # type: ignore[no-any-return]
    return config


@layer("octet::nn::Conv1d", _conv_config(1))
class Conv1d(Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1,
                 padding: Size | str = 0, dilation: Size = 1, groups: int = 1, bias: bool = True,
                 padding_mode: str = "zeros") -> None: ...


@layer("octet::nn::Conv2d", _conv_config(2))
class Conv2d(Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1,
                 padding: Size | str = 0, dilation: Size = 1, groups: int = 1, bias: bool = True,
                 padding_mode: str = "zeros") -> None: ...


@layer("octet::nn::Conv3d", _conv_config(3))
class Conv3d(Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1,
                 padding: Size | str = 0, dilation: Size = 1, groups: int = 1, bias: bool = True,
                 padding_mode: str = "zeros") -> None: ...


@layer("octet::nn::ConvTranspose1d", _conv_config(1))
class ConvTranspose1d(Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1,
                 padding: Size = 0, output_padding: Size = 0, groups: int = 1, bias: bool = True,
                 dilation: Size = 1) -> None: ...


@layer("octet::nn::ConvTranspose2d", _conv_config(2))
class ConvTranspose2d(Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1,
                 padding: Size = 0, output_padding: Size = 0, groups: int = 1, bias: bool = True,
                 dilation: Size = 1) -> None: ...


@layer("octet::nn::ConvTranspose3d", _conv_config(3))
class ConvTranspose3d(Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1,
                 padding: Size = 0, output_padding: Size = 0, groups: int = 1, bias: bool = True,
                 dilation: Size = 1) -> None: ...


# -- activations -----------------------------------------------------------------------------------

@layer("octet::nn::ReLU", _without("inplace"))
class ReLU(Module):
    def __init__(self, inplace: bool = False) -> None: ...


@layer("octet::nn::ReLU6", _without("inplace"))
class ReLU6(Module):
    def __init__(self, inplace: bool = False) -> None: ...


@layer("octet::nn::Sigmoid")
class Sigmoid(Module):
    def __init__(self) -> None: ...


@layer("octet::nn::Tanh")
class Tanh(Module):
    def __init__(self) -> None: ...


@layer("octet::nn::Hardsigmoid", _without("inplace"))
class Hardsigmoid(Module):
    def __init__(self, inplace: bool = False) -> None: ...


@layer("octet::nn::Hardswish", _without("inplace"))
class Hardswish(Module):
    def __init__(self, inplace: bool = False) -> None: ...


@layer("octet::nn::LeakyReLU", _without("inplace"))
class LeakyReLU(Module):
    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None: ...


@layer("octet::nn::ELU", _without("inplace"))
class ELU(Module):
    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None: ...


@layer("octet::nn::CELU", _without("inplace"))
class CELU(Module):
    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None: ...


@layer("octet::nn::SELU", _without("inplace"))
class SELU(Module):
    def __init__(self, inplace: bool = False) -> None: ...


@layer("octet::nn::GELU")
class GELU(Module):
    def __init__(self, approximate: str = "none") -> None: ...


@layer("octet::nn::Hardtanh", lambda given: {"min": given["min_val"], "max": given["max_val"]})
class Hardtanh(Module):
    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None: ...


@layer("octet::nn::Softmax")
class Softmax(Module):
    def __init__(self, dim: int = -1) -> None: ...


@layer("octet::nn::LogSoftmax")
class LogSoftmax(Module):
    def __init__(self, dim: int = -1) -> None: ...


@layer("octet::nn::Softplus")
class Softplus(Module):
    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None: ...


@layer("octet::nn::Softsign")
class Softsign(Module):
    def __init__(self) -> None: ...


@layer("octet::nn::Mish", _without("inplace"))
class Mish(Module):
    def __init__(self, inplace: bool = False) -> None: ...


@layer("octet::nn::SiLU", _without("inplace"))
class SiLU(Module):
    def __init__(self, inplace: bool = False) -> None: ...


def _prelu(given: dict[str, Any]) -> dict[str, Any]:
    return {"num_parameters": given["num_parameters"]}


@layer("octet::nn::PReLU", _prelu)
class PReLU(Module):
    """Slopes for the negative side, 0.25 at first."""

    def __init__(self, num_parameters: int = 1) -> None: ...


# -- pools -----------------------------------------------------------------------------------------

def _pool_config(n: int) -> Any:
    sizes = _sizes(n, "kernel", "stride", "padding", "dilation")

    def config(given: dict[str, Any]) -> dict[str, Any]:
        given = dict(given)
        given["kernel"] = given.pop("kernel_size")
        if given["stride"] is None:
            given["stride"] = given["kernel"]
        given = sizes(given)
        given["padding"] = [*given["padding"], *given["padding"]]
        if "count_include_pad" in given:
            given["divisor_override"] = given.get("divisor_override") or 0
        return given
    return config


@layer("octet::nn::MaxPool1d", _pool_config(1))
class MaxPool1d(Module):
    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
                 ceil_mode: bool = False) -> None: ...


@layer("octet::nn::MaxPool2d", _pool_config(2))
class MaxPool2d(Module):
    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
                 ceil_mode: bool = False) -> None: ...


@layer("octet::nn::MaxPool3d", _pool_config(3))
class MaxPool3d(Module):
    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
                 ceil_mode: bool = False) -> None: ...


@layer("octet::nn::AvgPool1d", _pool_config(1))
class AvgPool1d(Module):
    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True) -> None: ...


@layer("octet::nn::AvgPool2d", _pool_config(2))
class AvgPool2d(Module):
    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True, divisor_override: int | None = None) -> None: ...


@layer("octet::nn::AvgPool3d", _pool_config(3))
class AvgPool3d(Module):
    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True, divisor_override: int | None = None) -> None: ...


OutputSize = Union[int, Sequence[Union[int, None]], None]


@layer("octet::nn::AdaptiveAvgPool1d", _sizes(1, "output_size"))
class AdaptiveAvgPool1d(Module):
    def __init__(self, output_size: OutputSize) -> None: ...


@layer("octet::nn::AdaptiveAvgPool2d", _sizes(2, "output_size"))
class AdaptiveAvgPool2d(Module):
    def __init__(self, output_size: OutputSize) -> None: ...


@layer("octet::nn::AdaptiveAvgPool3d", _sizes(3, "output_size"))
class AdaptiveAvgPool3d(Module):
    def __init__(self, output_size: OutputSize) -> None: ...


@layer("octet::nn::AdaptiveMaxPool1d", _sizes(1, "output_size"))
class AdaptiveMaxPool1d(Module):
    def __init__(self, output_size: OutputSize) -> None: ...


@layer("octet::nn::AdaptiveMaxPool2d", _sizes(2, "output_size"))
class AdaptiveMaxPool2d(Module):
    def __init__(self, output_size: OutputSize) -> None: ...


@layer("octet::nn::AdaptiveMaxPool3d", _sizes(3, "output_size"))
class AdaptiveMaxPool3d(Module):
    def __init__(self, output_size: OutputSize) -> None: ...


# -- normalizations --------------------------------------------------------------------------------

@layer("octet::nn::BatchNorm1d")
class BatchNorm1d(Module):
    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True,
                 track_running_stats: bool = True) -> None: ...


@layer("octet::nn::BatchNorm2d")
class BatchNorm2d(Module):
    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True,
                 track_running_stats: bool = True) -> None: ...


@layer("octet::nn::BatchNorm3d")
class BatchNorm3d(Module):
    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True,
                 track_running_stats: bool = True) -> None: ...


@layer("octet::nn::InstanceNorm1d")
class InstanceNorm1d(Module):
    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
                 track_running_stats: bool = False) -> None: ...


@layer("octet::nn::InstanceNorm2d")
class InstanceNorm2d(Module):
    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
                 track_running_stats: bool = False) -> None: ...


@layer("octet::nn::InstanceNorm3d")
class InstanceNorm3d(Module):
    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
                 track_running_stats: bool = False) -> None: ...


@layer("octet::nn::LayerNorm", _sizes(1, "normalized_shape"))
class LayerNorm(Module):
    def __init__(self, normalized_shape: Size, eps: float = 1e-5, elementwise_affine: bool = True) -> None: ...


@layer("octet::nn::GroupNorm")
class GroupNorm(Module):
    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None: ...


# -- shapes and others -----------------------------------------------------------------------------

@layer("octet::nn::Flatten")
class Flatten(Module):
    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None: ...


@layer("octet::nn::Unflatten")
class Unflatten(Module):
    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None: ...


@layer("octet::nn::PixelShuffle")
class PixelShuffle(Module):
    def __init__(self, upscale_factor: int) -> None: ...


@layer("octet::nn::PixelUnshuffle")
class PixelUnshuffle(Module):
    def __init__(self, downscale_factor: int) -> None: ...


@layer("octet::nn::ChannelShuffle")
class ChannelShuffle(Module):
    def __init__(self, groups: int) -> None: ...


def _upsample(given: dict[str, Any]) -> dict[str, Any]:
    size, scale = given["size"], given["scale_factor"]
    return {"size": [size] if isinstance(size, int) else list(size or []),
            "scale_factor": [float(scale)] if isinstance(scale, (int, float)) else [float(s) for s in scale or []],
            "mode": given["mode"], "align_corners": bool(given["align_corners"])}


@layer("octet::nn::Upsample", _upsample)
class Upsample(Module):
    def __init__(self, size: Size | None = None, scale_factor: float | Sequence[float] | None = None,
                 mode: str = "nearest", align_corners: bool | None = None) -> None: ...


@layer("octet::nn::Dropout", _without("inplace"))
class Dropout(Module):
    def __init__(self, p: float = 0.5, inplace: bool = False) -> None: ...


@layer("octet::nn::Dropout1d", _without("inplace"))
class Dropout1d(Module):
    def __init__(self, p: float = 0.5, inplace: bool = False) -> None: ...


@layer("octet::nn::Dropout2d", _without("inplace"))
class Dropout2d(Module):
    def __init__(self, p: float = 0.5, inplace: bool = False) -> None: ...


@layer("octet::nn::Dropout3d", _without("inplace"))
class Dropout3d(Module):
    def __init__(self, p: float = 0.5, inplace: bool = False) -> None: ...


def _padding_idx(given: dict[str, Any]) -> dict[str, Any]:
    row, rows = given["padding_idx"], given["num_embeddings"]
    if row is not None and not -rows <= row < rows:
        fail("invalid_argument", f"padding_idx={row} of an embedding of {rows} rows")
    return {**given, "padding_idx": -1 if row is None else row % rows}


@layer("octet::nn::Embedding", _padding_idx)
class Embedding(Module):
    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None) -> None: ...


@layer("octet::nn::EmbeddingBag", _padding_idx)
class EmbeddingBag(Module):
    def __init__(self, num_embeddings: int, embedding_dim: int, *, mode: str = "mean",
                 include_last_offset: bool = False, padding_idx: int | None = None) -> None: ...


# -- recurrent networks and attention --------------------------------------------------------------

class _Recurrent(Module):
    """Takes x, and the first state if there is one; gives y and the last state, an LSTM's as (h, c)."""

    def _results(self, results: list[Tensor]) -> Any:
        return _recurrent_results(results)


def _recurrent(given: dict[str, Any]) -> dict[str, Any]:
    return {"proj_size": 0, "nonlinearity": "tanh", **given}


@layer("octet::nn::LSTM", _recurrent)
class LSTM(_Recurrent):
    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
                 proj_size: int = 0) -> None: ...


@layer("octet::nn::GRU", _recurrent)
class GRU(_Recurrent):
    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False) -> None: ...


@layer("octet::nn::RNN", _recurrent)
class RNN(_Recurrent):
    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh",
                 bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
                 bidirectional: bool = False) -> None: ...


@layer("octet::nn::LSTMCell")
class LSTMCell(Module):
    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None: ...


@layer("octet::nn::GRUCell")
class GRUCell(Module):
    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None: ...


@layer("octet::nn::RNNCell")
class RNNCell(Module):
    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh") -> None: ...


def _attention(given: dict[str, Any]) -> dict[str, Any]:
    given["kdim"], given["vdim"] = given["kdim"] or 0, given["vdim"] or 0
    return {"need_weights": True, "average_attn_weights": True, **given}


@layer("octet::nn::MultiheadAttention", _attention)
class MultiheadAttention(Module):
    """Called with query, key and value; gives the result and the attention weights, averaged over the heads."""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
                 add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
                 vdim: int | None = None, batch_first: bool = False) -> None: ...


# -- losses ----------------------------------------------------------------------------------------

class _Loss(Module):
    """Called with the model's result and the target."""


def _weighted(given: dict[str, Any]) -> dict[str, Any]:
    # Weights are tensors of the state; the configuration has their shapes.
    return {name: [-1] if value is None else value for name, value in given.items()}


@layer("octet::nn::CrossEntropyLoss", _weighted)
class CrossEntropyLoss(_Loss):
    def __init__(self, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean",
                 label_smoothing: float = 0.0) -> None: ...


@layer("octet::nn::NLLLoss", _weighted)
class NLLLoss(_Loss):
    def __init__(self, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean") -> None: ...


@layer("octet::nn::BCEWithLogitsLoss", _weighted)
class BCEWithLogitsLoss(_Loss):
    def __init__(self, weight: Tensor | None = None, reduction: str = "mean",
                 pos_weight: Tensor | None = None) -> None: ...


@layer("octet::nn::MSELoss")
class MSELoss(_Loss):
    def __init__(self, reduction: str = "mean") -> None: ...


@layer("octet::nn::L1Loss")
class L1Loss(_Loss):
    def __init__(self, reduction: str = "mean") -> None: ...


@layer("octet::nn::SmoothL1Loss")
class SmoothL1Loss(_Loss):
    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None: ...


@layer("octet::nn::HuberLoss")
class HuberLoss(_Loss):
    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None: ...


@layer("octet::nn::KLDivLoss")
class KLDivLoss(_Loss):
    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None: ...
