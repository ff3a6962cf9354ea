"""torch.ao.ns' namesake."""
from . import _numeric_suite as _numeric_suite
