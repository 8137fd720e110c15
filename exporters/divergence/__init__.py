"""Where a bundle and its reference part: every value of the graphs beside PyTorch's, in one pass."""

from exporters.divergence.reproduction import write_reproduction
from exporters.divergence.search import Search

__all__ = ["Search", "write_reproduction"]
