"""Calls the native library and the reader of checkpoints with many wrong inputs, to find crashes.

    python benchmarks/fuzz.py [--quick] [--inputs N] [--folders N] [--seeds S] [--json FILE]

Both parts use a library that is built with AddressSanitizer and UndefinedBehaviorSanitizer (see
sanitize.py). The first part (tests/native/fuzz) takes valid calls of every function of the C ABI
and changes a few fields: sizes, kinds, null pointers, tokens, positions, contents. The library must
return a status, stay inside its arrays, leak no memory, and give the same bits on every instruction
set. The second part reads model folders with corrupt bytes in config.json and safetensors files
(tests/interchange/hostile_folders.py). A folder must either load, and then the model runs, or raise
one of this library's own errors. For each failure, the input that causes it is printed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from common import Record, main, new_record, parser
from sanitize import MEMORY, ROOT, build, environment, run_step

READ = """
import random, sys
from collections import Counter
from pathlib import Path
from tests.interchange import hostile_folders
count, seed = int(sys.argv[1]), int(sys.argv[2])
target, *folders = map(Path, sys.argv[3:])
target.mkdir()
for folder in folders:
    hostile_folders.run(folder)
sources, outcomes = [hostile_folders.Hostile(folder) for folder in folders], Counter()
for number in range(count):
    (target / "input").write_text(f"seed {seed}, number {number}")
    source = sources[number % len(sources)]
    hostile_folders.write(target, *source.spoiled(random.Random(seed << 32 | number)))
    try:
        outcomes[hostile_folders.outcome(target)] += 1
    except BaseException:
        print(f"number {number} of seed {seed}", file=sys.stderr)
        raise
print(f"{sum(outcomes.values())} inputs, no crash: {dict(outcomes)}")
"""


def folders(parent: Path) -> list[Path]:
    """Valid folders of several families and formats. They are so small that a thousand can be read
    in a minute.
    """
    sys.path[:0] = [str(ROOT / "tests")]
    import tiny

    import featherweight as fw

    trellis_2_bits = fw.Plan(
        {
            "*embed*": fw.Int(bits=4, group=4),
            "*q_proj": fw.Int(bits=3, symmetric=False),
            "*": fw.Trellis(),
        }
    )
    trellis_3_bits = fw.Plan(
        {"*embed*": fw.Int(bits=8), "lm_head": fw.Ternary(), "*": fw.Trellis(bits=3, L=14)}
    )
    cases = {
        "llama": (tiny.llama, trellis_2_bits, fw.Hadamard()),
        "gemma3": (tiny.gemma3, trellis_2_bits, None),
        "qwen3": (tiny.qwen3, trellis_3_bits, fw.Hadamard(output="block64")),
        "plain": (tiny.qwen2, None, None),
    }
    for name, (family, plan, transform) in cases.items():
        model, tokenizer = family()
        if plan is None:
            tiny.save(model, tokenizer, parent / name)
        else:
            fw.quantize(model, fw.Nearest(), plan, None, transform=transform)
            fw.save(model, parent / name, tokenizer)
    return [parent / name for name in cases]


def run(arguments: argparse.Namespace) -> Record:
    record = new_record("fuzz", arguments)
    library = build(MEMORY)
    num_inputs = 20_000 if arguments.quick else arguments.inputs
    num_folders = 500 if arguments.quick else arguments.folders
    for seed in arguments.seeds:
        command = [str(library / "fuzz"), "--inputs", str(num_inputs), "--seed", str(seed)]
        print(run_step(record, f"C ABI, seed {seed}", command))
        with tempfile.TemporaryDirectory() as scratch:
            command = [sys.executable, "-c", READ, str(num_folders), str(seed)]
            command += [str(Path(scratch) / "hostile"), *map(str, folders(Path(scratch)))]
            print(run_step(record, f"model folders, seed {seed}", command, environment(library)))
    return record


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument(
        "--inputs", type=int, default=1_000_000, metavar="N", help="calls of the C ABI a seed"
    )
    options.add_argument(
        "--folders", type=int, default=20_000, metavar="N", help="corrupt folders a seed"
    )
    main(run, options)
