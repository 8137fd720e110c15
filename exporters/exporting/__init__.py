"""The way of a policy to a bundle in four stages, and the repair of one that is in another precision."""

from exporters.exporting.stages import PACKAGES, export

__all__ = ["PACKAGES", "export"]
