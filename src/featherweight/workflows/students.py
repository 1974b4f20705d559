"""What `fw distill` takes as STUDENT.

every:2            every second block of the teacher, always with the first and the last
blocks:0,4,8       these blocks of the teacher
channels:FILE      a map of kept channels (`distillation.KeptChannels`) in YAML
shape.yaml         a model from scratch: arguments of `models.scratch_model`
anything else      a model: an alias, a folder, a GGUF file, a name on the hub
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from ..base.errors import BadInput, UsageError
from ..base.files import sha256
from ..distillation import KeptChannels, keep_blocks, keep_channels, spread
from ..distillation.students import check_rising
from ..interchange import loading
from ..interchange.source import Source
from ..models.scratch import scratch_model

SHAPES = (".yaml", ".yml")


@dataclass(frozen=True)
class Student:
    """A student before it exists.

    text: as the user wrote it. identity: what it depends on, for the recipe. make: builds it; the
    argument is the teacher, of which only students with `of_teacher` take something. source: of a
    student that is a model already.
    """

    text: str
    identity: dict[str, Any]
    make: Callable[[nn.Module | None], nn.Module]
    of_teacher: bool = False
    source: Source | None = None


def find_student(text: str, teacher: Source, vocabulary: int, end_id: int | None) -> Student:
    """The student that `text` names.

    vocabulary, end_id: of a student from scratch. Raises UsageError for numbers of blocks and
    channels that do not fit the teacher, for unknown settings of a shape, and for a student whose
    weights are codes; BadInput for a file or a model that cannot be read.
    """
    kind, _, argument = text.partition(":")
    if kind in ("every", "blocks") and argument:
        return _of_blocks(text, kind, argument, teacher)
    if kind == "channels" and argument:
        return _of_channels(text, Path(argument), teacher)
    if Path(text).suffix in SHAPES:
        return _from_scratch(text, Path(text), vocabulary, end_id)
    source = Source.find(text)
    if source.is_packed:
        raise UsageError(
            f"{source.display_name} is compressed, and its codes cannot be trained; give the "
            "original model as the student, and quantize the result"
        )
    return Student(
        text,
        {"model": source.display_name, "fingerprint": source.fingerprint},
        lambda _: loading.load(source.path, dtype=torch.float32)[0],
        source=source,
    )


def count_parameters(model: nn.Module) -> int:
    """The parameters of a model, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _of_blocks(text: str, kind: str, argument: str, teacher: Source) -> Student:
    _check_dense(teacher)
    count = len(teacher.anatomy.blocks)
    try:
        numbers = [int(number) for number in argument.split(",")]
    except ValueError:
        raise UsageError(f"{text}: write every:2, or blocks:0,4,8") from None
    if kind == "every" and len(numbers) != 1:
        raise UsageError(f"{text}: write one number, as in every:2")
    indices = list(spread(count, numbers[0])) if kind == "every" else numbers
    check_rising(text, indices, count)
    identity = {"blocks": indices}
    return Student(text, identity, lambda model: keep_blocks(_check_teacher(model), indices), True)


def _of_channels(text: str, path: Path, teacher: Source) -> Student:
    _check_dense(teacher)
    kept = KeptChannels.read(_read_mapping(path, "a map of kept channels"))
    identity = {"channels": sha256(path)}
    return Student(text, identity, lambda model: keep_channels(_check_teacher(model), kept), True)


def _from_scratch(text: str, path: Path, vocabulary: int, end_id: int | None) -> Student:
    settings = _read_mapping(path, "the shape of a model")
    names = [
        name
        for name, argument in inspect.signature(scratch_model).parameters.items()
        if name not in ("vocabulary", "end_id") and not str(argument.annotation).startswith("type")
    ]
    if unknown := sorted(set(settings) - set(names)):
        raise UsageError(f"{path}: {', '.join(unknown)} is not one of {', '.join(names)}")
    arguments = {"vocabulary": vocabulary, "end_id": end_id, **settings}
    try:
        scratch_model(**arguments)  # says now, and not after hours, whether there is such a shape
    except TypeError as error:
        raise UsageError(f"{path}: {error}") from error
    return Student(text, {"scratch": arguments}, lambda _: scratch_model(**arguments))


def _check_teacher(model: nn.Module | None) -> nn.Module:
    if model is None:
        raise AssertionError("this student is made of its teacher")
    return model


def _check_dense(teacher: Source) -> None:
    if teacher.is_packed:
        raise UsageError(
            f"{teacher.display_name} is compressed: a student of its blocks would have codes that "
            "cannot be trained; give the original as the teacher"
        )


def _read_mapping(path: Path, noun: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadInput(f"{path}, {noun}, cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path} should hold {noun}: keys and values")
    return content


def make_student(student: Student, teacher: nn.Module | None) -> Any:
    """The student in float32, with all its weights to be trained."""
    model = student.make(teacher).float()
    for parameter in model.parameters():
        parameter.requires_grad_()
    return model
