"""Plans: the assignment of a format to each matrix of a model.

A plan maps patterns of module names (`fnmatch` globs, as in the shell) to formats. The first
pattern that matches a name decides, and `None` leaves the matrix in the model's own dtype. Every
matrix must match a pattern, and every pattern must decide at least one matrix. So a typing error
raises UsageError before the work starts, and no layer is silently skipped.

    Plan({"lm_head": Int(bits=8), "*.mlp.down_proj": Trellis(bits=3), "*": Trellis(bits=2)})

The name of a tied head is a second name of the embedding's table, so the pattern `lm_head` above
also matches the table of a model with a tied head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from ..base.errors import BadInput, UsageError
from .formats.base import Format

MAX_PROBLEMS = 5  # that one error message lists


@dataclass(frozen=True)
class Plan:
    """Patterns in order of precedence, each with the format of the matrices that it matches.

    None instead of a format leaves the matrices in the model's dtype. `defaults`: the patterns that
    come from a preset and not from the user. It is no error when other patterns decide all matrices
    that they match. Raises UsageError for an empty plan, and for a value that is neither a format
    nor None.
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
        self, shapes: Mapping[str, tuple[int, int]], aliases: Mapping[str, str] | None = None
    ) -> dict[str, Format]:
        """The format of every matrix to compress, by name and in the order of `shapes`. Matrices
        whose pattern maps to None are left out.

        shapes: name -> (outputs, inputs) of every matrix. aliases: second names of matrices, which
        patterns match as well ({"lm_head": "model.embed_tokens"} for a tied head).

        Raises BadInput when the model has no matrices; UsageError when a pattern matches nothing or
        never applies, when a matrix matches no pattern, and when formats cannot hold their matrices
        (the error names the first five).
        """
        formats = {
            name: format
            for name, pattern in self.decide(shapes, aliases).items()
            if (format := self.patterns[pattern]) is not None
        }
        problems = []
        for name, format in formats.items():
            try:
                format.check(shapes[name], name)
            except UsageError as error:
                problems.append(str(error))
        if num_hidden := max(0, len(problems) - MAX_PROBLEMS):
            problems[MAX_PROBLEMS:] = [f"and {num_hidden} more"]
        if problems:
            raise UsageError("; ".join(problems))
        return formats

    def dense_matrices(
        self, shapes: Mapping[str, tuple[int, int]], aliases: Mapping[str, str] | None = None
    ) -> list[str]:
        """Names of the matrices that stay in the model's dtype; raises as `decide` does."""
        patterns = self.decide(shapes, aliases)
        return [name for name, pattern in patterns.items() if self.patterns[pattern] is None]

    def decide(
        self, shapes: Mapping[str, tuple[int, int]], aliases: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """For every matrix the pattern that decides its format. Raises as `assign` does, but does
        not check whether the format can hold the matrix.
        """
        if not shapes:
            raise BadInput("this model has no linear layers to compress")
        names = {name: [name] for name in shapes}
        for alias, name in (aliases or {}).items():
            names[name].append(alias)
        decisions: dict[str, str] = {}
        for pattern in self.patterns:
            matches = [name for name in names if _matches(pattern, names[name])]
            if pattern not in self.defaults:
                self._check_applies(pattern, matches, decisions, names)
            for name in matches:
                decisions.setdefault(name, pattern)
        if undecided_names := [name for name in shapes if name not in decisions]:
            count = f" and {len(undecided_names) - 3} more" if len(undecided_names) > 3 else ""
            raise UsageError(
                f"{', '.join(undecided_names[:3])}{count} match no pattern of the plan; add one, "
                f"or {undecided_names[0]!r}: None to leave it"
            )
        return {name: decisions[name] for name in shapes}

    def _check_applies(
        self,
        pattern: str,
        matches: list[str],
        decisions: Mapping[str, str],
        names: Mapping[str, list[str]],
    ) -> None:
        """Raise UsageError when `pattern` matches nothing, or when patterns before it decide all of
        its matches.
        """
        if not matches:
            every_name = [name for group in names.values() for name in group]
            nearest = get_close_matches(pattern, every_name, n=3, cutoff=0.0)
            raise UsageError(
                f"pattern {pattern!r} matches no layer; nearest names: {', '.join(nearest)}"
            )
        if any(name not in decisions for name in matches):
            return
        # A pattern that gives the same format as the patterns before it is accepted, for example
        # one for the head after one for the embedding that it is tied to.
        format = self.patterns[pattern]
        winners = {decisions[name] for name in matches}
        if rivals := sorted(p for p in winners if self.patterns[p] != format):
            raise UsageError(
                f"pattern {pattern!r} never applies: {rivals[0]!r} stands before it; put it first"
            )


def _matches(pattern: str, names: list[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)
