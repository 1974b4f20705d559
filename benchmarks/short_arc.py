"""Does a controller of reasoning length keep accuracy where a blunt penalty does not?

    python benchmarks/short_arc.py --preset cpu --json short_arc.json
    python benchmarks/short_arc.py --preset full --json full.json

A small model learns the task op-chain from traces that think too long on every question, then by
reinforcement under one arm after the other: accuracy alone (`none`), a blunt penalty a token
(`linear`), the published rules, and ShortARC as one reward (`scalar`) and with decoupled advantages
(`decoupled`); the preset `full` adds every rule and ablation. Each arm's coefficient is chosen on
seed 0 and on questions of their own: the shortest answers at which no tier loses more than two
points against `none`, and for `linear` those nearest to the length of `decoupled`. The chosen ones
run on all seeds. Judged on 2,000 held-out questions a tier (1-3, 4-7, 8-10 operations), one answer
each at the temperature of the training, paired by question, seeds as clusters.

Jobs run two at a time, one thread each. Every finished one is kept in --json and its folder, and is
not run again; a killed one continues from its last checkpoint.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from common import Record, main, new_record, parser, work_folder
from short_arc_arms import ABLATIONS, COEFFICIENTS, MAIN_ARMS, RULE_ARMS
from short_arc_runs import QUICK, Job, Sizes, do_job, read_answers

from featherweight.base.errors import BadInput
from featherweight.base.statistics import Interval
from featherweight.evaluation.adaptivity import length_slope
from featherweight.evaluation.paired_arms import ArmDifference, compare_arms
from featherweight.evaluation.tradeoff import aes, pareto_front

PROCESSES = 2
LOSS, SHARE, BLUNT_LOSS = 0.02, 0.5, 0.05
OURS = ("scalar", "decoupled")


def run(arguments: argparse.Namespace) -> Record:
    sizes = QUICK if arguments.quick else Sizes()
    seeds = arguments.seeds[:1] if arguments.quick else arguments.seeds
    arms = MAIN_ARMS if arguments.preset == "cpu" else (*MAIN_ARMS, *RULE_ARMS, *ABLATIONS)
    record = new_record(
        "short_arc: reasoning as long as the question needs",
        arguments,
        key=("arm", "coefficient", "seed"),
        settings={**vars(sizes), "arms": list(arms)},
    )
    record.resume()
    with work_folder(arguments) as folder:
        bench = Bench(record, sizes, folder.absolute(), arms, arguments.preset == "full")
        bench.run(seeds)
        checks = Checks(bench, seeds)
        checks.add()
    return record


class Bench:
    """The jobs of a record."""

    def __init__(
        self, record: Record, sizes: Sizes, folder: Path, arms: Sequence[str], is_full: bool
    ) -> None:
        self.record, self.sizes, self.folder = record, sizes, folder
        self.arms, self.is_full = arms, is_full
        self.chosen: dict[str, float] = {}
        self._lengths: dict[str, float] = {}  # of the chosen ones, on the questions of the choice

    def run(self, seeds: Sequence[int]) -> None:
        """All starts, all coefficients on the first seed, and the chosen ones on the others."""
        starts = [Job("start", 0.0, seed) for seed in seeds]
        first = [Job(arm, c, seeds[0]) for arm in self.arms for c in self._coefficients(arm)]
        self._do(starts[:PROCESSES])
        self._do([*starts[PROCESSES:], *first])
        for arm in self._by_dependence():
            self.chosen[arm], self._lengths[arm] = self._choose(arm, seeds[0])
        self._do([Job(arm, c, seed) for seed in seeds[1:] for arm, c in self.chosen.items()])

    def _coefficients(self, arm: str) -> tuple[float, ...]:
        found = COEFFICIENTS.get(arm, (0.0,))
        return found if self.is_full or len(found) < 4 else found[:3]

    def _by_dependence(self) -> list[str]:
        """`linear` is chosen by the length of `decoupled`, so it comes last."""
        return sorted(self.arms, key=lambda arm: arm == "linear")

    def _do(self, jobs: Sequence[Job]) -> None:
        """Run the jobs that the record lacks, two at a time."""
        missing = [
            job
            for job in jobs
            if self.record.find(arm=job.arm, coefficient=job.coefficient, seed=job.seed) is None
        ]
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(PROCESSES, context) as pool:
            futures = [pool.submit(do_job, job, self.sizes, self.folder) for job in missing]
            for future in as_completed(futures):
                self.record.add(**future.result())

    def answers(self, arm: str, coefficient: float, seeds: Sequence[int], part: str) -> Any:
        """correct, lengths [seeds, items, 1] and tier [items] of the answers to "test" or
        "choice" questions.
        """
        loaded = [read_answers(self.folder, Job(arm, coefficient, seed), part) for seed in seeds]
        correct, lengths = (np.stack([one[i] for one in loaded])[..., None] for i in range(2))
        return correct, lengths, loaded[0][2], loaded[0][3]

    def _choose(self, arm: str, seed: int) -> tuple[float, float]:
        """The coefficient of `arm`, and the length of its answers."""
        base_correct, _, tier, _ = self.answers("none", 0.0, [seed], "choice")
        rows = []
        for coefficient in self._coefficients(arm):
            correct, lengths, _, _ = self.answers(arm, coefficient, [seed], "choice")
            losses = [
                base_correct[0, tier == t].mean() - correct[0, tier == t].mean()
                for t in np.unique(tier)
            ]
            rows.append((coefficient, float(lengths.mean()), max(losses)))
        allowed = [row for row in rows if row[2] <= LOSS]
        if arm == "linear":
            target = self._lengths["decoupled"]
            best = min(rows, key=lambda row: abs(row[1] - target))
        elif allowed:
            best = min(allowed, key=lambda row: row[1])
        else:
            best = min(rows, key=lambda row: row[2])
        return best[:2]


class Checks:
    """The targets, computed from the answers of all seeds."""

    def __init__(self, bench: Bench, seeds: Sequence[int]) -> None:
        self.bench, self.record, self.seeds = bench, bench.record, seeds
        self.base = bench.answers("none", 0.0, seeds, "test")
        self.tiers = np.unique(self.base[2]).tolist()

    def add(self) -> None:
        """All checks, and the facts behind them."""
        facts: dict[str, Any] = {"chosen": self.bench.chosen, "arms": {}}
        for arm in self.bench.chosen:
            facts["arms"][arm] = self._arm(arm)
        self.record.facts.update(facts)
        for arm in OURS:
            for tier in self.tiers:
                difference = self._difference(arm, tier)
                self.record.check(
                    f"accuracy: {arm} less none at tier {tier}, low end",
                    difference.accuracy.low,
                    at_least=-LOSS,
                )
            whole = self._difference(arm, None)
            share = 1 - whole.token_saving.mean
            self.record.check(f"tokens: {arm} over none", share, at_most=SHARE)
            self.record.check(
                f"slope: tokens of right answers of {arm} an operation, low end",
                self._slope(arm).low,
                at_least=1e-9,
            )
        blunt = self._blunt_loss()
        self.record.check(
            "accuracy: linear at equal tokens less decoupled, hardest tier",
            blunt,
            at_most=-BLUNT_LOSS,
        )
        for arm in OURS:
            self.record.check(
                f"pareto: a point of {arm} is on the front", self._num_on_front(arm), at_least=1
            )

    def _pick(self, arm: str, tier: int | None) -> tuple[Any, Any]:
        correct, lengths, tiers, _ = self.bench.answers(
            arm, self.bench.chosen[arm], self.seeds, "test"
        )
        rows = np.ones_like(tiers, dtype=bool) if tier is None else tiers == tier
        return correct[:, rows], lengths[:, rows]

    def _difference(self, arm: str, tier: int | None) -> ArmDifference:
        rows = self.base[2] >= 0 if tier is None else self.base[2] == tier
        return compare_arms(
            *self._pick(arm, tier),
            self.base[0][:, rows],
            self.base[1][:, rows],
            pair_seeds=True,
        )

    def _slope(self, arm: str) -> Interval:
        """Of the answers of all seeds to each question; NaN where too few are right."""
        correct, lengths = self._pick(arm, None)
        try:
            return length_slope(correct[..., 0].T, lengths[..., 0].T, self.base[3])
        except BadInput:
            return Interval(*[float("nan")] * 3)

    def _blunt_loss(self) -> float:
        """Accuracy of `linear` on the hardest tier less that of `decoupled`."""
        hardest = self.tiers[-1]
        sides = [self._pick(arm, hardest)[0].mean() for arm in ("linear", "decoupled")]
        return float(sides[0] - sides[1])

    def _num_on_front(self, arm: str) -> int:
        """Points of `arm` on the front of all arms and coefficients, on the first seed."""
        points = [row for row in self.record.rows if row["seed"] == self.seeds[0]]
        points = [row for row in points if row["arm"] != "start"]
        front = pareto_front([row["accuracy"] for row in points], [row["length"] for row in points])
        return sum(
            bool(on_front) and row["arm"] == arm
            for row, on_front in zip(points, front, strict=True)
        )

    def _arm(self, arm: str) -> dict[str, Any]:
        """The figures of an arm at its chosen coefficient."""
        whole = self._difference(arm, None)
        correct, lengths = self._pick(arm, None)
        base = float(self.base[0].mean()), float(self.base[1].mean())
        return {
            "coefficient": self.bench.chosen[arm],
            "accuracy": float(correct.mean()),
            "length": float(lengths.mean()),
            "accuracy_difference": whole.accuracy.as_dict(),
            "token_saving": whole.token_saving.as_dict(),
            "slope": self._slope(arm).as_dict(),
            "tiers": {
                str(tier): self._difference(arm, tier).accuracy.as_dict() for tier in self.tiers
            },
            **aes(float(correct.mean()), float(lengths.mean()), *base),
        }


if __name__ == "__main__":
    flags = parser(__doc__, ("cpu", "full"))
    flags.set_defaults(seeds=[0, 1, 2])
    main(run, flags)
