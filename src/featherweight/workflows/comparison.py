"""What a comparison of models starts from: the models, the text, the tasks and how speed is
measured, checked before anything long begins.

Every refusal that can be known beforehand is made here, from configurations, tokenizers and files
of tasks; no weight is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Int64
from torch import Tensor

from .. import data
from ..base import machine
from ..base.errors import PreflightRefused, UsageError
from ..base.events import Event, Listener, silent
from ..interchange.loading import check_folder
from ..interchange.pretrained import load_config
from ..interchange.source import Source
from ..interchange.tokenizer_check import load_checked_tokenizer
from ..models.answers import Full, size_bytes, text_hash, tokenizer_hash
from .engines import check_runtime, open_weights
from .evaluate_tasks import TaskRun, check_template, choose_form, describe_runs, read_tasks
from .evidence import read_text
from .preflight import check_length

MIN_WINDOWS = 2  # the difference of two models in a single window has no interval


@dataclass(frozen=True)
class SpeedSettings:
    """How speed is measured: `tokens` of prompt and of answer in each of `rounds` rounds."""

    tokens: int = 64
    rounds: int = 5


@dataclass(frozen=True)
class TextSettings:
    """The text of a comparison, as in `evaluate_folder`."""

    name: str = "wikitext2_test"
    windows: int = 16
    length: int = 1024
    bos: str = "auto"


@dataclass(frozen=True)
class TaskSettings:
    """The tasks of a comparison, as in `evaluate_tasks`; `names` is None for none."""

    names: str | None = None
    items: int | None = None
    folder: Path | None = None
    chat: bool | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """The checked inputs of a comparison.

    sources: by the name in tables; the first is the original. tokens: the windows that all models
    read. has_bos: whether each of them starts with a BOS. tokenizer: the original's. vocabulary:
    the columns of all models' logits. answers: how the original's logits are
    kept. speed: None for no measurement. runtime: the engine of tasks and speed.
    """

    sources: Mapping[str, Source]
    tokens: Int64[Tensor, "count length_plus_1"]
    text_name: str
    has_bos: bool
    tokenizer: Any
    vocabulary: int
    task_runs: Sequence[TaskRun]
    answers: Full
    speed: SpeedSettings | None
    runtime: str

    @staticmethod
    def of(
        models: Sequence[str | Path],
        against: str | Path | None,
        text: TextSettings,
        tasks: TaskSettings,
        speed: SpeedSettings | None,
        answers: Full,
        runtime: str,
        listener: Listener = silent,
    ) -> Comparison:
        """Find and check everything.

        Raises UsageError for settings that cannot work and models that cannot be compared, BadInput
        for models, texts and tasks that cannot be used.
        """
        names = _names(models, against)
        _check_settings(text, speed, answers, runtime)
        runs = [] if tasks.names is None else read_tasks(tasks.names, tasks.items, tasks.folder)
        sources = _find(names, listener)
        for source in sources.values():
            check_length(source, text.length, "--length N")
            if speed is not None:
                check_length(source, speed.tokens, "--speed-tokens N")
        tokenizer = _check_tokenizers(sources)
        vocabulary = _check_vocabularies(sources)
        runs = _choose_forms(runs, sources, tasks.chat)
        if runtime == "native" and (runs or speed is not None):
            for source in sources.values():
                open_weights(source, runtime).close()
        content = read_text(text.name)
        return Comparison(
            sources=sources,
            tokens=data.windows(tokenizer, content, text.length, text.windows, text.bos),
            text_name=Path(text.name).name,
            has_bos=bool(data.first_tokens(tokenizer, text.bos)),
            tokenizer=tokenizer,
            vocabulary=vocabulary,
            task_runs=runs,
            answers=answers,
            speed=speed,
            runtime=runtime,
        )

    @property
    def original(self) -> str:
        """The name of the model that the others are compared with."""
        return next(iter(self.sources))

    @property
    def answers_bytes(self) -> int:
        """The disk that the original's logits take while the others are compared with them."""
        count, positions = self.tokens.shape
        return size_bytes(self.answers, self.vocabulary, count, positions - 1)

    def check_disk(self, folder: Path, listener: Listener) -> None:
        """Say what the work takes beside `folder`. Raises PreflightRefused when that is not
        free.
        """
        free = machine.free_disk_bytes(folder)
        need = f"the logits of {self.original} take {self.answers_bytes / 1e9:.2f} GB"
        if self.answers_bytes > free:
            raise PreflightRefused(
                f"{need} beside {folder} while the others are compared with them, and "
                f"{free / 1e9:.2f} GB are free; free some, take fewer or shorter windows, "
                "--answers-dtype float16 (half as much), or another --out"
            )
        listener(Event("disk", 1, 1, message=f"{need} until all models are compared with them"))

    def recipe(self) -> dict[str, Any]:
        """Everything that the results depend on."""
        return {
            "models": {name: source.fingerprint for name, source in self.sources.items()},
            "original": self.original,
            "text": {
                "name": self.text_name,
                "windows": len(self.tokens),
                "length": self.tokens.shape[1] - 1,
                "bos": self.has_bos,
                "hash": text_hash(self.tokens),
            },
            "answers": self.answers.dtype,
            "tasks": describe_runs(self.task_runs),
            "runtime": self.runtime,
            "speed": None if self.speed is None else vars(self.speed),
        }


def _names(models: Sequence[str | Path], against: str | Path | None) -> list[str]:
    """What the user called the models, the original first."""
    names = [str(model) for model in models]
    if against is not None:
        names = [str(against), *(name for name in names if name != str(against))]
    if len(names) < 2:
        raise UsageError(
            f"{len(names)} model to compare; name at least two, the original first (or --against)"
        )
    return names


def _check_settings(
    text: TextSettings, speed: SpeedSettings | None, answers: Full, runtime: str
) -> None:
    if text.windows < MIN_WINDOWS:
        raise UsageError(
            f"windows={text.windows}: at least {MIN_WINDOWS}, because models are compared by the "
            "spread of their differences over windows"
        )
    if text.length < 1:
        raise UsageError(f"length={text.length}: a window has at least one token")
    if speed is not None and (speed.tokens < 1 or speed.rounds < 1):
        raise UsageError(
            f"{speed.rounds} rounds of {speed.tokens} tokens: at least one of each, or --no-speed"
        )
    answers.check(1, 1.0)
    check_runtime(runtime)


def _find(names: Sequence[str], listener: Listener) -> dict[str, Source]:
    """The sources by the shortest names that tell them apart. Raises UsageError when two of them
    are the same model.
    """
    found_sources = [Source.find(name, listener) for name in names]
    for index, source in enumerate(found_sources):
        for rival in found_sources[:index]:
            if source.path.resolve() == rival.path.resolve():
                raise UsageError(
                    f"{rival.name} and {source.name} are the same model; name each model once"
                )
        check_folder(source.path)
    titles = [source.display_name for source in found_sources]
    if len(set(titles)) < len(titles):
        titles = [source.name for source in found_sources]
    return dict(zip(titles, found_sources, strict=True))


def _check_tokenizers(sources: Mapping[str, Source]) -> Any:
    """The original's tokenizer. Raises UsageError unless all have its vocabulary and cut text like
    it.
    """
    tokenizers = {name: load_checked_tokenizer(source.path) for name, source in sources.items()}
    original, *rivals = tokenizers
    tokenizer = tokenizers[original]
    for name in rivals:
        if tokenizers[name].get_vocab() != tokenizer.get_vocab():
            raise UsageError(
                f"{original} and {name} have different vocabularies "
                f"({len(tokenizer):,} and {len(tokenizers[name]):,} tokens), so that their "
                "next-token distributions cannot be compared; compare models of one tokenizer, or "
                "others by `fw evaluate --tasks`"
            )
        if tokenizer_hash(tokenizers[name]) != tokenizer_hash(tokenizer):
            raise UsageError(
                f"{original} and {name} have the same vocabulary but cut text differently, so that "
                "they would not read the same tokens; compare models of one tokenizer"
            )
    return tokenizer


def _check_vocabularies(sources: Mapping[str, Source]) -> int:
    """The columns of the logits. Raises UsageError unless all models have the same number."""
    sizes = {
        name: int(load_config(source.path).get_text_config().vocab_size)
        for name, source in sources.items()
    }
    original, *rivals = sizes
    for name in rivals:
        if sizes[name] != sizes[original]:
            raise UsageError(
                f"{original} has {sizes[original]:,} logits a token and {name} {sizes[name]:,} "
                "(one vocabulary may be padded); compare models whose embeddings have equally many "
                "rows"
            )
    return sizes[original]


def _choose_forms(
    runs: Sequence[TaskRun], sources: Mapping[str, Source], chat: bool | None
) -> list[TaskRun]:
    """The tasks with the same form of prompts for all models. Raises UsageError where templates
    would decide it differently.
    """
    if not runs:
        return []
    templates = {name: check_template(source, chat) for name, source in sources.items()}
    if chat is None and any(run.task.is_message for run in runs):
        names = [name for name, has_template in templates.items() if not has_template]
        if names and len(names) < len(templates):
            raise UsageError(
                f"{', '.join(names)}: no chat template, which the other models have; say --raw, so "
                "that all get the same prompts"
            )
    return choose_form(runs, chat, all(templates.values()))


def for_model(name: str, listener: Listener) -> Listener:
    """A listener whose stages carry the name of a model."""

    def send(event: Event) -> None:
        listener(replace(event, stage=f"{event.stage} {name}"))

    return send
