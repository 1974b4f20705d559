"""Measures the speed of a model and its use of the machine: tokens per second, bytes per token, the
bandwidth of the memory, and the speed of llama.cpp for comparison.
"""

from .bandwidth import Bandwidth, measure_bandwidth
from .speed import Speed, measure_speed
from .traffic import bytes_per_token

__all__ = ["Bandwidth", "Speed", "bytes_per_token", "measure_bandwidth", "measure_speed"]
