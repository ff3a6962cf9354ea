"""torch.backends' namesake: the engine that computes on codes."""
from __future__ import annotations

from . import _octet


class _Quantized:
    @property
    def engine(self) -> str:
        """native (fbgemm and x86 are other names of it), onednn, xnnpack (qnnpack) or reference."""
        return _octet.get_engine()

    @engine.setter
    def engine(self, name: str) -> None:
        _octet.set_engine(name)

    @property
    def supported_engines(self) -> list[str]:
        return _octet.engines()


quantized = _Quantized()
