"""What `import featherweight` offers, and what it must not do."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import featherweight as fw

HEAVY = ("torch", "transformers", "numpy", "safetensors", "gguf", "jinja2", "huggingface_hub")


def loaded_after(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after running `code`."""
    show = f"import sys\n{code}\npackages = {{name.split('.')[0] for name in sys.modules}}\n"
    show += "print('\\n' + ' '.join(packages))"
    result = subprocess.run(
        [sys.executable, "-c", show], capture_output=True, text=True, check=True
    )
    return set(result.stdout.splitlines()[-1].split())


def test_import_is_light() -> None:
    assert not loaded_after("import featherweight").intersection(HEAVY)


@pytest.mark.parametrize("name", fw.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(fw, name) is not None
    assert name in dir(fw)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(fw.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname or alias.name
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen | {"__version__"} == set(fw.__all__)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Trelis'"):
        _ = fw.Trelis


def test_shapes_and_types_are_checked_in_tests() -> None:
    from featherweight.base.ledger import bpw_file

    with pytest.raises(TypeError, match="file_bytes"):
        bpw_file("many", 3)
    assert bpw_file(1, 8) == 1.0
