"""A conversation computes only new tokens, and answers as a new conversation of the same turns."""

from __future__ import annotations

import pytest
import tiny
from fake_engine import FakeEngine

from featherweight.base.errors import UsageError
from featherweight.base.sampling import Sampling
from featherweight.inference import ChatTokenizer, Conversation, answer, generate
from featherweight.inference.conversation import FIRST_CAPACITY
from featherweight.inference.reference import ReferenceEngine

TOKENIZER = ChatTokenizer.of(tiny.tokenizer())
SAMPLING = Sampling(max_tokens=12, temperature=0.8, seed=5, top_k=20)


def answer_of_new_session(messages: list[dict[str, str]], **options: object) -> str:
    engine = FakeEngine(**options)  # type: ignore[arg-type]
    generation = generate(engine, TOKENIZER, TOKENIZER.chat(messages), SAMPLING)
    return "".join(delta.text for delta in generation)


@pytest.mark.parametrize("lookup", [0, 4])
def test_turns(lookup: int) -> None:
    engine = FakeEngine(context=4096)
    with Conversation(engine, TOKENIZER, SAMPLING, "Be brief.", lookup=lookup) as conversation:
        for question in ("Who?", "And why?", "When was that, in 1905?"):
            num_computed = engine.num_computed
            text = "".join(conversation(question))
            assert text == answer_of_new_session(conversation.messages[:-1], context=4096)
            assert conversation.messages[-1] == {"role": "assistant", "content": text}
            assert conversation.usage is not None
            usage = conversation.usage
            num_new = usage.prompt_tokens - usage.cached_tokens
            max_computed = num_new + (12 if not lookup else 12 * 5)
            assert engine.num_computed - num_computed <= max_computed
        assert conversation.usage.cached_tokens > 60
    assert engine.num_open_sessions == 0


def test_an_interrupted_answer_is_remembered_as_far_as_it_went() -> None:
    conversation = Conversation(FakeEngine(), TOKENIZER, SAMPLING)
    answer_text = conversation("Who?")
    first = next(answer_text)
    answer_text.close()  # type: ignore[attr-defined]
    assert conversation.messages[-1] == {"role": "assistant", "content": first}
    assert "".join(conversation("Why?")) == answer_of_new_session(conversation.messages[:-1])


def test_a_long_conversation_moves_to_a_larger_session() -> None:
    engine = FakeEngine(context=4 * FIRST_CAPACITY)
    conversation = Conversation(engine, TOKENIZER, SAMPLING)
    "".join(conversation("Who?"))
    num_computed = engine.num_computed
    question = "x" * FIRST_CAPACITY
    text = "".join(conversation(question))
    assert text == answer_of_new_session(conversation.messages[:-1], context=4 * FIRST_CAPACITY)
    assert engine.num_open_sessions == 1
    num_new = engine.num_computed - num_computed
    assert num_new < FIRST_CAPACITY + 60, "the first turn is not computed again"


def test_a_full_context() -> None:
    conversation = Conversation(FakeEngine(context=64), TOKENIZER, SAMPLING)
    with pytest.raises(UsageError, match="context is 64; start a new one"):
        "".join(conversation("x" * 100))
    assert conversation.messages == []
    # Less room than max_tokens: a shorter answer.
    room = 64 - len(TOKENIZER.chat([{"role": "user", "content": ""}]))
    "".join(conversation("x" * (room - 3)))
    assert conversation.usage is not None and conversation.usage.completion_tokens <= 3


def test_one_answer_of_a_real_model() -> None:
    model, transformers_tokenizer = tiny.llama()
    engine = ReferenceEngine(model, "f", "tiny")
    tokenizer = ChatTokenizer.of(transformers_tokenizer)
    text = answer(engine, tokenizer, "What is light?", 20)
    ids = tokenizer.chat([{"role": "user", "content": "What is light?"}])
    reference = model.generate(
        **dict(zip(("input_ids", "attention_mask"), _tensors(ids), strict=True)),
        max_new_tokens=20,
        do_sample=False,
    )[0, len(ids) :]
    assert text == transformers_tokenizer.decode(reference, skip_special_tokens=True).strip()


def _tensors(ids: list[int]):  # type: ignore[no-untyped-def]
    import torch

    return torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.int64)
