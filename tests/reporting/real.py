"""Figures of real runs: SmolLM2-135M-Instruct at 2 bits, and files of several sizes with KL."""

from __future__ import annotations

# KL of each of 16 windows of WikiText-2 test, in nats a token, and their mean with its interval.
WINDOW_KLS = [
    0.5295, 0.6301, 0.6116, 0.5909, 0.6648, 0.6299, 0.5771, 0.6527,
    0.5937, 0.6263, 0.6947, 0.5756, 0.5157, 0.5047, 0.6073, 0.5687,
]  # fmt: skip
MEAN_KL = {"mean": 0.5983346, "low": 0.5716768, "high": 0.6226104}
PERPLEXITIES = {"Original": (19.8655, 16.446, 23.6314), "Light": (36.4049, 29.4279, 44.4964)}
# Weighted error of two layers of every block, and the KL of the block when only it is compressed.
DOWN_PROJ = [
    0.01121, 0.01705, 0.003382, 0.05227, 0.04926, 0.04805, 0.04733, 0.04343, 0.03518, 0.01898,
    0.02439, 0.000373, 0.04356, 0.03959, 0.03891, 0.03496, 0.04, 0.0416, 0.03224, 0.0371,
    0.03369, 0.03928, 0.03445, 0.03104, 0.03791, 0.04425, 0.0423, 0.02985, 0.001681, 0.00344,
]  # fmt: skip
UP_PROJ = [
    0.0604, 0.04987, 0.04808, 0.05346, 0.05465, 0.05524, 0.05206, 0.05016, 0.04663, 0.04486,
    0.04218, 0.04371, 0.04164, 0.04169, 0.03851, 0.03309, 0.03665, 0.03721, 0.0388, 0.03441,
    0.03507, 0.03533, 0.03392, 0.03688, 0.03901, 0.04078, 0.03836, 0.0344, 0.03084, 0.01596,
]  # fmt: skip
BLOCK_KLS = [
    0.04849, 0.02967, 0.02335, 0.0238, 0.02004, 0.01787, 0.01997, 0.01509, 0.01701, 0.01477,
    0.01343, 0.01796, 0.01358, 0.01136, 0.01146, 0.01157, 0.01123, 0.01397, 0.01349, 0.01644,
    0.0194, 0.01136, 0.01546, 0.02341, 0.02441, 0.01493, 0.01525, 0.0158, 0.01547, 0.03613,
]  # fmt: skip
SECONDS = {"curvature": 652.56, "gate": 74.59, "layers": 40.62, "assemble": 3.2, "evaluate": 105.24}
# Bytes of the weight files by kind.
FILE = {"codes": 26_542_080, "scales": 311_040, "embedding and head": 28_409_856}
PUBLISHED_BYTES = 269_030_016
# (bytes, KL) of files, ours and those of llama.cpp.
OURS = {"2 bits": (42.1e6, 0.758), "3 bits": (68.8e6, 0.164), "int4": (75.0e6, 0.0875)}
THEIRS = {"Q4_0": (75.8e6, 0.359), "Q2_K": (69.6e6, 1.85), "Q2_0": (60.1e6, 12.2)}
