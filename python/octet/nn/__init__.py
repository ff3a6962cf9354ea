"""Modules under PyTorch's names."""
from . import functional
from ._graph import GraphModule, ObservedGraphModule, trace
from ._module import Module, Parameter
from .containers import ModuleDict, ModuleList, Sequential
from .layers import (
    CELU, ELU, GELU, GRU, LSTM, RNN, SELU, AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d,
    AdaptiveMaxPool1d, AdaptiveMaxPool2d, AdaptiveMaxPool3d, AvgPool1d, AvgPool2d, AvgPool3d, BatchNorm1d,
    BatchNorm2d, BatchNorm3d, BCEWithLogitsLoss, Bilinear, ChannelShuffle, Conv1d, Conv2d, Conv3d, ConvTranspose1d,
    ConvTranspose2d, ConvTranspose3d, CrossEntropyLoss, Dropout, Dropout1d, Dropout2d, Dropout3d, Embedding,
    EmbeddingBag, Flatten, GroupNorm, GRUCell, Hardsigmoid, Hardswish, Hardtanh, HuberLoss, Identity, InstanceNorm1d,
    InstanceNorm2d, InstanceNorm3d, KLDivLoss, L1Loss, LayerNorm, LeakyReLU, Linear, LogSoftmax, LSTMCell, MaxPool1d,
    MaxPool2d, MaxPool3d, Mish, MSELoss, MultiheadAttention, NLLLoss, PixelShuffle, PixelUnshuffle, PReLU, ReLU,
    ReLU6, RNNCell, Sigmoid, SiLU, SmoothL1Loss, Softmax, Softplus, Softsign, Tanh, Unflatten, Upsample)

__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d", "BCEWithLogitsLoss", "BatchNorm1d", "BatchNorm2d",
    "BatchNorm3d", "Bilinear", "CELU", "ChannelShuffle", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d",
    "ConvTranspose2d", "ConvTranspose3d", "CrossEntropyLoss", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "ELU",
    "Embedding", "EmbeddingBag", "Flatten", "GELU", "GRU", "GRUCell", "GraphModule", "GroupNorm", "Hardsigmoid", "Hardswish",
    "Hardtanh", "HuberLoss", "Identity", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "KLDivLoss", "L1Loss",
    "LSTM", "LSTMCell", "LayerNorm", "LeakyReLU", "Linear", "LogSoftmax", "MSELoss", "MaxPool1d", "MaxPool2d",
    "MaxPool3d", "Mish", "Module", "ModuleDict", "ModuleList", "MultiheadAttention", "NLLLoss", "ObservedGraphModule", "PReLU", "Parameter",
    "PixelShuffle", "PixelUnshuffle", "RNN", "RNNCell", "ReLU", "ReLU6", "SELU", "Sequential", "SiLU", "Sigmoid",
    "SmoothL1Loss", "Softmax", "Softplus", "Softsign", "Tanh", "Unflatten", "Upsample", "functional", "trace"]
