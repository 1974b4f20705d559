"""The importance matrix of llama.cpp, from the text that featherweight calibrates on.

llama-quantize weighs the error of a weight by the mean square of the input it is multiplied with.
It reads these means from a GGUF file with two tensors for each matrix: `NAME.in_sum2`, the sum of
the squared inputs of each column over all tokens, and `NAME.counts`, the number of tokens. The
program llama-imatrix collects them by running the model in llama.cpp. Here they are collected with
`models.observe`, from the same tokens as featherweight's curvature, so that both sides calibrate on
one text.

llama-imatrix leaves out a table that is both embedding and head. Here such a table gets the
importances of the head's inputs, so that llama.cpp has them for every matrix that is multiplied.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from featherweight.models import families, structure
from featherweight.models.observe import Site, observe, sites

EMBEDDING = "token_embd.weight"


def sums_of_squares(model: Any, tokens: Tensor, batch: int = 16) -> dict[str, Tensor]:
    """For each linear layer, by its name, the squares of its inputs summed over all tokens.

    tokens: (count, length). Returns float64 tensors of as many numbers as the layer has inputs.
    """
    input_sites = sites(model, "input")
    sums = {
        site.name: torch.zeros(model.get_submodule(site.name).weight.shape[1], dtype=torch.float64)
        for site in input_sites
    }

    def add(site: Site, value: Tensor, gradient: Tensor | None) -> None:
        sums[site.name] += value.double().square().flatten(0, -2).sum(0)

    for start in range(0, len(tokens), batch):
        observe(model, tokens[start : start + batch], input_sites, add)
    return sums


def write_importance(model: Any, tokens: Tensor, path: Path) -> None:
    """Write the importance matrix of `model` on `tokens` (count, length) to the GGUF at `path`."""
    names = gguf_names(model)
    count = np.array([[tokens.numel()]], np.float32)
    part = path.with_suffix(".part")
    with closing(gguf.GGUFWriter(part, "imatrix")) as writer:
        writer.add_string("general.type", "imatrix")
        writer.add_array("imatrix.datasets", ["featherweight"])
        writer.add_uint32("imatrix.chunk_count", tokens.shape[0])
        writer.add_uint32("imatrix.chunk_size", tokens.shape[1])
        for name, sums in sums_of_squares(model, tokens).items():
            writer.add_tensor(f"{names[name]}.in_sum2", sums.float().numpy()[None])
            writer.add_tensor(f"{names[name]}.counts", count)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    part.rename(path)


def gguf_names(model: Any) -> dict[str, str]:
    """GGUF's name for the weight of each linear layer; a tied head's weight is the embedding."""
    family = families.find(model.config.model_type)
    if family is None:
        raise ValueError(f"GGUF has no names for the tensors of {model.config.model_type}")
    head = structure.head(model)
    names = {}
    for site in sites(model, "input"):
        is_tied_head = site.name == head and model.config.tie_word_embeddings
        name = EMBEDDING if is_tied_head else family.gguf_tensor(f"{site.name}.weight")
        if name is None:
            raise ValueError(f"GGUF has no name for {site.name}")
        names[site.name] = name
    return names
