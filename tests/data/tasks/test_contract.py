"""Every task: prompts and choices as lm-evaluation-harness writes them, graders that are right, and
clear errors for files that are not.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from tests.data.tasks.rows import RIGHT, ROWS, WRONG, make_task, write_rows

from featherweight.base.errors import BadInput, Unsupported, UsageError
from featherweight.data import tasks

every_task = pytest.mark.parametrize("name", tasks.__all__)
PROMPTS = {
    "ARCEasy": ("Question: What is cold?\nAnswer:", ("ice", "steam")),
    "ARCChallenge": ("Question: What is wet?\nAnswer:", ("rain", "sand")),
    "BoolQ": ("It rains.\nQuestion: is it wet?\nAnswer:", ("no", "yes")),
    "PIQA": ("Question: cool tea\nAnswer:", ("add ice", "add sand")),
    "OpenBookQA": ("Ice is", ("cold", "hot")),
    "CommonsenseQA": ("Question: What is cold?\nA. ice\nB. steam\nAnswer:", ("A", "B")),
    "COPA": ("It rained therefore", (" it was wet.", " it was dry.")),
    "LAMBADA": ("She opened the old", ("door",)),
    "GSM8K": ("Question: 1,000 and 80?\nAnswer:", ()),
    "HumanEval": (ROWS["HumanEval"][0]["prompt"], ()),
    "IFEval": ("Write two words without commas.", ()),
}


@every_task
def test_graders_accept_gold_answers(name: str, tmp_path: Path) -> None:
    task = make_task(name, tmp_path)
    for index, example in enumerate(task.examples()):
        for answer in (*task.golds(example), *(RIGHT.get(name, ()) if index == 0 else ())):
            assert task.grade(example, answer) == 1, (example, answer)


@every_task
def test_graders_refuse_perturbed_answers(name: str, tmp_path: Path) -> None:
    task = make_task(name, tmp_path)
    example = next(iter(task.examples()))
    for answer in WRONG[name]:
        assert task.grade(example, answer) == 0, answer


@every_task
def test_prompts_and_choices(name: str, tmp_path: Path) -> None:
    task = make_task(name, tmp_path)
    example = next(iter(task.examples()))
    if name in PROMPTS:
        assert (task.prompt(example), task.choices(example)) == PROMPTS[name]
    assert bool(task.choices(example)) == (task.kind != "generation")
    assert tasks.BY_NAME[task.name] is type(task)


@every_task
def test_difficulties_and_traces(name: str, tmp_path: Path) -> None:
    task = make_task(name, tmp_path)
    example = next(iter(task.examples()))
    level = task.difficulty(example)
    assert (level is not None) == (name in ("Arithmetic", "GSM8K", "OpChain", "ReasoningGym"))
    if name in ("Arithmetic", "GSM8K", "OpChain"):
        assert task.grade(example, task.trace(example, 0)) == 1
        assert task.trace(example, 0) == task.trace(example, 0)
        assert len({task.trace(example, seed) for seed in range(20)}) > 3
    else:
        with pytest.raises(Unsupported, match=f"{task.name} has no worked solutions"):
            task.trace(example, 0)


@pytest.mark.parametrize("name", [name for name in ROWS if len(ROWS[name]) == 2])
def test_published_rows_are_read_too(name: str, tmp_path: Path) -> None:
    task = make_task(name, tmp_path)
    first, second = list(task.examples())
    assert task.golds(first) == task.golds(second)
    if task.choices(first) == task.choices(second):
        assert task.prompt(first) == task.prompt(second)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_rows_without_answers_are_refused(name: str, tmp_path: Path) -> None:
    names = ("gold", "answerKey", "label", "word", "continuation", "answer", "test")
    row = {k: v for k, v in ROWS[name][0].items() if k not in (*names, "instruction_id_list")}
    file = write_rows(tmp_path / "rows.jsonl", [ROWS[name][0], row])
    settings = {"run_code": True} if name == "HumanEval" else {}
    task = getattr(tasks, name)(file, **settings)
    with pytest.raises(BadInput, match="rows.jsonl, line 2"):
        list(task.examples())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gold": 2}, "index of one of 2 choices, and is 2"),
        ({"gold": True}, "index of one of 2"),
        ({"gold": "A"}, "index of one of 2"),
        ({"choices": ["ice"]}, "at least two texts"),
        ({"choices": "ice"}, "at least two texts"),
        ({"choices": ["ice", 3]}, "at least two texts"),
        ({"query": " "}, "query should be text"),
    ],
)
def test_bad_choices_are_refused(change: dict, message: str, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", [ROWS["ARCEasy"][0] | change])
    with pytest.raises(BadInput, match=f"line 1: .*{message}"):
        list(tasks.ARCEasy(file).examples())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no examples"),
        (b"{", "line 1: not JSON"),
        (b"[1]", "line 1: expected a JSON object"),
        (b"\xff", "not UTF-8"),
        (gzip.compress(b'{"a": 1}', mtime=0)[:-5], "not a whole gzip file"),
    ],
)
def test_bad_files_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(content)
    with pytest.raises(BadInput, match=message):
        list(tasks.ARCEasy(file).examples())
    with pytest.raises(BadInput, match="cannot be read"):
        list(tasks.ARCEasy(tmp_path / "none.jsonl").examples())
    with pytest.raises(UsageError, match="no split 'train'; it has test"):
        list(tasks.ARCEasy(file).examples("train"))


def test_gsm8k_shots_and_rules(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "test.jsonl", ROWS["GSM8K"])
    train = write_rows(
        tmp_path / "train.jsonl", [{"question": f"{i}?", "answer": f"#### {i}"} for i in range(3)]
    )
    task = tasks.GSM8K(file, train, shots=2)
    example = next(iter(task.examples()))
    solved = "Question: 0?\nAnswer: #### 0\n\nQuestion: 1?\nAnswer: #### 1\n\n"
    assert task.prompt(example) == f"{solved}Question: 1,000 and 80?\nAnswer:"
    strict = tasks.GSM8K(file, rule="strict")
    answers = ("1080", "#### 1080 or 7", "it is #### 1,080.")
    assert [strict.grade(example, answer) for answer in answers] == [0, 1, 1]
    with pytest.raises(UsageError, match="needs a train_file"):
        tasks.GSM8K(file, shots=5)
    with pytest.raises(UsageError, match="one of flexible, strict, number"):
        tasks.GSM8K(file, rule="loose")
    with pytest.raises(UsageError, match="file for the split 'train'"):
        list(tasks.GSM8K(file).examples("train"))
