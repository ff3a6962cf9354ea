"""Optimizers and learning-rate schedules under PyTorch's names."""
from __future__ import annotations

from typing import Any, Iterable, Iterator, MutableMapping

from . import _octet
from ._octet import Tensor

LRScheduler = _octet._optim.LRScheduler
StepLR = _octet._optim.StepLR
MultiStepLR = _octet._optim.MultiStepLR
CosineAnnealingLR = _octet._optim.CosineAnnealingLR
LinearLR = _octet._optim.LinearLR
LambdaLR = _octet._optim.LambdaLR
OneCycleLR = _octet._optim.OneCycleLR

__all__ = ["Adam", "AdamW", "CosineAnnealingLR", "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR", "OneCycleLR",
           "Optimizer", "SGD", "StepLR", "lr_scheduler"]


class _Group(MutableMapping[str, Any]):
    """The options of a group of parameters; they can be set."""

    def __init__(self, optimizer: Optimizer, index: int) -> None:
        self._optimizer, self._index = optimizer, index

    def _options(self) -> dict[str, Any]:
        params, options = self._optimizer.groups()[self._index]
        return {"params": params, **options}

    def __getitem__(self, name: str) -> Any:
        return self._options()[name]

    def __setitem__(self, name: str, value: float) -> None:
        self._optimizer.set_option(self._index, name, value)

    def __delitem__(self, name: str) -> None:
        _octet.fail("unsupported", "options of an optimizer can be set, not taken away")

    def __iter__(self) -> Iterator[str]:
        return iter(self._options())

    def __len__(self) -> int:
        return len(self._options())


class Optimizer(_octet._optim._Optimizer):
    def __init__(self, kind: str, params: Iterable[Any], options: dict[str, Any]) -> None:
        groups = list(params)
        if groups and isinstance(groups[0], dict):
            super().__init__(kind, list(groups[0]["params"]), {**options, **groups[0]})
            for group in groups[1:]:
                self.add_param_group(list(group["params"]), group)
        else:
            super().__init__(kind, groups, options)

    @property
    def param_groups(self) -> list[_Group]:
        return [_Group(self, i) for i in range(len(self.groups()))]


class SGD(Optimizer):
    def __init__(self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0,
                 weight_decay: float = 0.0, nesterov: bool = False) -> None:
        super().__init__("SGD", params, {"lr": lr, "momentum": momentum, "dampening": dampening,
                                         "weight_decay": weight_decay, "nesterov": nesterov})


class Adam(Optimizer):
    def __init__(self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.0, amsgrad: bool = False) -> None:
        super().__init__("Adam", params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                                          "amsgrad": amsgrad})


class AdamW(Optimizer):
    def __init__(self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False) -> None:
        super().__init__("AdamW", params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                                           "amsgrad": amsgrad})


def clip_grad_norm_(parameters: Iterable[Tensor], max_norm: float, norm_type: float = 2.0) -> float:
    """Scales the gradients so that their norm is at most max_norm; what it was."""
    return _octet._clip_grad_norm(list(parameters), max_norm, norm_type)


class lr_scheduler:
    """torch.optim.lr_scheduler's names."""

    StepLR = StepLR
    MultiStepLR = MultiStepLR
    CosineAnnealingLR = CosineAnnealingLR
    LinearLR = LinearLR
    LambdaLR = LambdaLR
    OneCycleLR = OneCycleLR
