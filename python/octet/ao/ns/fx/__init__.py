"""torch.ao.ns.fx' namesake."""
from . import utils as utils
