"""What do llama.cpp's own files of SmolLM2-135M cost in KL, beside our packed folders?

    python benchmarks/gguf_quality.py --folder ours-2-fast=PATH --folder ours-3-fast=PATH [--quick]

llama-quantize writes every kind of file from the same float32 weights, without and with an
importance matrix. That matrix is made from the calibration text that featherweight uses
(`importance.py`). Each file is read by featherweight's own GGUF reader into the original's module
and compared with the original: KL and perplexity over windows of 1,024 tokens of WikiText-2 test.
The float32 file goes the same way first, as the control: its KL must be 0 up to the float16 in
which the original's logits are kept. `--folder NAME=PATH`, repeated, adds packed folders.

`--preset` names what is measured: `all`, `theirs` (the files) or `ours` (the folders). All presets
write the same record, so that folders can be added to a record that holds the files. A kind that
llama-quantize refuses is a row with its error. Many of its types need rows of 256 weights, and
SmolLM2's rows of 576 are none, so that most matrices fall back to a wider type. `types` counts the
types of all matrices of the file. llama.cpp's Q2_0 does not look at an importance matrix, so that
its two rows are equal.

The original is the bundled one: the published model as a file of 4-bit codes holds it. The checks
compare with figures that were measured before, and by others; each says whether its figure is
reproduced within 5 %. A figure whose row is absent is listed in `meta.not_measured`.
"""

from __future__ import annotations

import argparse
import copy
import math
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import Record, main, new_record, parser
from importance import write_importance
from originals import original_answers
from peers import Build, build, float_file, quantized_file

from featherweight import data
from featherweight.base.errors import FeatherweightError
from featherweight.base.ledger import bpw_file
from featherweight.evaluation import KL, Perplexity, evaluate
from featherweight.interchange import loading
from featherweight.interchange.gguf.convert import model_tensors
from featherweight.interchange.gguf.file import GGUFFile
from featherweight.models import families
from featherweight.models.anatomy import Anatomy
from featherweight.models.tensors import TensorFolder
from featherweight.quantization.layers import keep_decoded

MODEL = "SmolLM2-135M-Instruct"
PRESETS = ("all", "theirs", "ours")
CALIBRATION_COUNT, CALIBRATION_LENGTH = 256, 256
# An original's answers in float16 cost 3e-6 (`models/answers/kinds.py`).
CONTROL_KL = 1e-5
TOLERANCE, SIZE_TOLERANCE = 0.05, 0.005


@dataclass(frozen=True)
class Kind:
    """What llama-quantize is asked for: a type, in every matrix when `pure`, and a table type."""

    name: str
    pure: bool = False
    table: str | None = None

    @property
    def file(self) -> str:
        table = "" if self.table is None else f", table {self.table}"
        return f"{self.name}{' in every matrix' if self.pure else ''}{table}"


KINDS = (
    Kind("Q4_0", pure=True),
    Kind("Q2_0", table="Q8_0"),
    Kind("Q2_K", pure=True),
    Kind("Q2_K"),
    Kind("Q4_K_M"),
    Kind("IQ4_NL", pure=True),
    Kind("Q3_K_S"),
    Kind("IQ2_XXS", pure=True),
    Kind("IQ2_XXS"),
)
QUICK_KINDS = 2


@dataclass(frozen=True)
class Target:
    """A figure that is to be reproduced: of which row, by whom, and what it says."""

    file: str
    claim: str
    megabytes: float
    kl: float


JUDGE = "an independent judge, without an importance matrix"
TARGETS = (
    Target("Q4_0 in every matrix", f"{JUDGE}: Q4_0 in every matrix 75.8 MB .359", 75.8, 0.359),
    Target("Q2_K in every matrix", f"{JUDGE}: Q2_K with its fallbacks 69.6 MB 1.85", 69.6, 1.85),
    Target("Q2_0, table Q8_0", f"{JUDGE}: Q2_0 with a Q8_0 table 60.1 MB 12.2", 60.1, 12.2),
    Target("ours-2-fast", "ours at 2 bits, fast, 4-bit table: 42.1 MB .758", 42.1, 0.758),
    Target("ours-3-fast", "ours at 3 bits, fast: 68.8 MB .164", 68.8, 0.164),
    Target("ours-3-balanced", "ours at 3 bits, balanced: 68.8 MB .129", 68.8, 0.129),
    Target("ours-int4", "ours in int4: 75.0 MB .0875", 75.0, 0.0875),
)


class Bench:
    """The original, its logits, and llama.cpp's files of it."""

    def __init__(self, folder: Path, windows: int, calibration_count: int, seed: int) -> None:
        self.folder = folder
        self.calibration_count, self.seed = calibration_count, seed
        self.model, self.tokenizer = loading.load(MODEL)
        self.windows = data.windows(self.tokenizer, data.text("wikitext2_test"), 1024, windows)
        self.teacher = original_answers(
            self.model, self.tokenizer, self.windows, folder / "answers", MODEL
        )
        self.num_parameters = Anatomy.of(self.model).num_parameters
        # Filled anew from each file.
        self._light = copy.deepcopy(self.model)

    def importance(self) -> Path:
        """The importance matrix, written once into the folder."""
        path = self.folder / f"imatrix-{self.calibration_count}-{self.seed}.gguf"
        if not path.exists():
            tokens = data.calibration(
                self.tokenizer, self.calibration_count, CALIBRATION_LENGTH, self.seed
            ).tokens
            write_importance(self.model, tokens, path)
        return path

    def quantized(self, programs: Build, kind: Kind, with_importance: bool) -> Path:
        importance = self.importance() if with_importance else None
        options = {"table": kind.table, "importance": importance}
        return quantized_file(programs, MODEL, self.folder, kind.name, kind.pure, **options).path

    def measure_file(self, path: Path) -> dict[str, Any]:
        """The row of a GGUF file of the model."""
        file = GGUFFile(path)
        family = families.find_gguf(file.values["general.architecture"])
        parameters = self._light.state_dict()
        with torch.no_grad():
            for tensor in model_tensors(file, family, self.model.config):
                parameters[tensor.name].copy_(tensor.read())
        types = Counter(info.storage.name for info in file.tensors.values() if len(info.shape) > 1)
        text = ", ".join(f"{count} {type_}" for type_, count in types.most_common())
        return self._size(path.stat().st_size) | self._quality(self._light) | {"types": text}

    def measure_folder(self, path: Path) -> dict[str, Any]:
        """The row of a packed folder of the model."""
        light, _ = loading.load(path)
        with keep_decoded(light):
            return self._size(TensorFolder(path).file_bytes) | self._quality(light)

    def _size(self, num_bytes: int) -> dict[str, Any]:
        return {"mb": num_bytes / 1e6, "bits": bpw_file(num_bytes, self.num_parameters)}

    def _quality(self, light: Any) -> dict[str, Any]:
        start = time.monotonic()
        metrics = [Perplexity(self.windows), KL(self.teacher, self.windows)]
        quality = evaluate(light, metrics).quality
        kl, ratio = quality["kl"], quality["perplexity_ratio"]
        return {
            "kl": kl["mean"],
            "kl_low": kl["low"],
            "kl_high": kl["high"],
            "perplexity_ratio": ratio["mean"],
            "ratio_low": ratio["low"],
            "ratio_high": ratio["high"],
            "top1": quality["top1"]["mean"],
            "kl_windows": quality["kl_windows"],
            "seconds": round(time.monotonic() - start, 1),
        }


def run(arguments: argparse.Namespace) -> Record:
    windows = 2 if arguments.quick else 16
    calibration_count = 16 if arguments.quick else CALIBRATION_COUNT
    settings = {"model": MODEL, "windows": windows, "length": 1024}
    settings |= {"calibration": [calibration_count, CALIBRATION_LENGTH], "quick": arguments.quick}
    record = new_record(
        "KL of llama.cpp's files and of our folders, SmolLM2-135M",
        arguments,
        num_seeds=1,
        key=("file", "imatrix"),
        settings=settings,
    )
    record.resume()
    folder = arguments.folder_of_files
    folder = folder or Path(tempfile.mkdtemp(prefix="featherweight-gguf-quality-"))
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, windows, calibration_count, record.seeds[0])
    if arguments.preset != "ours":
        add_files(record, bench, KINDS[: QUICK_KINDS if arguments.quick else None])
    if arguments.preset != "theirs":
        for name, path in arguments.folder:
            add_row(record, bench.measure_folder, lambda path=path: path, name, None)
    judge(record, arguments.quick)
    return record


def add_files(record: Record, bench: Bench, kinds: tuple[Kind, ...]) -> None:
    """The control, and two rows for each kind: without and with the importance matrix."""
    programs = build()
    record.facts["llama"] = programs.facts
    path = float_file(MODEL, bench.folder).path
    add_row(record, bench.measure_file, lambda: path, "F32, the control", "no")
    for kind in kinds:
        for imatrix in ("no", "yes"):
            add_row(
                record,
                bench.measure_file,
                lambda kind=kind, imatrix=imatrix: bench.quantized(
                    programs, kind, imatrix == "yes"
                ),
                kind.file,
                imatrix,
            )


def add_row(
    record: Record,
    measure: Callable[[Path], dict[str, Any]],
    find: Callable[[], Path],
    file: str,
    imatrix: str | None,
) -> None:
    """Measure what `find` gives unless the record has it; a failure is a row with its error."""
    if record.find(file=file, imatrix=imatrix) is not None:
        return
    try:
        figures = measure(find())
    except subprocess.CalledProcessError as error:
        figures = {"error": f"llama-quantize: {reason(error.stderr)}"}
    except FeatherweightError as error:
        figures = {"error": str(error)}
    record.add(file=file, imatrix=imatrix, **figures)


def reason(stderr: str) -> str:
    """Why llama-quantize failed, in its words."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    failures = [line for line in lines if "failed to quantize:" in line]
    return (failures or lines or ["it says nothing"])[-1]


def judge(record: Record, quick: bool) -> None:
    """The control, that an importance matrix helps, and the figures to be reproduced."""
    control = _kl(record, "F32, the control", "no")
    if control is not None:
        record.check("KL of the float32 file, read back", control, at_most=CONTROL_KL)
    name = KINDS[0].file
    without, with_importance = (_kl(record, name, imatrix) for imatrix in ("no", "yes"))
    if without is not None and with_importance is not None:
        ratio = with_importance / without
        record.check(f"{name}: KL with an importance matrix over that without", ratio, at_most=1.0)
    if quick:
        record.facts["not_measured"] = [target.claim for target in TARGETS]
        return
    record.facts["not_measured"] = []
    for target in TARGETS:
        row = _row(record, target.file)
        if row is None:
            record.facts["not_measured"].append(target.claim)
            continue
        for unit, value, figure, tolerance in (
            ("KL", row.get("kl"), target.kl, TOLERANCE),
            ("MB", row.get("mb"), target.megabytes, SIZE_TOLERANCE),
        ):
            record.check(
                f"{target.claim}; {unit} here, within {100 * tolerance:g} %",
                math.nan if value is None else value,
                at_least=figure * (1 - tolerance),
                at_most=figure * (1 + tolerance),
            )


def _kl(record: Record, file: str, imatrix: str | None) -> float | None:
    row = record.find(file=file, imatrix=imatrix)
    return None if row is None else row.get("kl")


def _row(record: Record, file: str) -> dict[str, Any] | None:
    """The row without an importance matrix: of our folder, or of their file."""
    rows = (record.find(file=file, imatrix=imatrix) for imatrix in (None, "no"))
    return next((row for row in rows if row is not None), None)


def named_folder(text: str) -> tuple[str, Path]:
    """NAME=PATH as a name and the packed folder there."""
    name, separator, path = text.partition("=")
    if not name or not separator or not (Path(path) / "config.json").is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH of a packed folder")
    return name, Path(path)


if __name__ == "__main__":
    flags = parser(__doc__, PRESETS)
    flags.add_argument(
        "--folder",
        type=named_folder,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a packed folder of ours; the names ours-2-fast, ours-3-fast, ours-3-balanced and "
        "ours-int4 have figures to compare with",
    )
    flags.add_argument(
        "--folder-of-files",
        type=Path,
        metavar="FOLDER",
        help="where llama.cpp's files and the original's logits are kept between runs",
    )
    main(run, flags)
