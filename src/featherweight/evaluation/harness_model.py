"""A model of ours as lm-evaluation-harness sees one: its tasks run on any `Engine`.

The harness splits texts into context and continuation itself (`TemplateLM`); this class tokenizes,
scores and generates. Every answer is handed to the harness's cache at once, so that an evaluation
that was killed continues behind it.

This module imports lm_eval (the extra `eval`); it is imported only when the harness is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval import utils
from lm_eval.api.model import TemplateLM

from ..base.errors import UsageError
from ..base.events import Listener, silent, track
from ..base.sampling import Sampling
from ..inference.engine import Engine
from ..inference.text.tokenizer import ChatTokenizer
from .answers import generate_answers
from .likelihood import LikelihoodScorer

DEFAULT_TOKENS = 256  # the harness's own default for answers
LENGTH_KEYS = ("max_gen_toks", "max_new_tokens", "max_tokens")


class HarnessModel(TemplateLM):
    """The model of `engine` and its `tokenizer`; `name` is written into the results.

    listener: receives an event for each request.
    """

    def __init__(
        self, engine: Engine, tokenizer: ChatTokenizer, name: str, listener: Listener = silent
    ) -> None:
        super().__init__()
        self.engine, self.chat_tokenizer, self.name = engine, tokenizer, name
        self._listener = listener

    @property
    def eot_token_id(self) -> int:
        """The id of the EOS token."""
        token = self.chat_tokenizer.special_token("eos_token")
        if token is None:
            raise UsageError("this model has no EOS token, which the harness needs")
        return token[1]

    @property
    def prefix_token_id(self) -> int:
        """The token before a text without a context: BOS, else EOS."""
        token = self.chat_tokenizer.special_token("bos_token")
        return self.eot_token_id if token is None else token[1]

    @property
    def tokenizer_name(self) -> str:
        """Names tokenizer and template in the harness's cache of requests."""
        return f"{self.name}-{self.chat_tokenizer.template_digest}"

    def chat_template(self, chat_template: bool | str = False) -> str:
        """What the results say of the template: its hash."""
        return self.chat_tokenizer.template_digest or ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as text; without `add_generation_prompt` its last turn stays open."""
        if add_generation_prompt:
            return self.chat_tokenizer.render(chat_history)
        *turns, last_turn = chat_history
        return self.chat_tokenizer.render(turns) + last_turn["content"]

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **settings: Any
    ) -> list[int]:
        """Token ids. A text that begins with the BOS token gets no second one."""
        if add_special_tokens is None:
            bos = self.chat_tokenizer.special_token("bos_token")
            add_special_tokens = bos is None or not string.startswith(bos[0])
        if add_special_tokens:
            return self.chat_tokenizer.encode(string)
        return self.chat_tokenizer.encode_plain(string)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **settings: Any
    ) -> list[tuple[float, bool]]:
        results = []
        with LikelihoodScorer(self.engine) as scorer:
            for texts, context, continuation in track(
                requests, "loglikelihood", len(requests), self._listener
            ):
                score = scorer.score(context, continuation)
                results.append((score.logprob, score.is_greedy))
                self.cache_hook.add_partial("loglikelihood", texts, results[-1])
        return results

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """The log-probability of each text as a whole, in windows of the model's context."""
        results = []
        with LikelihoodScorer(self.engine) as scorer:
            for request in track(requests, "rolling", len(requests), self._listener):
                windows = utils.get_rolling_token_windows(
                    token_list=self.tok_encode(request.args[0]),
                    prefix_token=self.prefix_token_id,
                    max_seq_len=self.engine.context,
                    context_len=1,
                )
                pairs = map(utils.make_disjoint_window, windows)
                results.append(sum((scorer.score(*pair).logprob for pair in pairs), 0.0))
                self.cache_hook.add_partial("loglikelihood_rolling", request.args, results[-1])
        return results

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The answer to each prompt, up to its stop strings."""
        prompts = [self.tok_encode(request.args[0]) for request in requests]
        samplings = [read_sampling(request.args[1]) for request in requests]
        answers = generate_answers(self.engine, self.chat_tokenizer, prompts, samplings)
        results = []
        for request, answer in zip(
            requests, track(answers, "generate", len(requests), self._listener), strict=True
        ):
            results.append(answer.text)
            self.cache_hook.add_partial("generate_until", request.args, answer.text)
        return results


def read_sampling(settings: Mapping[str, Any]) -> Sampling:
    """The sampling that a task of the harness asks for: greedy unless it says `do_sample`."""
    endings = settings.get("until") or ()
    stop = (endings,) if isinstance(endings, str) else tuple(text for text in endings if text)
    max_tokens = next((settings[key] for key in LENGTH_KEYS if key in settings), DEFAULT_TOKENS)
    if not settings.get("do_sample"):
        return Sampling(int(max_tokens), temperature=0, stop=stop)
    return Sampling(
        int(max_tokens),
        temperature=float(settings.get("temperature", 1.0)),
        top_k=int(settings.get("top_k", 0)),
        top_p=float(settings.get("top_p", 1.0)),
        seed=0,
        stop=stop,
    )
