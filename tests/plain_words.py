"""How many names in the source are participles, adverbs and the like, which say nothing of what a
value is.

    python tests/plain_words.py [FOLDER] [--list]      the share of such bindings; the list of them

A binding is a place where Python gives a name to something: an assignment, a loop variable, an
attribute that is set, a parameter, a function, a class, an alias of an import or of an exception.
A name counts when every one of its words is in the lists below: `found`, `_known` and
`left_over` count, `matched_names` and `num_found` do not. Words that end in -ed or -ing are
participles unless they are nouns of the field (`embedding`, `seed`).
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PARTICIPLES = """
    asked become been begun bent born bought bound broken brought built caught chosen come done
    drawn driven eaten fallen felt found frozen given gone got gotten grown had heard held hidden
    kept known laid learnt left lent lost made meant met paid rebuilt said seen sent shaken shown
    shut sought spent spoken spread stolen stood struck sworn taken taught thought thrown told
    torn understood undone upset woken worn written wrong
"""
ADVERBS = """
    about above abroad across after again ahead alike almost alone along already also always among
    anew apart around aside away before behind below beneath beside besides between beyond both
    each either else elsewhere enough even ever every everything everywhere except far few fewer
    forth from further hence here how inside instead into just later least less likewise many
    maybe mine more most much near nearer neither never now often once only onto other others
    otherwise ours outside over own per perhaps quite rather same several since so some somewhere
    soon still such than that theirs then there therefore these thing things this those through
    thus till together too toward under until upon very what when where whether which while who
    whole whose why with within without yet
"""
ADJECTIVES = """
    alive broad certain coarse different equal every fresh gone large plain ready rest safe short
    single sure wide wrong
"""
# Nouns, verbs and terms of the field that only look like participles or adverbs.
NOUNS = """
    apply assembly batching bed beginning being binding breed building ceiling clipping
    dampening damping drawing embed embedding encoding ending family feed finding gating heading
    hidden hundred ing king listing logging mapping meaning multiply need opening packing
    padding profiling pruning reading red reply reporting ring rounding sampling scaling scoring
    seed serving setting shed sibling smoothing spacing speed spring string supply thing timing
    marking saving shortening thinking thought tracing training tying warning weighting wiring
"""
VAGUE = {*PARTICIPLES.split(), *ADVERBS.split(), *ADJECTIVES.split()}
CLEAR = set(NOUNS.split())


def bindings(tree: ast.AST) -> Iterator[str]:
    """Every name that `tree` binds, once for each place."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name


def is_vague(name: str) -> bool:
    """Whether every word of `name` is a participle, an adverb or the like."""
    words = [word for word in re.split(r"[_\d]+", _snake(name).lower()) if word]
    return bool(words) and all(map(_is_vague_word, words))


def _is_vague_word(word: str) -> bool:
    if word in CLEAR:
        return False
    return word in VAGUE or (len(word) > 3 and word.endswith(("ed", "ing", "ly")))


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)


def count(folder: Path) -> tuple[Counter[str], int]:
    """(vague names with how often each is bound, number of all bindings) in the Python files under
    `folder`.
    """
    names = Counter(
        name
        for path in sorted(folder.rglob("*.py"))
        for name in bindings(ast.parse(path.read_text()))
    )
    return Counter({name: times for name, times in names.items() if is_vague(name)}), sum(
        names.values()
    )


def main() -> None:
    """Print the share, and with --list the names."""
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    folder = Path(arguments[0]) if arguments else Path(__file__).parents[1] / "src"
    vague, total = count(folder)
    num = sum(vague.values())
    print(
        f"{num} of {total} bindings in {folder} are participles, adverbs and the like: "
        f"{100 * num / total:.2f} %"
    )
    if "--list" in sys.argv:
        print(", ".join(f"{name} {times}" for name, times in vague.most_common()))


if __name__ == "__main__":
    main()
