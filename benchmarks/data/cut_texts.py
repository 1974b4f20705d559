"""Cuts the texts of the package out of public data sets. Equal data sets give equal bytes.

    python benchmarks/data/cut_texts.py RAW_FOLDER

RAW_FOLDER holds the data sets under the paths in `src/featherweight/data/texts/README.md` (`lm/`,
`math/`, `code/`, `chat/`, `seq2seq/`, `zeroshot/`). Each text gets one of two roles:

*evaluation*   WikiText-2 test as it is, and short samples of the held-out splits of other texts;
*calibration*  everything else. A calibration document is dropped when it shares 13 consecutive
               words with any evaluation file, also with those that are not shipped. An encyclopedia
               sentence is dropped when it shares 8 consecutive words with WikiText-2 valid or test.
               Words are compared in lower case without punctuation or tokenisation marks.

The gzip files contain no time stamp, so a rebuilt file equals the committed one.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ROOT / "src" / "featherweight" / "data" / "texts"
BENCHMARK_TEXTS = ROOT / "benchmarks" / "data"
OVERLAP_WORDS = 13
WIKIPEDIA_OVERLAP_WORDS = 8
HELD_OUT = (
    "lm/wikitext2_valid.txt.gz",
    "lm/wikitext2_test.txt.gz",
    "lm/novels/valid.txt.gz",
    "math/gsm8k_test.jsonl.gz",
    "math/math_test.jsonl.gz",
    "math/math500_test.jsonl.gz",
    "code/humaneval.jsonl.gz",
    "chat/mt_bench_questions.jsonl.gz",
    "chat/ifeval_prompts.jsonl.gz",
    "chat/arena_hard_v01_questions.jsonl.gz",
    "zeroshot/lambada_openai.jsonl.gz",
    "zeroshot/arc_easy.jsonl.gz",
    "zeroshot/arc_challenge.jsonl.gz",
    "zeroshot/piqa.jsonl.gz",
    "zeroshot/boolq.jsonl.gz",
    "zeroshot/openbookqa.jsonl.gz",
    "zeroshot/copa.jsonl.gz",
    "zeroshot/commonsense_qa.jsonl.gz",
    "zeroshot/mmlu_dev.jsonl.gz",
    "zeroshot/mmlu_test.jsonl.gz",
)

Row = dict[str, str]


def words(text: str) -> list[str]:
    """The words in lower case. Two copies of a sentence that differ only in case, in punctuation or
    in marks like ` @-@ ` give equal words.
    """
    plain_text = re.sub(r" @([-,.])@ ", r"\1", text.replace("<unk>", " "))
    return re.findall(r"[^\W_]+", plain_text.lower())


def runs(text: str, length: int) -> Iterator[tuple[str, ...]]:
    """Every sequence of `length` consecutive words of `text`."""
    text_words = words(text)
    return (tuple(text_words[i : i + length]) for i in range(len(text_words) - length + 1))


class HeldOutRuns:
    """The sequences of words that calibration text must not contain."""

    def __init__(self, texts: Iterable[str], length: int) -> None:
        self.length = length
        self.run_hashes = {hash(run) for text in texts for run in runs(text, length)}

    def __contains__(self, text: object) -> bool:
        return any(hash(run) in self.run_hashes for run in runs(str(text), self.length))


def read(raw: Path, name: str) -> str:
    with gzip.open(raw / name, "rt", encoding="utf-8", newline="") as file:
        return file.read()


def rows(raw: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in read(raw, name).split("\n") if line]


def strings(value: object) -> Iterator[str]:
    """Every string inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (s for item in value.values() for s in strings(item))
    elif isinstance(value, list):
        yield from (s for item in value for s in strings(item))


def held_out(raw: Path) -> HeldOutRuns:
    texts: list[str] = []
    for name in HELD_OUT:
        if name.endswith(".jsonl.gz"):
            texts += [s for row in rows(raw, name) for s in strings(row)]
        else:
            texts.append(read(raw, name))
    return HeldOutRuns(texts, OVERLAP_WORDS)


def store(folder: Path, name: str, content: str) -> int:
    """Write `content` as gzip without a time stamp; returns the packed size in bytes."""
    gzip_bytes = gzip.compress(content.encode("utf-8"), compresslevel=9, mtime=0)
    # The tenth byte is the operating system of the writer. It is set to 255 (unknown), so that all
    # systems write the same bytes.
    gzip_bytes = gzip_bytes[:9] + b"\xff" + gzip_bytes[10:]
    (folder / name).write_bytes(gzip_bytes)
    return len(gzip_bytes)


def store_documents(name: str, documents: Iterable[str]) -> None:
    document_list = list(documents)
    size = store(TEXTS, name, "\n\n\n".join(document_list) + "\n")
    print(f"{name}: {len(document_list)} documents, {size:,} bytes")


def store_rows(name: str, dialogues: Iterable[Row], folder: Path = TEXTS) -> None:
    row_list = list(dialogues)
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in row_list]
    size = store(folder, name, "\n".join(lines) + "\n")
    print(f"{name}: {len(row_list)} rows, {size:,} bytes")


def unwrap(text: str) -> str:
    """The text with one line for each paragraph. Some transcriptions break lines at 70 characters,
    others have no blank line between paragraphs.
    """
    paragraphs: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        lines = block.split("\n")
        is_wrapped = max(len(line) for line in lines) < 100
        paragraphs += (
            [" ".join(block.split())] if is_wrapped else [" ".join(line.split()) for line in lines]
        )
    return "\n\n".join(p for p in paragraphs if p)


def extracts(text: str, count: int, characters: int) -> Iterator[str]:
    """`count` pieces of about `characters` at equal distances, each from the start of a sentence to
    the end of one.
    """
    sentence_end = re.compile(r"[.!?]['\"]?\s+")
    for i in range(count):
        middle = int((i + 0.5) / count * len(text))
        match = sentence_end.search(text, middle)
        assert match, "the collection ends in the middle of a sentence"
        body = unwrap(text[match.end() : middle + 3 * characters])
        end = sentence_end.search(body, characters)
        yield body[: end.end()].strip() if end else body


def novels(raw: Path, held_out_runs: HeldOutRuns) -> list[str]:
    pieces = [read(raw, f"lm/novels/train_{i:02d}.txt.gz") for i in range(4)]
    candidates = [
        extract for piece in pieces for extract in extracts(piece, count=40, characters=6000)
    ]
    return [extract for extract in candidates if extract not in held_out_runs]


def plays(raw: Path, held_out_runs: HeldOutRuns) -> list[str]:
    scenes = read(raw, "lm/tinyshakespeare.txt.gz").split("\n\n")
    groups = ["\n\n".join(scenes[i : i + 8]) for i in range(0, len(scenes), 8)]
    return [group for group in groups[::4] if group not in held_out_runs]


def shorter_sentence(source: str, targets: list[str]) -> str:
    """The simple sentence among `targets` that shares the fewest words with `source`, because the
    others nearly repeat it.
    """
    source_words = set(words(source))
    return min(
        targets, key=lambda t: (len(source_words & set(words(t))) / max(1, len(words(t))), t)
    )


def wikipedia(raw: Path, held_out_runs: HeldOutRuns) -> list[str]:
    """Documents of eight original sentences (with spaced punctuation, as in the data set), then
    documents of eight simple sentences.
    """
    evaluation_runs = HeldOutRuns(
        (read(raw, f"lm/wikitext2_{split}.txt.gz") for split in ("valid", "test")),
        WIKIPEDIA_OVERLAP_WORDS,
    )
    pairs: dict[str, list[str]] = {}
    for row in rows(raw, "seq2seq/wiki_auto_valid.jsonl.gz"):
        pairs.setdefault(row["src"], []).append(row["trg"])
    clean = {
        source: [
            target
            for target in targets
            if target not in evaluation_runs and target not in held_out_runs
        ]
        for source, targets in pairs.items()
        if source not in evaluation_runs and source not in held_out_runs
    }
    print(f"wikipedia: {len(pairs) - len(clean)} of {len(pairs)} sentences dropped for overlap")
    sources = list(clean)
    simple = [shorter_sentence(source, targets) for source, targets in clean.items() if targets]
    lines = [sources[i : i + 8] for i in range(0, len(sources), 8)] + [
        simple[i : i + 8] for i in range(0, len(simple), 8)
    ]
    return [" ".join(line) for line in lines]


def dialogue(prompt: str, answer: str) -> Row:
    return {"prompt": prompt.strip(), "answer": answer.strip()}


def school_math(raw: Path, name: str) -> list[Row]:
    """GSM8K without the calculator marks `<<48/2=24>>`, which no model writes."""
    return [dialogue(r["question"], re.sub(r"<<[^>]*>>", "", r["answer"])) for r in rows(raw, name)]


def competition_math(raw: Path) -> list[Row]:
    return [
        dialogue(r["question"], r["ground_truth_answer"])
        for r in rows(raw, "math/math_train_answers.jsonl.gz")
    ]


def code(raw: Path) -> list[Row]:
    dialogues = []
    for row in rows(raw, "code/mbpp.jsonl.gz"):
        program = "\n".join(
            line.rstrip() for line in row["code"].replace("\r\n", "\n").expandtabs(4).split("\n")
        )
        dialogues.append(dialogue(row["text"], program + "\n\n" + "\n".join(row["test_list"])))
    return dialogues


def seed_tasks(raw: Path) -> list[Row]:
    dialogues = []
    for row in rows(raw, "chat/self_instruct_seed_tasks.jsonl.gz"):
        for instance in row["instances"][:2]:
            dialogues.append(
                dialogue(f"{row['instruction']}\n\n{instance['input']}", instance["output"])
            )
    return dialogues


def instructions(raw: Path) -> list[Row]:
    return [
        dialogue(f"{r['instruction']}\n\n{r['input']}", r["output"])
        for r in rows(raw, "chat/instructions_1100.jsonl.gz")
    ]


def restaurants(raw: Path) -> list[Row]:
    dialogues: dict[str, Row] = {}
    for row in rows(raw, "seq2seq/e2e_nlg_dev.jsonl.gz"):
        dialogues.setdefault(row["mr"], dialogue(f"Describe this place: {row['mr']}", row["ref"]))
    return list(dialogues.values())


def sample(candidates: list[Row], count: int, seed: int = 0) -> list[Row]:
    """`count` random rows in their original order; `seed` determines the choice."""
    if len(candidates) <= count:
        return candidates
    return [
        candidates[i] for i in sorted(random.Random(seed).sample(range(len(candidates)), count))
    ]


def evaluation(raw: Path) -> None:
    store(TEXTS, "wikitext2_test.txt.gz", read(raw, "lm/wikitext2_test.txt.gz"))
    store(BENCHMARK_TEXTS, "wikitext2_valid.txt.gz", read(raw, "lm/wikitext2_valid.txt.gz"))
    store_documents(
        "novels_valid.txt.gz",
        extracts(read(raw, "lm/novels/valid.txt.gz"), count=12, characters=8000),
    )
    store_rows("gsm8k_test.jsonl.gz", sample(school_math(raw, "math/gsm8k_test.jsonl.gz"), 200))
    programs = [
        {"prompt": r["prompt"], "answer": r["canonical_solution"]}
        for r in rows(raw, "code/humaneval.jsonl.gz")
    ]
    store_rows("humaneval.jsonl.gz", programs)
    store_rows(
        "mt_bench.jsonl.gz",
        [{"prompt": r["turns"][0]} for r in rows(raw, "chat/mt_bench_questions.jsonl.gz")],
    )
    arena_prompts = [
        {"prompt": r["prompt"].strip()} for r in rows(raw, "chat/arena_hard_v01_questions.jsonl.gz")
    ]
    store_rows(
        "arena_prompts.jsonl.gz", sample([r for r in arena_prompts if len(r["prompt"]) < 2000], 160)
    )


def calibration(raw: Path) -> None:
    held_out_runs = held_out(raw)
    store_documents("novels.txt.gz", novels(raw, held_out_runs))
    store_documents("plays.txt.gz", plays(raw, held_out_runs))
    store_documents("wikipedia.txt.gz", wikipedia(raw, held_out_runs))
    dialogues: dict[str, tuple[Callable[[], list[Row]], int]] = {
        "school_math": (lambda: school_math(raw, "math/gsm8k_train.jsonl.gz"), 1200),
        "competition_math": (lambda: competition_math(raw), 1200),
        "code": (lambda: code(raw), 974),
        "seed_tasks": (lambda: seed_tasks(raw), 400),
        "instructions": (lambda: instructions(raw), 1100),
        "restaurants": (lambda: restaurants(raw), 400),
    }
    for name, (load, count) in dialogues.items():
        clean = [row for row in load() if f"{row['prompt']} {row['answer']}" not in held_out_runs]
        store_rows(f"{name}.jsonl.gz", sample(clean, count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("raw", type=Path, metavar="RAW_FOLDER")
    raw = parser.parse_args().raw
    evaluation(raw)
    calibration(raw)


if __name__ == "__main__":
    main()
