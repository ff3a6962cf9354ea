"""octet.quantization under its newer name in PyTorch."""
from ..quantization import *  # noqa: F401,F403
from ..quantization import quantize_fx  # noqa: F401
