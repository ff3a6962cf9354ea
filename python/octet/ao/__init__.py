"""torch.ao's namesake: octet.ao.quantization is octet.quantization."""
from . import ns as ns, quantization as quantization
