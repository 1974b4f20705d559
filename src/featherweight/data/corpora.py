"""The texts that are part of the package, with their licences. A text is for calibration or for
evaluation, never for both.

A corpus is one compressed file in `texts/`, which is read in one of two forms: *text* gives plain
documents, *dialogue* gives questions and answers that are rendered with the chat template of the
tokenizer. Some files are used in both forms. `texts/README.md` says where each file comes from and
how it was cut. The tests check that no calibration corpus shares 13 consecutive words with an
evaluation corpus.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from ..base import spec
from ..base.errors import UsageError

DOCUMENT_BREAK = "\n\n\n"


@dataclass(frozen=True)
class Dialogue:
    """A question and a good answer to it. The answer is empty when only the question is known."""

    prompt: str
    answer: str = ""

    @property
    def running_text(self) -> str:
        """Question and answer as one text, for a model without a chat template."""
        gap = "" if self.prompt.endswith("\n") or not self.answer else "\n"
        return f"{self.prompt}{gap}{self.answer}"


Document = str | Dialogue


@dataclass(frozen=True)
class Corpus:
    """One shipped text.

    file: its name in `texts/`. role: whether it is for calibration or evaluation. form: how the
    file is read. licence: is part of the fingerprint of every set that uses the corpus.
    description: is shown to users.
    """

    name: str
    file: str
    role: Literal["calibration", "evaluation"]
    form: Literal["text", "dialogue"]
    licence: str
    description: str

    def documents(self) -> list[Document]:
        """The documents of this corpus in the order of its file."""
        content = _read(self.file)
        if self.file.endswith(".txt.gz"):
            return list(content.rstrip("\n").split(DOCUMENT_BREAK))
        dialogues = [Dialogue(**json.loads(line)) for line in content.split("\n") if line]
        if self.form == "text":
            return [dialogue.running_text for dialogue in dialogues]
        return list(dialogues)


def _read(file: str) -> str:
    content = (files("featherweight.data") / "texts" / file).read_bytes()
    return gzip.decompress(content).decode("utf-8")


_NOVELS = "public domain"
_CORPORA = (
    Corpus(
        "novels",
        "novels.txt.gz",
        "calibration",
        "text",
        _NOVELS,
        "160 extracts of 50 English novels",
    ),
    Corpus(
        "plays", "plays.txt.gz", "calibration", "text", _NOVELS, "scenes of Shakespeare's plays"
    ),
    Corpus(
        "wikipedia",
        "wikipedia.txt.gz",
        "calibration",
        "text",
        "CC BY-SA 3.0",
        "sentences of Wikipedia",
    ),
    Corpus(
        "math", "school_math.jsonl.gz", "calibration", "text", "MIT", "GSM8K train, worked answers"
    ),
    Corpus(
        "math_chat",
        "school_math.jsonl.gz",
        "calibration",
        "dialogue",
        "MIT",
        "GSM8K train as dialogues",
    ),
    Corpus(
        "competition",
        "competition_math.jsonl.gz",
        "calibration",
        "text",
        "MIT",
        "MATH train, final answers",
    ),
    Corpus(
        "code", "code.jsonl.gz", "calibration", "text", "CC BY 4.0", "MBPP: task, program, tests"
    ),
    Corpus(
        "code_chat", "code.jsonl.gz", "calibration", "dialogue", "CC BY 4.0", "MBPP as dialogues"
    ),
    Corpus(
        "tasks_chat",
        "seed_tasks.jsonl.gz",
        "calibration",
        "dialogue",
        "Apache-2.0",
        "Self-Instruct seed tasks",
    ),
    Corpus(
        "instructions_chat",
        "instructions.jsonl.gz",
        "calibration",
        "dialogue",
        "Apache-2.0",
        "instructions",
    ),
    Corpus(
        "restaurants_chat",
        "restaurants.jsonl.gz",
        "calibration",
        "dialogue",
        "CC BY-SA 4.0",
        "E2E NLG dev",
    ),
    Corpus(
        "wikitext2_test",
        "wikitext2_test.txt.gz",
        "evaluation",
        "text",
        "CC BY-SA 3.0",
        "WikiText-2 test",
    ),
    Corpus(
        "novels_valid",
        "novels_valid.txt.gz",
        "evaluation",
        "text",
        _NOVELS,
        "3 novels held out by book",
    ),
    Corpus(
        "gsm8k_test", "gsm8k_test.jsonl.gz", "evaluation", "text", "MIT", "GSM8K test, 200 rows"
    ),
    Corpus(
        "humaneval",
        "humaneval.jsonl.gz",
        "evaluation",
        "text",
        "MIT",
        "HumanEval: prompt and solution",
    ),
    Corpus(
        "mt_bench",
        "mt_bench.jsonl.gz",
        "evaluation",
        "dialogue",
        "Apache-2.0",
        "MT-Bench, first questions",
    ),
    Corpus(
        "arena_prompts",
        "arena_prompts.jsonl.gz",
        "evaluation",
        "dialogue",
        "Apache-2.0",
        "Arena-Hard prompts",
    ),
)
CORPORA = {corpus.name: corpus for corpus in _CORPORA}


def corpus(name: str) -> Corpus:
    """The corpus called `name`. Raises UsageError, with the most similar name, when there is
    none.
    """
    if name not in CORPORA:
        raise UsageError(f"no shipped text is called {name!r}; {spec.nearest(name, CORPORA)}")
    return CORPORA[name]


def text(name: str) -> str:
    """A shipped text as one string: a `.txt` file exactly as it is, dialogues as running text with
    blank lines between them.

    Raises UsageError when no corpus has that name.
    """
    entry = corpus(name)
    if entry.file.endswith(".txt.gz"):
        return _read(entry.file)
    return "\n\n".join(
        document if isinstance(document, str) else document.running_text
        for document in entry.documents()
    )
