"""The house stands: imports go down only, nothing is circular, and no file or function has grown
too large.

FLOORS is the one table of who stands on whom. Every import statement counts, also one inside a
function; only the roof (`featherweight/__init__.py`) may look into every room. Modules of one room
may use each other as long as no circle arises; two rooms on one floor may not.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import lizard
import pytest

FLOORS = {
    "base": 0,
    "ops": 1,
    "reporting": 1,
    "models": 2,
    "data": 2,
    "training": 3,
    "quantization.layouts": 4.00,
    "quantization.formats": 4.01,
    "quantization.curvature": 4.02,
    "quantization.rounding": 4.03,
    "quantization.transforms": 4.04,
    "quantization.estimators": 4.05,
    "quantization.layers": 4.06,
    "quantization.plans": 4.07,
    "quantization.recipes": 4.08,
    "quantization.pipeline": 4.09,
    "quantization.gating": 4.10,
    "quantization.allocation": 4.10,
    "quantization.recovery": 4.10,
    "quantization.evidence": 4.11,
    "quantization": 4.12,
    "attention": 5,
    "inference": 5,
    "evaluation": 6,
    "distillation": 7,
    "pruning": 7,
    "outliers": 7,
    "reasoning": 7,
    "profiling": 7,
    "diffusion": 7,
    "games": 7,
    "budget": 8,
    "studies": 9,
    "interchange": 10,
    "serving": 11,
    "workflows": 12,
    "cli": 13,
    "__main__": 14,
}
ROOF = "featherweight"
ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / ROOF
FORBIDDEN = {"utils", "util", "helpers", "misc", "common", "legacy", "experimental"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
CPP_SUFFIXES = {".cpp", ".h", ".inc"}

Graph = dict[str, dict[str, int]]


def modules(source: Path) -> dict[str, Path]:
    """Dotted name, starting with the package's, of every module under `source`."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = [ROOF, *path.relative_to(source).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(source: Path) -> Graph:
    """For every module but the roof: the modules of ours that it imports, and in which line."""
    known = modules(source)
    return {name: dict(_targets(name, path, known)) for name, path in known.items() if name != ROOF}


def _targets(name: str, path: Path, known: dict[str, Path]) -> Iterator[tuple[str, int]]:
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == ROOF:
                    yield _module(alias.name, known), node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            if target.split(".")[0] == ROOF:
                for alias in node.names:
                    yield _module(f"{target}.{alias.name}", known), node.lineno


def _module(name: str, known: dict[str, Path]) -> str:
    """`name` itself when it is a module, else what holds it; a module that does not exist keeps its
    name.
    """
    if name in known:
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in known else name


def room(module: str) -> str:
    """The longest entry of FLOORS that `module` lies in; the roof and unknown rooms are named as
    they are.
    """
    parts = module.split(".")[1:]
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in FLOORS:
            return ".".join(parts[:length])
    return ".".join(parts[:1]) or ROOF


def upward(graph: Graph) -> list[str]:
    """Every import that does not go down, in words."""
    wrong = []
    for module, targets in graph.items():
        if room(module) not in FLOORS:
            wrong.append(f"{module}: room {room(module)!r} has no floor in {Path(__file__).name}")
            continue
        for target, line in targets.items():
            here, there = room(module), room(target)
            if here != there and FLOORS[here] <= FLOORS.get(there, float("inf")):
                wrong.append(
                    f"{module}:{line} (floor {FLOORS[here]}) imports {target} "
                    f"(floor {FLOORS.get(there)})"
                )
    return wrong


def circles(graph: Graph) -> list[str]:
    """One line for every circle of imports, each found once."""
    state: dict[str, int] = {}
    found: list[str] = []

    def visit(module: str, path: list[str]) -> None:
        state[module] = 1
        for target in graph.get(module, {}):
            if target == module or state.get(target) == 1:
                start = path.index(target) if target in path else len(path) - 1
                found.append(" -> ".join([*path[start:], target]))
            elif target not in state:
                visit(target, [*path, target])
        state[module] = 2

    for module in graph:
        if module not in state:
            visit(module, [module])
    return found


def functions(path: Path, text: str) -> Iterator[tuple[str, int, int]]:
    """Name, first line and number of lines of every function of a Python or C++ file."""
    if path.suffix in CPP_SUFFIXES:
        # lizard chooses the language by the suffix and does not know .inc.
        for function in lizard.analyze_file.analyze_source_code("source.cpp", text).function_list:
            yield function.name, function.start_line, function.end_line - function.start_line + 1
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1


def too_large(folders: list[Path]) -> list[str]:
    """Python and C++ files and functions over their limits, in words."""
    wrong = []
    paths = (path for folder in folders for path in sorted(folder.rglob("*")))
    for path in (path for path in paths if path.suffix in {".py", *CPP_SUFFIXES}):
        text = path.read_text(encoding="utf-8")
        name = path.name if path.parent == path.parents[-1] else f"{path.parent.name}/{path.name}"
        if text.count("\n") > MAX_FILE_LINES:
            wrong.append(f"{name}: {text.count(chr(10))} lines, more than {MAX_FILE_LINES}")
        for function, line, length in functions(path, text):
            if length > MAX_FUNCTION_LINES:
                wrong.append(
                    f"{name}:{line} {function} has {length} lines, more than {MAX_FUNCTION_LINES}"
                )
    return wrong


def test_imports_go_down() -> None:
    assert "\n".join(upward(imports(SOURCE))) == ""


def test_no_circles() -> None:
    assert "\n".join(circles(imports(SOURCE))) == ""


def test_nothing_is_too_large() -> None:
    folders = [SOURCE, *(ROOT / name for name in ("native", "tests", "benchmarks", "examples"))]
    assert "\n".join(too_large(folders)) == ""


def test_no_forbidden_names() -> None:
    names = [path for path in SOURCE.rglob("*") if path.stem.strip("_") in FORBIDDEN]
    assert names == []


def test_every_module_opens_with_its_idea() -> None:
    bare = [
        name
        for name, path in modules(SOURCE).items()
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert bare == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the house to plant faults in."""
    return shutil.copytree(
        SOURCE, tmp_path / ROOF, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.gz")
    )


@pytest.mark.parametrize(
    ("file", "planted"),
    [
        ("base/ledger.py", "from ..cli import main"),
        ("base/ledger.py", "def late():\n    from ..workflows import doctor"),
        ("base/ledger.py", "import featherweight"),
        ("ops/__init__.py", "import featherweight.models.structure"),
        ("quantization/formats/base.py", "from ..rounding import YAQA"),
        (
            "quantization/formats/base.py",
            "from featherweight.quantization.pipeline import quantize",
        ),
        ("workflows/doctor.py", "from .. import __version__"),
        ("models/__init__.py", "from ..data import calibration"),
    ],
)
def test_a_planted_upward_import_is_found(copy: Path, file: str, planted: str) -> None:
    path = copy / file
    path.parent.mkdir(parents=True, exist_ok=True)
    before = upward(imports(copy))
    with open(path, "a", encoding="utf-8") as handle:
        handle.write(f"\n{planted}\n")
    assert len(upward(imports(copy))) > len(before)


def test_a_planted_circle_is_found(copy: Path) -> None:
    with open(copy / "base" / "errors.py", "a", encoding="utf-8") as handle:
        handle.write("\nfrom .files import sha256\n")
    assert any("base.errors" in circle for circle in circles(imports(copy)))


def test_a_room_without_a_floor_is_found(copy: Path) -> None:
    (copy / "attic").mkdir()
    (copy / "attic" / "__init__.py").write_text('"""An attic."""\n')
    assert any("attic" in line for line in upward(imports(copy)))


def test_a_long_function_is_found(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text("def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES)
    (tmp_path / "tall.py").write_text("x = 1\n" * (MAX_FILE_LINES + 1))
    assert len(too_large([tmp_path])) == 2


@pytest.mark.parametrize("suffix", sorted(CPP_SUFFIXES))
def test_a_long_cpp_function_is_found(tmp_path: Path, suffix: str) -> None:
    body = "    ++x;\n" * (MAX_FUNCTION_LINES - 2)
    template = "template <int N>\nvoid long_function(int x) {{\n{}}}\n"
    (tmp_path / f"planted{suffix}").write_text(template.format(body))
    assert too_large([tmp_path]) == []
    (tmp_path / f"planted{suffix}").write_text(template.format(body + "    ++x;\n"))
    assert ["long_function" in line for line in too_large([tmp_path])] == [True]
    (tmp_path / f"planted{suffix}").write_text("int x;\n" * (MAX_FILE_LINES + 1))
    assert len(too_large([tmp_path])) == 1
