"""Where: which format each matrix of a model gets.

A plan maps patterns on module names (`fnmatch` globs, as in the shell) to formats; the first
pattern that matches a name decides, and `None` leaves the matrix in the model's own dtype. Every
matrix must be decided and every pattern must decide something: a typing error is an error before
the work, not a layer that was silently skipped.

    Plan({"lm_head": Int(bits=8), "*.mlp.down_proj": Trellis(bits=3), "*": Trellis(bits=2)})

A head that shares the embedding's table is a second name of that table, so `lm_head` above also
finds it in a model whose head is tied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from ..base.errors import BadInput, UsageError
from .formats.base import Format

SHOWN_ERRORS = 5


@dataclass(frozen=True)
class Plan:
    """Patterns in order of precedence, each with the format of what it matches (None: left as it
    is).

    `defaults` names patterns that nobody typed (a preset's): they may be overridden whole without
    an error.
    """

    patterns: Mapping[str, Format | None]
    defaults: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.patterns:
            raise UsageError('an empty plan compresses nothing; try Plan({"*": Trellis(bits=2)})')
        for pattern, format in self.patterns.items():
            if not isinstance(pattern, str) or not (format is None or isinstance(format, Format)):
                raise UsageError(
                    f"a plan maps patterns to formats or None, not {pattern!r} to {format!r}"
                )
        object.__setattr__(self, "patterns", dict(self.patterns))

    def __repr__(self) -> str:
        return f"Plan({dict(self.patterns)!r})"

    def assign(
        self, shapes: Mapping[str, tuple[int, int]], tied: Mapping[str, str] | None = None
    ) -> dict[str, Format]:
        """Name -> format of every matrix to compress, in the order of `shapes` (name -> (outputs,
        inputs)).

        `tied` maps second names to names in `shapes` ({"lm_head": "model.embed_tokens"}). Matrices
        whose pattern says None are not in the answer; `left` lists them. Raises BadInput when the
        model has no matrices, UsageError when a pattern matches nothing or can never apply, when a
        matrix matches no pattern, or when formats cannot hold their matrices (all of these at
        once).
        """
        chosen = self.decide(shapes, tied)
        assigned = {
            name: format
            for name, pattern in chosen.items()
            if (format := self.patterns[pattern]) is not None
        }
        problems = []
        for name, format in assigned.items():
            try:
                format.check(shapes[name], name)
            except UsageError as error:
                problems.append(str(error))
        if problems:
            more = (
                [f"and {len(problems) - SHOWN_ERRORS} more"] if len(problems) > SHOWN_ERRORS else []
            )
            raise UsageError("; ".join(problems[:SHOWN_ERRORS] + more))
        return assigned

    def left(
        self, shapes: Mapping[str, tuple[int, int]], tied: Mapping[str, str] | None = None
    ) -> list[str]:
        """Names of the matrices that stay in the model's dtype."""
        return [
            name
            for name, pattern in self.decide(shapes, tied).items()
            if self.patterns[pattern] is None
        ]

    def decide(
        self, shapes: Mapping[str, tuple[int, int]], tied: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Name -> the pattern that decides it; raises as `assign` does, but does not ask the
        formats.
        """
        if not shapes:
            raise BadInput("this model has no linear layers to compress")
        names = {name: [name] for name in shapes}
        for alias, name in (tied or {}).items():
            names[name].append(alias)
        matches = {
            p: [n for n, known in names.items() if _matches(p, known)] for p in self.patterns
        }
        everything = [name for known in names.values() for name in known]
        for pattern, matched in matches.items():
            if not matched and pattern not in self.defaults:
                near = get_close_matches(pattern, everything, n=3, cutoff=0.0)
                raise UsageError(
                    f"pattern {pattern!r} matches no layer; nearest names: {', '.join(near)}"
                )
        chosen: dict[str, str] = {}
        for pattern, matched in matches.items():
            fresh = [name for name in matched if name not in chosen]
            chosen.update(dict.fromkeys(fresh, pattern))
            # A pattern that only repeats what was decided alike is harmless: {"lm_head": F,
            # "model.embed_tokens": F}.
            winners = {
                chosen[name]
                for name in matched
                if self.patterns[chosen[name]] != self.patterns[pattern]
            }
            if not fresh and winners and pattern not in self.defaults:
                raise UsageError(
                    f"pattern {pattern!r} never applies: {sorted(winners)[0]!r} stands before it; put it first"
                )
        undecided = [name for name in shapes if name not in chosen]
        if undecided:
            raise UsageError(
                f"{_listed(undecided)} match no pattern of the plan; add one, or {undecided[0]!r}: None to leave it"
            )
        return {name: chosen[name] for name in shapes}


def _matches(pattern: str, names: list[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
