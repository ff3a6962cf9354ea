"""Operators as functions under PyTorch's names (torch.nn.functional); functional.pyi has their arguments."""
from .. import _octet

globals().update((name, fn) for name, fn in vars(_octet._functional).items() if not name.startswith("_"))
