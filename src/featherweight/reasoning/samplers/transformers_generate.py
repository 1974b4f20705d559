"""transformers' own `generate` writes: slower than ours, there to compare with."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from ...base.errors import UsageError
from ...base.sampling import Sampling
from ...base.seeds import seed_of
from ...models.sampling import Finish, Rollouts, end_tokens
from ...models.structure import evaluation_mode
from ...models.text_rows import Ids
from .base import Sampler
from .local import check_ends


class TransformersSampler(Sampler):
    """`model.generate` at a temperature, from the full distribution. The random numbers are those
    of torch's global generator, seeded from `seed`, so texts depend on the batch they are in. The
    model's own generation settings (penalties, forced tokens) are left out: they would draw from
    another distribution than the one whose log-probabilities are reported.

    end_ids: as in `LocalSampler`.
    """

    def __init__(self, model: nn.Module, end_ids: Collection[int] | None = None) -> None:
        self.model: Any = model
        self.end_ids = check_ends(end_tokens(model) if end_ids is None else end_ids)

    def generate(
        self, prompts: Sequence[Ids], samples: int, sampling: Sampling, seed: int
    ) -> Rollouts:
        self._check(prompts, sampling)
        device = next(self.model.parameters()).device
        width = max(map(len, prompts))
        end = min(self.end_ids)
        ids = torch.full((len(prompts), width), end, device=device)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt, device=device)
            mask[row, width - len(prompt) :] = 1
        repeats = [index for index in range(len(prompts)) for _ in range(samples)]
        with (
            torch.no_grad(),
            evaluation_mode(self.model),
            _plain_settings(self.model),
            torch.random.fork_rng(),
        ):
            torch.manual_seed(seed_of("generate", seed))
            output = self.model.generate(
                ids[repeats],
                attention_mask=mask[repeats],
                do_sample=True,
                temperature=sampling.temperature,
                top_k=0,
                top_p=1.0,
                max_new_tokens=sampling.max_tokens,
                eos_token_id=list(self.end_ids),
                pad_token_id=end,
                return_dict_in_generate=True,
                output_logits=True,
            )
        logits = torch.stack(output.logits, 1)
        return self._read(output.sequences, logits, width, prompts, repeats, sampling)

    def update_weights(self, model: nn.Module) -> None:
        self.model = model

    def _check(self, prompts: Sequence[Ids], sampling: Sampling) -> None:
        s = sampling
        if s.temperature <= 0 or s.top_k or s.top_p < 1 or s.min_p or s.repetition_penalty != 1:
            raise UsageError("training samples at a temperature above 0 and truncates nothing")
        if s.stop:
            raise UsageError("this sampler knows no stop texts; use LocalSampler")
        context = getattr(self.model.config, "max_position_embeddings", None)
        for index, prompt in enumerate(prompts):
            if not len(prompt):
                raise UsageError(f"prompt {index} is empty")
            if context is not None and len(prompt) + s.max_tokens > context:
                raise UsageError(
                    f"prompt {index} has {len(prompt)} tokens, and {s.max_tokens} more do not fit "
                    f"into the model's context of {context}; lower max_tokens"
                )

    def _read(
        self,
        sequences: Tensor,
        logits: Tensor,
        width: int,
        prompts: Sequence[Ids],
        repeats: list[int],
        sampling: Sampling,
    ) -> Rollouts:
        """The texts without the padding on their left, and the logarithms of what was drawn."""
        answers = sequences[:, width:]
        is_end = torch.isin(answers, torch.tensor(list(self.end_ids), device=answers.device))
        ends_before = is_end.cumsum(1) - is_end.long()
        is_answer = ends_before == 0
        log_p = (logits.float() / sampling.temperature).log_softmax(-1)
        drawn_logprobs = log_p.gather(-1, answers[..., None])[..., 0]
        length = max(
            len(prompts[i]) + int(n) for i, n in zip(repeats, is_answer.sum(1), strict=True)
        )
        shape = (len(repeats), length)
        tokens = torch.zeros(shape, dtype=torch.int64, device=answers.device)
        mask = torch.zeros(shape, dtype=torch.bool, device=answers.device)
        logprobs = torch.zeros(shape, device=answers.device)
        for row, index in enumerate(repeats):
            start, count = len(prompts[index]), int(is_answer[row].sum())
            tokens[row, :start] = sequences[row, width - start : width]
            tokens[row, start : start + count] = answers[row, :count]
            mask[row, start : start + count] = True
            logprobs[row, start : start + count] = drawn_logprobs[row, :count]
        has_end = (is_end & is_answer).any(1).tolist()
        finish: tuple[Finish, ...] = tuple("end" if one else "length" for one in has_end)
        lengths = torch.tensor([len(prompts[i]) for i in repeats], device=answers.device)
        group = torch.tensor(repeats, device=answers.device)
        return Rollouts(tokens, lengths, mask, logprobs, logprobs, group, finish)


@contextmanager
def _plain_settings(model: Any) -> Iterator[None]:
    """transformers fills what a call leaves out from the model's own generation settings."""
    settings = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = settings
