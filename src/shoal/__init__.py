"""Shoal: inference by machines that do not have to trust each other.

Importing this package imports nothing heavy: no numpy, no torch, no web framework. Take what you need
from the floor it lives on (`shoal.core`, `shoal.models`, `shoal.engine`, ...).
"""

__version__ = "0.1.0"
