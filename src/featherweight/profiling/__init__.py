"""How fast a model runs and what it asks of the machine: tokens a second, bytes a token, the
memory's bandwidth, and llama.cpp as a rival.
"""

from .bandwidth import Bandwidth, measure_bandwidth
from .speed import Speed, measure_speed
from .traffic import bytes_per_token

__all__ = ["Bandwidth", "Speed", "bytes_per_token", "measure_bandwidth", "measure_speed"]
