"""The shell's `shorten`: a model that thinks too long in, one that thinks as long as the question
needs out.

    OUT/                     the model, an ordinary transformers folder
    OUT/results.json         accuracy and length before and after
    OUT/report.html          the same for people
    OUT/README.md            the model card

Stages: learn traces (`warm_start`) -> answer held-out questions -> would a training starve? ->
train, answering held-out questions now and then -> round the weights to the dtype of the files ->
answer them again -> save. The work lies in OUT.partial/, and the same command continues a killed
run. When the accuracy collapses, the training stops and the best weights so far are saved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file

from ..base import machine
from ..base.events import Event, Listener, send_to, silent
from ..base.files import write_atomic
from ..base.run_folder import RunFolder, is_finished
from ..base.sampling import Sampling
from ..base.seeds import seed_of
from ..data.tasks import Grader
from ..interchange import loading
from ..interchange.saving import save_dense
from ..models.sampling import Rollouts, end_tokens
from ..quantization.evidence.results import load_results, write_results
from ..reasoning.collapse import CollapseGuard
from ..reasoning.loop import STAGE, train
from ..reasoning.marking import Marking
from ..reasoning.marks import Marks
from ..reasoning.methods import METHODS
from ..reasoning.page import card, reasoning_page
from ..reasoning.preflight import QUESTIONS, check_start
from ..reasoning.questions import Question
from ..reasoning.samplers import EngineSampler, LocalSampler, Sampler
from ..reasoning.warm_start import STAGE as WARM_STAGE
from ..reasoning.warm_start import trace_examples, warm_start
from ..reporting import write_page
from ..training import history
from .distill_folder import round_weights, stored_dtype
from .policy_engine import int8_engine
from .shorten_plan import ShortenPlan, ShortenSettings, plan_shortening

VERSION = "1"
POINTS = "held_out"
NUM_SAMPLES = 8  # answers that the page shows
BEST = "best.safetensors"

Output = TypeVar("Output")


def shorten_folder(
    model: str | Path,
    out: Path | str,
    settings: ShortenSettings,
    *,
    fresh: bool = False,
    overwrite: bool = False,
    listener: Listener = silent,
) -> dict[str, Any]:
    """Train `model` to think as long as the question needs, write the folder `out`, and return the
    content of its results.json.

    Args: fresh, forget an unfinished run; overwrite, replace a finished one. Raises UsageError for
    settings that do not go together, BadInput for a model or a file that cannot be used,
    PreflightRefused when the training would have nothing to learn from.
    """
    plan = plan_shortening(model, settings, listener)
    recipe = plan.identity()
    if not (fresh or overwrite) and is_finished(out, recipe):
        return dict(load_results(Path(out)))
    with (
        RunFolder(out, recipe, fresh=fresh, overwrite=overwrite) as run,
        Grader(plan.task) as grader,
    ):
        results = Shortening(plan, run, grader, listener).work()
        write_results(results, run.folder)
        write_page(reasoning_page(results), run.folder)
        write_atomic(run.folder / "README.md", card(results))
        run.publish()
    return results


class Shortening:
    """The stages of a run, each kept in its folder."""

    def __init__(
        self, plan: ShortenPlan, run: RunFolder, grader: Grader, listener: Listener
    ) -> None:
        self.plan, self.run, self.settings = plan, run, plan.settings
        self.listener = send_to(run.listener, listener)
        self.user_listener = listener
        self.seconds: dict[str, float] = {}
        self.points: set[int] = set()  # steps whose evaluation the guard has
        self.model: Any = self._load()
        self.model.requires_grad_()
        self.ends = end_tokens(self.model) or {plan.tokenizer.eos_token_id}
        self.marking = Marking(
            grader, plan.tokenizer.decode, plan.think_end, plan.settings.recipe.max_tokens
        )
        self.policy = LocalSampler(self.model, self.ends)

    def _load(self) -> Any:
        device = self.settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
        return loading.load(self.plan.source.path, torch.float32, device, self.listener)[0]

    def work(self) -> dict[str, Any]:
        """All stages; returns the content of results.json."""
        plan, settings = self.plan, self.settings
        self._measure_seconds("warm start", self._warm_start)
        record_before = self._measure_seconds("judge", lambda: self._judge("before"))
        start = self._measure_seconds("preflight", self._preflight)
        collapse = self._measure_seconds("train", lambda: self._train(record_before))
        dtype = stored_dtype(plan.source)
        round_weights(self.model, dtype)
        record_after = self._measure_seconds("judge", lambda: self._judge("after"))
        save_dense(self.model.eval().to(dtype), plan.tokenizer, self.run.folder)
        return {
            "model": {"name": plan.source.display_name, "fingerprint": plan.source.fingerprint},
            "task": {"name": plan.task.name, "chat": plan.chat, "borders": plan.buckets.borders},
            "settings": settings.as_dict(),
            "control": repr(settings.control()),
            "difficulty": plan.difficulties(),
            "before": record_before,
            "after": record_after,
            "start": start,
            **collapse,
            "training": {
                name: history(self.run.folder, stage)
                for name, stage in (
                    ("steps", STAGE),
                    ("answers", f"{STAGE} answers"),
                    ("held_out", POINTS),
                    ("warm_start", WARM_STAGE),
                )
            },
            "seconds": {name: round(number, 2) for name, number in self.seconds.items()},
            "peak_memory_bytes": machine.peak_memory_bytes(),
            "machine": machine.describe(),
            "versions": machine.versions(),
        }

    def _measure_seconds(self, name: str, stage: Callable[[], Output]) -> Output:
        start = time.monotonic()
        output = stage()
        self.seconds[name] = self.seconds.get(name, 0) + time.monotonic() - start
        return output

    def _warm_start(self) -> None:
        """Learn traces, when asked."""
        settings, plan = self.settings, self.plan
        if not settings.warm_start:
            return
        task, tokenizer, seed = plan.task, plan.tokenizer, settings.recipe.seed
        ids = {id(question.example): question.ids for question in plan.questions}
        examples = trace_examples(
            [question.example for question in plan.questions],
            lambda example: ids[id(example)],
            lambda example: tokenizer.encode(task.trace(example, seed), add_special_tokens=False),
            min(self.ends),
        )
        for _ in warm_start(
            self.model,
            examples,
            num_steps=settings.warm_start,
            batch=settings.warm_batch,
            lr=settings.warm_lr,
            seed=seed,
            run=self.run,
            listener=self.user_listener,
        ):
            pass

    def _judge(self, moment: str) -> dict[str, Any]:
        """The answers to the held-out questions, one each, at the temperature of the training."""
        record = self.run.done(moment, VERSION)
        if record is None:
            questions = self.plan.judge_questions
            texts, marks = self._answer(questions, 1, "judge")
            decode = self.plan.tokenizer.decode
            record = {
                "correct": [None if c != c else c for c in marks.correct.tolist()],
                "lengths": marks.lengths.tolist(),
                "tokens": texts.lengths.tolist(),
                "cut": marks.is_cut.tolist(),
                "samples": [
                    {
                        "question": decode(questions[i].ids),
                        "answer": decode(texts.answer(i)),
                        "correct": bool(marks.is_correct[i]),
                        "tokens": int(texts.lengths[i]),
                    }
                    for i in range(min(NUM_SAMPLES, len(questions)))
                ],
            }
            self.run.finish_unit(moment, VERSION, None, record)
        return record

    def _answer(
        self, questions: Sequence[Question], samples: int, stage: str
    ) -> tuple[Rollouts, Marks]:
        """`samples` answers of the policy to each question, as the training samples them."""
        recipe = self.settings.recipe
        texts = self.policy.generate(
            [question.ids for question in questions],
            samples,
            Sampling(max_tokens=recipe.max_tokens, temperature=recipe.temperature),
            seed_of(stage, recipe.seed),
        )
        return texts, self.marking(texts, questions)

    def _preflight(self) -> dict[str, float]:
        """Whether there is something to learn from."""
        record = self.run.done("preflight", VERSION)
        if record is None:
            group = self.settings.recipe.group
            _, marks = self._answer(self.plan.questions[:QUESTIONS], group, "preflight")
            record = check_start(marks, group)
            self.run.finish_unit("preflight", VERSION, None, record)
        return record

    def _sampler(self) -> Sampler:
        if self.settings.sampler == "local":
            return self.policy
        return EngineSampler(int8_engine(self.plan.tokenizer, self.run.work), self.ends)

    def _train(self, before: dict[str, Any]) -> dict[str, Any]:
        """All steps; when the accuracy collapses, the best weights so far."""
        settings, recipe = self.settings, self.settings.recipe
        guard = CollapseGuard(_mean(before["correct"]), settings.tolerance, settings.patience)
        guard.take(0, guard.reference, _mean(before["lengths"]))
        interval = max(1, recipe.steps // settings.points)
        self._keep(guard, 0)
        if (number := self._replay(guard, interval)) is not None:
            return self._collapse(guard, number)
        sampler = self._sampler()
        try:
            for step in train(
                self.model,
                self.plan.questions,
                sampler,
                self.marking,
                settings.control(),
                METHODS["dr_grpo"](recipe.max_tokens),
                recipe,
                self.run,
                listener=self.user_listener,
            ):
                number, total = step.step.number, step.step.total
                self.listener(Event(f"{STAGE} answers", number, total, values=step.figures))
                if number % interval == 0 and number not in self.points:
                    if self._point(guard, number, total):
                        return self._collapse(guard, number)
        finally:
            sampler.close()
        return {"collapsed_at": None, "best": guard.best}

    def _replay(self, guard: CollapseGuard, interval: int) -> int | None:
        """Show the guard the evaluations of an earlier process; returns the step of a collapse."""
        for number in range(interval, self.settings.recipe.steps + 1, interval):
            record = self.run.done(f"{POINTS} {number}", VERSION)
            if record is None:
                return None
            self.points.add(number)
            if guard.take(number, _mean(record["correct"]), _mean(record["lengths"])):
                return number
        return None

    def _collapse(self, guard: CollapseGuard, number: int) -> dict[str, Any]:
        """Go back to the best weights."""
        weights = load_file(self.run.work / BEST)
        self.model.load_state_dict(weights, strict=False)
        return {"collapsed_at": number, "best": guard.best}

    def _point(self, guard: CollapseGuard, number: int, total: int) -> bool:
        """Answer the held-out questions; returns whether the training has collapsed."""
        record = self._judge(f"{POINTS} {number}")
        accuracy, tokens = _mean(record["correct"]), _mean(record["lengths"])
        facts = {"accuracy": accuracy, "length": tokens}
        self.listener(Event(POINTS, number, total, values=facts))
        has_collapsed = guard.take(number, accuracy, tokens)
        self._keep(guard, number)
        return has_collapsed

    def _keep(self, guard: CollapseGuard, number: int) -> None:
        """Write the weights when they are the best so far."""
        path = self.run.work / BEST
        if guard.best == number and not (number == 0 and path.exists()):
            path.parent.mkdir(parents=True, exist_ok=True)
            weights = {name: p.detach().clone() for name, p in self.model.named_parameters()}
            save_file(weights, path.with_suffix(".new"))
            path.with_suffix(".new").replace(path)


def _mean(numbers: list[Any]) -> float:
    marked_numbers = [number for number in numbers if number is not None]
    return sum(marked_numbers) / max(len(marked_numbers), 1)
