"""featherweight makes language models light - fewer bits, fewer weights, fewer reads - and proves
what it cost.

This module is the roof: it offers the verbs and the classes by name and fetches each from its room
when it is first asked for. Importing it imports no torch, registers nothing and patches nothing.

    import featherweight as fw

    model, tokenizer = fw.load("SmolLM2-135M-Instruct")
    calibration = fw.data.calibration(tokenizer, count=256, length=256)
    factors = fw.FisherA().collect(model, calibration.tokens)
    plan = fw.Plan({"lm_head": fw.Int(bits=8), "*": fw.Trellis(bits=2)})
    fw.quantize(model, fw.YAQA(), plan, factors, transform=fw.Hadamard())
    fw.save(model, "out/light", tokenizer)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base.lazy import lazy_names

if TYPE_CHECKING:
    from . import data, interchange, training
    from .base.errors import (
        BadInput,
        BoundMissed,
        ExportFailed,
        FeatherweightError,
        PreflightRefused,
        UsageError,
    )
    from .base.events import Event
    from .base.sampling import Sampling
    from .evaluation import KL, Perplexity, evaluate
    from .inference import Conversation, answer, generate
    from .interchange import load, save
    from .models.sampling import rollouts
    from .models.scratch import scratch_model
    from .quantization.curvature import FisherA, FisherB, Gram
    from .quantization.evidence import report
    from .quantization.formats import Int, Ternary, Trellis
    from .quantization.pipeline import quantize
    from .quantization.plans import Plan
    from .quantization.rounding import LDLQ, YAQA, Nearest
    from .quantization.transforms import Hadamard
    from .workflows.bench_folder import bench_folder as bench
    from .workflows.doctor import doctor
    from .workflows.engines import open_engine
    from .workflows.export_folder import export_folder as export
    from .workflows.plan_folder import plan_folder as plan
    from .workflows.serve_folder import serve_folder as serve

__version__ = "0.1.0"

# Where each name lives; the imports above say the same to type checkers, and a test compares the
# two.
_TARGETS = {
    "BadInput": "base.errors",
    "BoundMissed": "base.errors",
    "Conversation": "inference",
    "Event": "base.events",
    "ExportFailed": "base.errors",
    "FeatherweightError": "base.errors",
    "FisherA": "quantization.curvature",
    "FisherB": "quantization.curvature",
    "Gram": "quantization.curvature",
    "Hadamard": "quantization.transforms",
    "Int": "quantization.formats",
    "KL": "evaluation",
    "LDLQ": "quantization.rounding",
    "Nearest": "quantization.rounding",
    "Perplexity": "evaluation",
    "Plan": "quantization.plans",
    "PreflightRefused": "base.errors",
    "Sampling": "base.sampling",
    "Ternary": "quantization.formats",
    "Trellis": "quantization.formats",
    "UsageError": "base.errors",
    "YAQA": "quantization.rounding",
    "answer": "inference",
    "bench": "workflows.bench_folder:bench_folder",
    "doctor": "workflows.doctor",
    "evaluate": "evaluation",
    "export": "workflows.export_folder:export_folder",
    "generate": "inference",
    "load": "interchange",
    "open_engine": "workflows.engines",
    "plan": "workflows.plan_folder:plan_folder",
    "quantize": "quantization.pipeline",
    "report": "quantization.evidence",
    "rollouts": "models.sampling",
    "save": "interchange",
    "scratch_model": "models.scratch",
    "serve": "workflows.serve_folder:serve_folder",
    # Rooms that are offered as modules.
    "data": "data:",
    "interchange": "interchange:",
    "training": "training:",
}

__all__ = ["__version__", *_TARGETS]
__getattr__, __dir__ = lazy_names(__name__, _TARGETS)
