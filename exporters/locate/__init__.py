"""Where a bundle and its reference part: every value of the graphs beside PyTorch's, in one pass."""

from exporters.locate.reproduction import write_reproduction
from exporters.locate.search import Search, locate

__all__ = ["Search", "locate", "write_reproduction"]
