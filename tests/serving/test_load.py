"""Many clients at once: no error, each gets its own text, all progress equally, and all slots are
free afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

for extra in ("fastapi", "uvicorn", "prometheus_client", "openai"):
    pytest.importorskip(extra, reason="the extras `serve` and `test` are not installed")

import openai  # noqa: E402
from live_server import LiveServer, wait_until  # noqa: E402

CLIENTS, TOKENS = 32, 40


async def stream(
    client: openai.AsyncOpenAI, number: int, counts: list[int], counts_at_first_end: list[list[int]]
) -> str:
    chunks = await client.completions.create(
        model="light",
        prompt=[5 + number, 6, 7],
        max_tokens=TOKENS,
        seed=number,
        stream=True,
        logprobs=0,
    )
    text = ""
    async with chunks:
        async for chunk in chunks:
            text += chunk.choices[0].text
            counts[number] += 1
    if not counts_at_first_end:
        counts_at_first_end.append(list(counts))
    return text


async def all_at_once(url: str) -> tuple[list[str], list[int]]:
    counts, counts_at_first_end = [0] * CLIENTS, list[list[int]]()
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        texts = await asyncio.gather(
            *(stream(client, number, counts, counts_at_first_end) for number in range(CLIENTS))
        )
    # A connection is closed in the next turn of the event loop.
    await asyncio.sleep(0)
    assert counts == [TOKENS] * CLIENTS
    return texts, counts_at_first_end[0]


@pytest.mark.parametrize("slots", [32, 5])
def test_32_clients(start: Callable[..., LiveServer], slots: int) -> None:
    server = start(slots=slots, delay=0.001)
    texts, counts_at_first_end = asyncio.run(all_at_once(server.url))
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    for number in (0, 13, 31):
        completion = client.completions.create(
            model="light", prompt=[5 + number, 6, 7], max_tokens=TOKENS, seed=number
        )
        assert completion.choices[0].text == texts[number]
    if slots >= CLIENTS:
        # A round computes one token for every request (test_batcher counts them); tokens that are
        # missing here have not arrived yet.
        assert min(counts_at_first_end) > 0
    wait_until(server.is_idle)
    assert len(server.engine.sessions) == slots
    client.close()
