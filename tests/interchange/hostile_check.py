"""What must hold for every model folder, sound or not.

Reading it, loading it and quantizing it end in success or in a `FeatherweightError`. No code of the
folder runs, nothing is written outside the output folder, and standard input is not read. A model
that loads here loads in transformers, with the same logits; the tensors that a streamed run reads
are those of the loaded model, and the quantized folder is close to it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import tiny
import torch
from tests.interchange.hostile_edits import Edit, Files

from featherweight.base.errors import FeatherweightError
from featherweight.inference.text.tokenizer import ChatTokenizer
from featherweight.interchange import loading
from featherweight.interchange.source import Source
from featherweight.workflows.engines import open_weights
from featherweight.workflows.quantize_folder import quantize_folder

# Some matrices of each kind in 8 bits to nearest, without calibration: a fraction of a second.
RECIPE = {
    "bits": 8,
    "preset": "portable",
    "plan": {"tables": "Int(bits=8)", "*.0.*.[qd]*": "Int(bits=8)", "*": None},
    "rounding": "Nearest()",
    "curvature": None,
    "calibration": None,
}
WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate")
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect")
PLACES = ("/dev/null", "/proc/", "__pycache__")
IDS = torch.arange(3, 35)[None]
# Relative to the largest logit. Attention implementations add in another order; 8 bits lose more.
SAME, CLOSE = 1e-4, 0.1
LARGEST_WEIGHT = 100.0
SMALLEST_CAP = 5.0  # of logits, for a comparison that is relative to the largest
OVERFLOW = 1e18  # its square is no float32, and sums overflow by their order


@dataclass(frozen=True)
class Refusal:
    """A FeatherweightError."""

    text: str


class Room:
    """An empty folder in which hostile folders are written and tried, one at a time."""

    def __init__(self, path: Path) -> None:
        self.path, self.trace = path, path / "trace-of-code"
        self.source, self.out = path / "source", path / "out"
        self._sound = {make.__name__: _sound(make, path / "sound") for make in tiny.ALL[:3]}
        shutil.rmtree(path / "sound")

    def outcome(self, family: str, edits: Sequence[Edit], quantize: bool = True) -> str:
        """Try the folder. Returns "quantized", "loaded" or "refused".

        Unless `quantize`, the folder is only read, loaded and run, which takes half the time.

        Raises AssertionError when something that must hold does not.
        """
        files = dict(self._sound[family])
        for edit in edits:
            edit.apply(files)
        self._write(files)
        before = _contents(self.path)
        stdin = io.StringIO("yes\n" * 50)
        with _quiet(), mock.patch.object(sys, "stdin", stdin), watched(self.out) as events:
            self._try_text()
            model = attempt(lambda: loading.load(self.source)[0])
            tensors = attempt(lambda: _streamed(self.source))
            engine_logits = attempt(lambda: _run_engine(self.source))
            light = Refusal("not tried")
            if quantize:
                light = attempt(self._quantize)
            light_model = light if _refused(light) else attempt(lambda: loading.load(self.out)[0])
        assert not self.trace.exists(), "code of the folder ran"
        assert not events, f"it touched {events[0]}"
        assert stdin.tell() == 0, "standard input was read"
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.rmtree(self.path / "out.partial", ignore_errors=True)
        assert _contents(self.path) == before, "it wrote outside the output folder"
        with _quiet():
            return self._compare(model, tensors, engine_logits, light_model)

    def _write(self, files: Files) -> None:
        shutil.rmtree(self.source, ignore_errors=True)
        self.source.mkdir()
        code = f"open({str(self.trace)!r}, 'w').close()\nclass C: ...\n".encode()
        for name in ("own.py", "custom_generate/generate.py", "modeling_llama.py"):
            files.setdefault(name, code)
        for name, content in files.items():
            (self.source / name).parent.mkdir(exist_ok=True)
            (self.source / name).write_bytes(content.replace(b"TRACE", str(self.trace).encode()))

    def _try_text(self) -> None:
        """The engine's own tokenizer and template."""
        tokenizer = attempt(lambda: ChatTokenizer.open(self.source))
        if not _refused(tokenizer):
            attempt(lambda: tokenizer.decode(tokenizer.encode("The fox in 1905 \u7fbd")))
            attempt(lambda: tokenizer.chat([{"role": "user", "content": "Why?"}]))

    def _quantize(self) -> Path:
        return quantize_folder(str(self.source), self.out, RECIPE, evaluate=False)

    def _compare(self, model: Any, tensors: Any, engine_logits: Any, light_model: Any) -> str:
        """The same tensors and logits as transformers', or a refusal."""
        if _refused(model):
            assert _refused(light_model), f"quantized, but does not load: {model.text}"
            if not _refused(engine_logits):  # the engine reads neither tokenizer nor model card
                with contextlib.suppress(OnlyOurs):
                    expected = _logits(_load_with_transformers(self.source))
                    difference = 0.0 if expected is None else _difference(engine_logits, expected)
                    assert difference <= CLOSE, "other logits in engine"
            return "refused"
        original = _load_with_transformers(self.source)
        if not _refused(tensors):
            state = original.state_dict()
            for name, tensor in tensors.items():
                assert torch.equal(tensor.to(state[name].dtype), state[name]), f"{name} differs"
        expected, logits = _logits(original), _logits(model)
        assert _difference(logits, expected) <= SAME, "other logits than transformers'"
        largest = max(float(p.abs().max()) for p in original.parameters())
        # Where transformers cannot run the model, there is nothing to differ from.
        if not _refused(engine_logits) and largest < OVERFLOW and expected is not None:
            assert _difference(engine_logits, expected) <= CLOSE, "other logits in the engine"
        if _refused(light_model):
            return "loaded"
        if largest > LARGEST_WEIGHT:
            return "quantized"  # one such number makes a row's scale useless for all others
        cap = getattr(original.config, "final_logit_softcapping", None)
        if cap is not None and cap < SMALLEST_CAP:
            return "quantized"  # logits are compared by the largest, which the cap has cut down
        light_logits = _logits(light_model)
        assert _difference(light_logits, expected) <= CLOSE, "the quantized model differs"
        return "quantized"


class OnlyOurs(AssertionError):
    """transformers refuses what is read here."""


def attempt(work: Callable[[], Any]) -> Any:
    """What `work` returns, or a Refusal. Any other error is an AssertionError, panics included."""
    try:
        return work()
    except FeatherweightError as error:
        return Refusal(str(error))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise AssertionError(f"{type(error).__name__} escaped: {str(error)[:300]}") from error


def _refused(result: Any) -> bool:
    return isinstance(result, Refusal)


def _sound(make: Callable[[], Any], folder: Path) -> Files:
    """The files of a sound folder."""
    tiny.save(*make(), folder / make.__name__)
    return {file.name: file.read_bytes() for file in (folder / make.__name__).iterdir()}


def _streamed(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors as a streamed run reads them; the plan's facts are computed too."""
    source = Source.find(folder)
    assert source.anatomy.matrices and (source.context or 1) > 0
    weights = source.weights
    return {name: weights.read(name).clone() for name in weights.names()}


def _run_engine(folder: Path) -> torch.Tensor | None:
    """The logits of the engine that `generate` takes, None when the forward pass fails."""
    engine = open_weights(Source.find(folder), threads=1)
    try:
        session = engine.session(min(engine.context, IDS.shape[1]))
        tokens = IDS[0, : session.capacity].numpy()
        return torch.as_tensor(engine.forward(session, tokens, "all"))[None]
    except FeatherweightError:
        raise
    except Exception:
        return None
    finally:
        engine.close()


def _load_with_transformers(folder: Path) -> Any:
    """The model, of which transformers reports no missing and no mismatched tensor.

    Ours ignores the attention implementation in the configuration, so it is removed first.
    """
    from transformers import AutoModelForCausalLM

    settings = json.loads((folder / "config.json").read_bytes())
    others = {key: value for key, value in settings.items() if "attn_implementation" not in key}
    (folder / "config.json").write_text(json.dumps(others))
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except Exception as error:
        raise OnlyOurs(f"only transformers refuses: {str(error)[:300]}") from error
    problems = {kind: names for kind, names in info.items() if names and kind != "unexpected_keys"}
    assert not problems, f"only transformers reports {problems}"
    return model.eval()


def _logits(model: Any) -> torch.Tensor | None:
    """The logits as evaluation computes them, None when the forward pass fails."""
    try:
        with torch.no_grad():
            output: torch.Tensor = model(input_ids=IDS, use_cache=False, return_dict=True).logits
    except Exception:
        return None
    return output


def _difference(logits: torch.Tensor | None, expected: torch.Tensor | None) -> float:
    if logits is None or expected is None:
        return 0.0 if logits is expected else float("inf")
    expected = expected[:, : logits.shape[1]]  # an engine reads no more than the context
    if torch.equal(logits.nan_to_num(), expected.nan_to_num()):
        return 0.0
    return float((logits - expected).abs().max() / expected.abs().max())


def _contents(folder: Path) -> dict[str, str]:
    """The digest of every file below `folder`."""
    return {
        str(file.relative_to(folder)): hashlib.sha1(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings and log lines, since assertions decide, and without waiting for the disk."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
            mock.patch.object(os, "fsync"),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def watched(out: Path) -> Iterator[list[str]]:
    """A list that receives every write of Python outside `out`, every process and every connection
    of the block.
    """
    watcher = _watcher()
    watcher.events, watcher.out, watcher.is_on = [], out, True
    try:
        yield watcher.events
    finally:
        watcher.is_on = False


class _Watcher:
    """An audit hook. Python cannot remove one, so there is one for the process, off by default."""

    def __init__(self) -> None:
        self.is_on, self.out, self.events = False, Path(), list[str]()
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        if event in STARTS:
            self.events.append(f"{event} {arguments}"[:300])
        elif event in WRITES or (event == "open" and self._is_for_writing(arguments)):
            path = self._full_path(event, arguments)
            if path is not None and not self._is_allowed(path):
                self.events.append(f"{event} {path!r}"[:300])

    @staticmethod
    def _is_for_writing(arguments: tuple[Any, ...]) -> bool:
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))

    @staticmethod
    def _full_path(event: str, arguments: tuple[Any, ...]) -> str | None:
        """The path that is written; None for an open file. `rmtree` names a folder by number."""
        path, folder = arguments[0], arguments[-1]
        if not isinstance(path, str | bytes | os.PathLike):
            return None
        if event in ("os.remove", "os.rmdir", "os.mkdir") and folder != -1:
            return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
        return os.fsdecode(path)

    def _is_allowed(self, text: str) -> bool:
        """Whether a path is the output folder, its unfinished form, or inside of either."""
        own = (str(self.out), str(self.out.with_name(f".{self.out.name}")))
        return text.startswith(own) or any(place in text for place in PLACES)


@lru_cache(maxsize=1)
def _watcher() -> _Watcher:
    return _Watcher()
