"""llama.cpp as the judge of GGUF files: a current build of it, from the package xllamacpp.

    pip install xllamacpp        # not among the test requirements: 34 MB, 106 MB installed

Tests that need it are skipped without it. The server inside the package answers requests; asking
for one more token with the probabilities of the whole vocabulary gives the logits of one position.
"""

from __future__ import annotations

import ctypes
import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest


class LlamaServer:
    """One model in llama.cpp, with room for `context` tokens.

    Skips the test without the package.
    """

    def __init__(self, path: Path, context: int = 64) -> None:
        xllamacpp = pytest.importorskip("xllamacpp")
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = params.n_batch = params.n_ubatch = context
        params.n_parallel = 1
        params.warmup = params.fit_params = False
        # A cache that is cut to the window keeps positions of the previous text, and the logits
        # are wrong.
        params.swa_full = True
        params.verbosity = 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
        self._server = xllamacpp.Server(params)

    def log_probabilities(self, ids: Sequence[int], vocab_size: int) -> np.ndarray:
        """(positions, vocabulary) logs of the probabilities of the token after each of `ids`."""
        rows = np.full((len(ids), vocab_size), -np.inf)
        # A token that ends the answer or is half a character comes without probabilities, so the
        # answer is made to be a letter. The probabilities are those before this bias.
        letter = self.tokens("a")[-1]
        for position in range(len(ids)):
            request = {
                "prompt": list(ids[: position + 1]),
                "n_predict": 1,
                "n_probs": vocab_size,
                "temperature": 0.0,
                "logit_bias": [[letter, 1e6]],
                "cache_prompt": True,
            }
            answer: Any = self._server.handle_completions(request)
            answer = json.loads(answer) if isinstance(answer, str) else answer
            for entry in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
                rows[position, entry["id"]] = entry["logprob"]
        # The server sums the probabilities in float32.
        normalised: np.ndarray = rows - np.log(np.exp(rows).sum(-1, keepdims=True))
        return normalised

    def tokens(self, text: str, add_special: bool = False) -> list[int]:
        """The ids of `text`, special tokens in it recognised."""
        body = {"content": text, "add_special": add_special, "parse_special": True}
        request = urllib.request.Request(
            f"{self._server.listening_address}/tokenize",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            return list(json.load(answer)["tokens"])


def dequantize(name: str, blocks: np.ndarray, num_weights: int) -> np.ndarray:
    """The numbers that llama.cpp's own decoder of the type `name` gives for `blocks`.

    Skips the test without the package, or when this build of it does not export the decoder.
    """
    xllamacpp = pytest.importorskip("xllamacpp")
    library = ctypes.CDLL(next(map(str, Path(xllamacpp.__file__).parent.glob("xllamacpp*.so"))))
    suffix = name.lower().removesuffix("_k") + ("_K" if name.endswith("_K") else "")
    decode = getattr(library, f"dequantize_row_{suffix}", None)
    if decode is None:
        pytest.skip(f"this build of llama.cpp exports no decoder of {name}")
    decode.argtypes, decode.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64], None
    blocks, numbers = np.ascontiguousarray(blocks), np.empty(num_weights, np.float32)
    decode(blocks.ctypes.data, numbers.ctypes.data, num_weights)
    return numbers
