"""How many wrong inputs does it take to crash the native library or the reader of checkpoints?

    python benchmarks/fuzz.py [--quick] [--inputs N] [--folders N] [--seeds S] [--json FILE]

Both parts run on a library built with AddressSanitizer and UndefinedBehaviorSanitizer (see
sanitize.py). The first calls every function of the C ABI with valid calls of which a few fields
were changed (tests/native/fuzz.cpp): sizes, kinds, null pointers, tokens, positions, contents. It
must answer with a status, stay inside its arrays, leak nothing, and give the same bits on every
instruction set. The second reads model folders with spoiled config.json and safetensors bytes
(tests/interchange/hostile_folders.py) and runs those that still are models: every other outcome
must be one of this library's own errors. A finding prints the input that repeats it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from common import Record, main, new_record, parser
from sanitize import MEMORY, ROOT, build, environment, ran

READ = """
import random, sys
from collections import Counter
from pathlib import Path
from tests.interchange import hostile_folders
count, seed, target, *sound = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), *map(Path, sys.argv[4:])
target.mkdir()
for folder in sound:
    hostile_folders.run(folder)
hostile, found = [hostile_folders.Hostile(folder) for folder in sound], Counter()
for number in range(count):
    (target / "input").write_text(f"seed {seed}, number {number}")
    hostile_folders.write(target, *hostile[number % len(hostile)].spoiled(random.Random(seed << 32 | number)))
    try:
        found[hostile_folders.outcome(target)] += 1
    except BaseException:
        print(f"number {number} of seed {seed}", file=sys.stderr)
        raise
print(f"{sum(found.values())} inputs, no crash: {dict(found)}")
"""


def folders(where: Path) -> list[Path]:
    """Sound folders of several families and formats, small enough to be read a thousand times a
    minute.
    """
    sys.path[:0] = [str(ROOT / "tests")]
    import tiny

    import featherweight as fw

    whole = fw.Plan(
        {
            "*embed*": fw.Int(bits=4, group=4),
            "*q_proj": fw.Int(bits=3, symmetric=False),
            "*": fw.Trellis(),
        }
    )
    mixed = fw.Plan(
        {"*embed*": fw.Int(bits=8), "lm_head": fw.Ternary(), "*": fw.Trellis(bits=3, L=14)}
    )
    cases = {
        "llama": (tiny.llama, whole, fw.Hadamard()),
        "gemma3": (tiny.gemma3, whole, None),
        "qwen3": (tiny.qwen3, mixed, fw.Hadamard(output="block64")),
        "plain": (tiny.qwen2, None, None),
    }
    for name, (family, plan, transform) in cases.items():
        model, tokenizer = family()
        if plan is None:
            tiny.save(model, tokenizer, where / name)
        else:
            fw.quantize(model, fw.Nearest(), plan, None, transform=transform)
            fw.save(model, where / name, tokenizer)
    return [where / name for name in cases]


def run(arguments: argparse.Namespace) -> Record:
    record = new_record("fuzz", arguments)
    built, few = build(MEMORY), arguments.quick
    for seed in arguments.seeds:
        inputs = 20_000 if few else arguments.inputs
        said = ran(
            record,
            f"C ABI, seed {seed}",
            [str(built / "fuzz"), "--inputs", str(inputs), "--seed", str(seed)],
        )
        print(said)
        with tempfile.TemporaryDirectory() as scratch:
            command = [
                sys.executable,
                "-c",
                READ,
                str(500 if few else arguments.folders),
                str(seed),
            ]
            command += [str(Path(scratch) / "spoiled"), *map(str, folders(Path(scratch)))]
            print(ran(record, f"model folders, seed {seed}", command, environment(built)))
    return record


if __name__ == "__main__":
    flags = parser(__doc__)
    flags.add_argument(
        "--inputs", type=int, default=1_000_000, metavar="N", help="calls of the C ABI a seed"
    )
    flags.add_argument(
        "--folders", type=int, default=20_000, metavar="N", help="spoiled folders a seed"
    )
    main(run, flags)
