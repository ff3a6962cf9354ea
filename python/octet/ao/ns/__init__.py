"""torch.ao.ns' namesake."""
from . import _numeric_suite as _numeric_suite, _numeric_suite_fx as _numeric_suite_fx, fx as fx
