"""Measures `fw serve` while 32 clients stream at the same time for two minutes.

A server process serves a packed folder (without `--folder` SmolLM2-135M-Instruct, which is first
quantized to 2 bits). The clients run in this process. Each sends its next request as soon as it has
an answer; prompts and lengths are drawn from a seed. A single client is measured before and after
as the baseline. The claims are: no error, fair progress, constant memory, and at least twice the
tokens per second of the single client.

Fairness is the tokens of the slowest client divided by those of the fastest, with the 95 % interval
over resampled seconds. For the memory, the mean resident size of the last quarter of the time is
divided by that of the second quarter (the first is a warm-up), and a line is fitted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import Record, main, new_record, parser
from servers import serve

CLIENTS, SECONDS, ALONE_SECONDS, CONTEXT = 32, 120, 20, 512
FAIR, GROWTH, SPEEDUP = 0.8, 1.02, 2.0
WORDS = (
    "the",
    "a",
    "house",
    "river",
    "light",
    "feather",
    "wind",
    "stone",
    "city",
    "train",
    "doctor",
    "music",
    "paper",
)


@dataclass
class Client:
    """One client: the times of its tokens, the waits for first and for later tokens in seconds, and
    its errors.
    """

    tokens: list[float] = field(default_factory=list)
    first_waits: list[float] = field(default_factory=list)
    later_waits: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    answers: int = 0


def run(arguments: argparse.Namespace) -> Record:
    record = new_record("serving: many clients at once", arguments, num_seeds=1)
    seconds = arguments.seconds or (20 if arguments.quick else SECONDS)
    single_seconds = min(seconds, 10 if arguments.quick else ALONE_SECONDS)
    with (
        tempfile.TemporaryDirectory() as work,
        server(arguments, Path(work)) as (process, address, model),
    ):
        record.facts |= {
            "model": model["id"],
            "engine": model["featherweight"]["description"],
            "slots": CLIENTS,
        }
        phases = [
            ("one client", 1, single_seconds),
            ("many clients", CLIENTS, seconds),
            ("one client again", 1, single_seconds),
        ]
        # After every slot has held a full context, no buffer needs to grow.
        asyncio.run(fill_slots(address, model["id"]))
        rates = {}
        for number, (name, count, length) in enumerate(phases):
            seed = arguments.seeds[0] * 1000 + number
            clients, memory = asyncio.run(load(process, address, model["id"], count, length, seed))
            rates[name] = describe(record, name, clients, memory, length)
            if count > 1:
                judge(record, clients, memory, length)
    # The faster of the two single-client phases is the baseline, because another process may have
    # disturbed one of them.
    one = max(rates["one client"], rates["one client again"])
    record.facts["speedup"] = rates["many clients"] / one
    record.check(
        f"throughput of {CLIENTS} clients over that of one",
        rates["many clients"] / one,
        at_least=SPEEDUP,
    )
    return record


@contextmanager
def server(
    arguments: argparse.Namespace, work: Path
) -> Iterator[tuple[subprocess.Popen[str], tuple[str, int], Any]]:
    """Start the server; yield its process, its host and port, and its entry in /v1/models."""
    folder = arguments.folder
    if folder is None:
        folder = work / "light"
        options = [
            "quantize",
            "SmolLM2-135M-Instruct",
            "--bits",
            "2",
            "--preset",
            arguments.preset,
            "--no-evaluate",
        ]
        subprocess.run(
            [sys.executable, "-m", "featherweight", *options, "--out", str(folder)], check=True
        )
    options = ["--slots", str(CLIENTS), "--context", str(CONTEXT), "--runtime", arguments.runtime]
    with serve(folder, *options) as (process, url):
        host, port = url.removeprefix("http://").split(":")
        models = asyncio.run(get((host, int(port)), "/v1/models"))
        yield process, (host, int(port)), models["data"][0]


async def fill_slots(address: tuple[str, int], model: str) -> None:
    async def fill(number: int) -> None:
        prompt = [100 + (number * 31 + i * 7) % 997 for i in range(CONTEXT - 2)]
        body = {"model": model, "prompt": prompt, "max_tokens": 2, "stream": True}
        async for _ in stream(address, "/v1/completions", body):
            pass

    await asyncio.gather(*(fill(number) for number in range(CLIENTS)))


async def load(
    process: subprocess.Popen[str],
    address: tuple[str, int],
    model: str,
    count: int,
    seconds: float,
    seed: int,
) -> tuple[list[Client], list[tuple[float, float]]]:
    """Run `count` clients for `seconds`. Returns the clients, and the server's resident bytes at
    several times.
    """
    clients = [Client() for _ in range(count)]
    start = time.monotonic()
    tasks = [
        asyncio.create_task(
            keep_asking(client, address, model, start, seconds, random.Random(seed * 1000 + number))
        )
        for number, client in enumerate(clients)
    ]
    memory = []
    while (time_since_start := time.monotonic() - start) < seconds:
        memory.append((time_since_start, resident(process.pid)))
        await asyncio.sleep(0.5)
    await asyncio.gather(*tasks)
    return clients, memory


async def keep_asking(
    client: Client,
    address: tuple[str, int],
    model: str,
    start: float,
    seconds: float,
    dice: random.Random,
) -> None:
    while time.monotonic() - start < seconds:
        prompt = " ".join(dice.choices(WORDS, k=dice.randint(4, 100)))
        body = {
            "model": model,
            "prompt": prompt,
            "max_tokens": dice.randint(32, 128),
            "stream": True,
        }
        body |= {"temperature": 0.8, "seed": dice.randint(0, 2**31)}
        last_time = time.monotonic()
        is_first, is_finished = True, False
        try:
            async with asyncio.timeout(seconds + 60):
                async for event in stream(address, "/v1/completions", body):
                    if "error" in event:
                        raise ValueError(event["error"]["message"])
                    token_time = time.monotonic()
                    client.tokens.append(token_time - start)
                    waits = client.first_waits if is_first else client.later_waits
                    waits.append(token_time - last_time)
                    is_first, last_time = False, token_time
                    if event["choices"][0]["finish_reason"] is not None:
                        is_finished = True
                    if token_time - start >= seconds:
                        return  # the time is over; the connection is closed during the answer
            if not is_finished:
                raise ValueError("the stream ended early")
            client.answers += 1
        except (OSError, ValueError, KeyError, TimeoutError) as error:
            client.errors.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(0.5)


async def stream(
    address: tuple[str, int], path: str, body: dict[str, Any]
) -> AsyncIterator[dict[str, Any]]:
    """Yield the events of a streamed answer. Plain sockets are used, because they need little time
    of the two cores that the clients share with the server.
    """
    reader, writer = await asyncio.open_connection(*address)
    try:
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
        head += "Content-Type: application/json\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        status = (await reader.readline()).split()[1:2]
        if status != [b"200"]:
            raise ValueError(f"status {status}: {(await reader.read())[-300:]!r}")
        is_complete = False
        while line := await reader.readline():
            if line.startswith(b"data: [DONE]"):
                is_complete = True
            elif line.startswith(b"data: "):
                yield json.loads(line[6:])
        if not is_complete:
            raise ValueError("the stream has no end")
    finally:
        writer.close()


async def get(address: tuple[str, int], path: str) -> Any:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def describe(
    record: Record,
    name: str,
    clients: list[Client],
    memory: list[tuple[float, float]],
    length: float,
) -> float:
    """Add a row, and return the tokens per second of all clients together."""
    rate = sum(sum(seconds <= length for seconds in client.tokens) for client in clients) / length
    first_waits = [wait for client in clients for wait in client.first_waits]
    later_waits = [wait for client in clients for wait in client.later_waits]
    record.add(
        phase=name,
        clients=len(clients),
        seconds=length,
        answers=sum(client.answers for client in clients),
        errors=sum(len(client.errors) for client in clients),
        tokens_per_second=rate,
        first_token_p50=percentile(first_waits, 50),
        first_token_p95=percentile(first_waits, 95),
        between_p50=percentile(later_waits, 50),
        between_p95=percentile(later_waits, 95),
        resident_mb=memory[-1][1] / 1e6,
        error_texts=[text for client in clients for text in client.errors][:5],
    )
    return rate


def judge(
    record: Record, clients: list[Client], memory: list[tuple[float, float]], length: float
) -> None:
    """Check the claims about many clients at the same time."""
    record.check("errors", float(sum(len(client.errors) for client in clients)), at_most=0)
    per_second = np.array(
        [np.histogram(client.tokens, bins=int(length), range=(0, length))[0] for client in clients],
        dtype=float,
    )
    totals = per_second.sum(1)
    dice = np.random.default_rng(0)
    resampled_tokens = [
        per_second[:, dice.integers(0, int(length), int(length))].sum(1) for _ in range(1000)
    ]
    low, high = np.percentile(
        [tokens.min() / max(tokens.max(), 1) for tokens in resampled_tokens], [2.5, 97.5]
    )
    record.facts["fairness"] = {"low": low, "high": high, "tokens": totals.astype(int).tolist()}
    record.check(
        f"tokens of the slowest client over the fastest's [{low:.3f}, {high:.3f}]",
        float(totals.min() / max(totals.max(), 1)),
        at_least=FAIR,
    )
    times, sizes = np.array(memory).T
    quarters = [
        sizes[(times >= length * a / 4) & (times < length * (a + 1) / 4)].mean() for a in range(4)
    ]
    is_warm = times >= length / 4
    slope = np.polyfit(times[is_warm] / 60, sizes[is_warm] / 1e6, 1)[0]
    record.facts["memory"] = {
        "quarters_mb": [q / 1e6 for q in quarters],
        "slope_mb_per_minute": float(slope),
    }
    record.check(
        f"resident memory, last quarter over second ({slope:+.2f} MB a minute)",
        float(quarters[3] / quarters[1]),
        at_most=GROWTH,
    )


def resident(pid: int) -> float:
    """Resident bytes of a process, from Linux's /proc; NaN elsewhere."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass
    return float("nan")


def percentile(values: list[float], percent: float) -> float:
    return float(np.percentile(values, percent)) if values else float("nan")


if __name__ == "__main__":
    flags = parser(__doc__)
    flags.add_argument("--folder", type=Path, help="a packed folder; without one, it is made first")
    flags.add_argument("--runtime", default="auto", help="as in `fw serve`")
    flags.add_argument("--seconds", type=int, help="of the many clients")
    main(run, flags)
