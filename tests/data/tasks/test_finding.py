"""Tasks by name: files that are given or found in a folder, settings, and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.tasks.rows import ROWS, write_rows

from featherweight.base.errors import BadInput, UsageError
from featherweight.data import tasks
from featherweight.data.tasks import BY_NAME, find_tasks, settings_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one task file, and two more in a folder inside."""
    write_rows(tmp_path / "lambada_openai.jsonl", ROWS["LAMBADA"])
    (tmp_path / "math").mkdir()
    write_rows(tmp_path / "math" / "gsm8k_test.jsonl", ROWS["GSM8K"])
    write_rows(tmp_path / "math" / "gsm8k_train.jsonl", ROWS["GSM8K"])
    return tmp_path


def test_files_are_given_or_found(folder: Path, tmp_path: Path) -> None:
    easy = write_rows(tmp_path / "mine.jsonl", ROWS["ARCEasy"])
    text = f"arc_easy={easy}, lambada,gsm8k(shots=1, rule='strict'),op_chain(count=3)"
    found = find_tasks(text, BY_NAME, folder)
    math = folder / "math"
    assert found == [
        tasks.ARCEasy(easy),
        tasks.LAMBADA(folder / "lambada_openai.jsonl"),
        tasks.GSM8K(math / "gsm8k_test.jsonl", math / "gsm8k_train.jsonl", 1, "strict"),
        tasks.OpChain(count=3),
    ]
    assert tasks.settings_of(found[2]) == {"shots": 1, "rule": "strict"}
    assert set(tasks.files_of(found[2])) == {"file", "train_file"}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", UsageError, "no task"),
        ("arc", UsageError, "no task is called 'arc'; did you mean"),
        ("arc_easy", BadInput, "no file for arc_easy: arc_easy.jsonl"),
        ("arc_easy=none.jsonl", BadInput, "none.jsonl of arc_easy does not exist"),
        ("lambada,lambada", UsageError, "named twice"),
        ("gsm8k(shot=1)", UsageError, "did you mean 'shots'"),
        ("gsm8k(file='x')", UsageError, "no field 'file'"),
        ("op_chain=x.jsonl", UsageError, "reads no file"),
        ("op_chain(longest=11)", UsageError, "1 to 10 operations"),
        ("op_chain((", UsageError, "write names, separated by commas"),
    ],
)
def test_what_cannot_be_found(folder: Path, text: str, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        find_tasks(text, BY_NAME, folder)


def test_without_a_folder() -> None:
    with pytest.raises(UsageError, match="--tasks lambada=FILE, or --task-data FOLDER"):
        find_tasks("lambada", BY_NAME)
    with pytest.raises(BadInput, match="is no folder"):
        find_tasks("lambada", BY_NAME, Path("missing"))


def test_settings_may_hold_a_tuple() -> None:
    text = 'arithmetic(kinds=("chain_sum", "gcd"), count=3),op_chain(count=5)'
    first, second = find_tasks(text, BY_NAME)
    assert settings_of(first)["kinds"] == ("chain_sum", "gcd") and second.name == "op_chain"
