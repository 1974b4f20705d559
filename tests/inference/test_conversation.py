"""A conversation computes only what is new, and says what a fresh one would say."""

from __future__ import annotations

import pytest
import tiny
from fake_engine import FakeEngine

from featherweight.base.errors import UsageError
from featherweight.inference import ChatTokenizer, Conversation, Sampling, answer, generate
from featherweight.inference.conversation import FIRST_CAPACITY
from featherweight.inference.reference import ReferenceEngine

TEXT = ChatTokenizer.of(tiny.tokenizer())
SAMPLING = Sampling(max_tokens=12, temperature=0.8, seed=5, top_k=20)


def fresh(messages: list[dict[str, str]], **options: object) -> str:
    run = generate(FakeEngine(**options), TEXT, TEXT.chat(messages), SAMPLING)  # type: ignore[arg-type]
    return "".join(piece.text for piece in run)


@pytest.mark.parametrize("lookup", [0, 4])
def test_turns(lookup: int) -> None:
    engine = FakeEngine(context=4096)
    with Conversation(engine, TEXT, SAMPLING, "Be brief.", lookup=lookup) as talk:
        for question in ("Who?", "And why?", "When was that, in 1905?"):
            before = engine.computed
            said = "".join(talk(question))
            assert said == fresh(talk.messages[:-1], context=4096)
            assert talk.messages[-1] == {"role": "assistant", "content": said}
            assert talk.usage is not None
            new = talk.usage.prompt_tokens - talk.usage.cached_tokens
            assert engine.computed - before <= new + (12 if not lookup else 12 * 5)
        assert talk.usage.cached_tokens > 60
    assert engine.open_sequences == 0


def test_an_interrupted_answer_is_remembered_as_far_as_it_went() -> None:
    talk = Conversation(FakeEngine(), TEXT, SAMPLING)
    pieces = talk("Who?")
    first = next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert talk.messages[-1] == {"role": "assistant", "content": first}
    assert "".join(talk("Why?")) == fresh(talk.messages[:-1])


def test_a_long_conversation_moves_to_a_larger_sequence() -> None:
    engine = FakeEngine(context=4 * FIRST_CAPACITY)
    talk = Conversation(engine, TEXT, SAMPLING)
    "".join(talk("Who?"))
    before = engine.computed
    question = "x" * FIRST_CAPACITY
    said = "".join(talk(question))
    assert said == fresh(talk.messages[:-1], context=4 * FIRST_CAPACITY)
    assert engine.open_sequences == 1
    assert engine.computed - before < FIRST_CAPACITY + 60, "the first turn is not computed again"


def test_a_full_context() -> None:
    talk = Conversation(FakeEngine(context=64), TEXT, SAMPLING)
    with pytest.raises(UsageError, match="context is 64; start a new one"):
        "".join(talk("x" * 100))
    assert talk.messages == []
    # Less room than max_tokens: a shorter answer.
    room = 64 - len(TEXT.chat([{"role": "user", "content": ""}]))
    "".join(talk("x" * (room - 3)))
    assert talk.usage is not None and talk.usage.completion_tokens <= 3


def test_one_answer_of_a_real_model() -> None:
    model, tokenizer = tiny.llama()
    engine, text = ReferenceEngine(model, "f", "tiny"), ChatTokenizer.of(tokenizer)
    said = answer(engine, text, "What is light?", 20)
    ids = text.chat([{"role": "user", "content": "What is light?"}])
    expected = model.generate(
        **dict(zip(("input_ids", "attention_mask"), _tensors(ids), strict=True)),
        max_new_tokens=20,
        do_sample=False,
    )[0, len(ids) :]
    assert said == tokenizer.decode(expected, skip_special_tokens=True).strip()


def _tensors(ids: list[int]):  # type: ignore[no-untyped-def]
    import torch

    return torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.int64)
