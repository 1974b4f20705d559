"""The PyTorch engine: any model that `fw.load` returns, computed as its definition says. It is the
only module of this room that imports torch.

Compressed weights are decoded once and stay in memory until `close`; after training those, make a
new engine. Dense weights may be trained in place: the fingerprint then changes (`WeightVersion`),
and sessions from before keep keys and values of the earlier weights. Several sessions are advanced
in one forward pass (`batched_step.py`), recurrent ones one after another. Keys and values lie in
transformers' `DynamicCache`, which holds all tokens in every layer (sliding windows are part of the
attention mask), so that a session can be rewound to any length. Recurrent models (Mamba, and its
hybrids with attention) have states that cannot be rewound; their sessions compute from the first
token again where needed (`recurrent.py`). transformers continues the states of some models wrongly,
so the engine of such a model first compares a few tokens with whole passes, and refuses it where
they differ.

With `int8_activations` the input of every compressed matrix is rounded as the native engine rounds
it: per token, q = round-half-even(x * steps / max|x|), and the product uses q * max|x| / steps.
Rotated inputs have no outliers and get one plane of int8 (127 steps). Inputs that are not rotated
get two planes (127 * 128 steps). Keys and values are stored in half precision, except those of
recurrent models. The only remaining difference from the native engine is the order of sums.
Rounding amplifies such differences, though: one part in 10^7 on the embedding moves the logits of a
30-block model as far as rounding itself does. So compare distributions, or a single block.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..base.errors import BadInput, Unsupported, UsageError
from ..models.caching import cache_argument, is_recurrent, takes_positions
from ..models.weight_version import WeightVersion
from ..quantization.layers import keep_decoded
from .activation_rounding import round_inputs
from .batched_step import step_arguments
from .engine import Engine, Logits, Session
from .recurrent import LONGEST_TEXT, RecurrentSession

PROBE_LENGTH = 12  # tokens on which an engine checks that it continues a recurrent model rightly
MAX_BATCH = 32  # sessions in one forward pass, whose keys and values are copied into one batch


class ReferenceEngine(Engine):
    """An engine around a loaded transformers model, packed or not.

    Args: model, on any device; fingerprint, of its weights; description, for people;
    int8_activations, round activations as the native engine does. The model may be used elsewhere
    at the same time, except with `int8_activations`, which changes its layers until `close`. Raises
    Unsupported for recurrent models that transformers cannot continue token by token, BadInput when
    the configuration names no context.
    """

    def __init__(
        self,
        model: nn.Module,
        fingerprint: str,
        description: str,
        *,
        int8_activations: bool = False,
    ) -> None:
        config: Any = model.config
        self.is_recurrent = is_recurrent(model)
        text_config = config.get_text_config(decoder=True)
        self.vocab_size = int(text_config.vocab_size)
        self.context = _context(text_config, self.is_recurrent)
        self.max_batch = MAX_BATCH
        self._fingerprint = f"{fingerprint}-reference" + ("-int8" if int8_activations else "")
        self._weight_version: WeightVersion | None = WeightVersion(model)
        self.description = description + (
            ", PyTorch, activations in 8 bits" if int8_activations else ", PyTorch"
        )
        self.half_cache = int8_activations
        self._model: Any = model
        self._cache_name = cache_argument(model)
        self._num_layers = int(getattr(text_config, "num_hidden_layers", 0))
        self._can_batch = bool(self._num_layers) and takes_positions(model)
        self._can_batch &= not self.is_recurrent
        self._state_shapes: dict[str, tuple[int, ...]] | None = None
        self._stack = ExitStack()
        self._stack.enter_context(keep_decoded(model))
        if int8_activations:
            self._stack.callback(round_inputs(model))
        if self.is_recurrent:
            self._check_continuation(description)

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        """That of the constructor, with a digest of the weights once they have changed."""
        digest = self._weight_version.digest() if self._weight_version else ""
        return f"{self._fingerprint}-{digest}" if digest else self._fingerprint

    def session(self, capacity: int | None = None) -> ReferenceSession | RecurrentSession:
        capacity = self.context if capacity is None else capacity
        if not 1 <= capacity <= self.context:
            raise UsageError(
                f"a session of {capacity} tokens: the model's context is {self.context}"
            )
        if self.is_recurrent:
            return RecurrentSession(self._new_recurrent_cache, capacity, self.vocab_size)
        return ReferenceSession(self, capacity)

    def forward(
        self, session: Session, tokens: Sequence[int] | NDArray, logits: Logits = "last"
    ) -> NDArray[np.float32]:
        ids = check_tokens(session, tokens, self.vocab_size)
        assert isinstance(session, ReferenceSession | RecurrentSession)
        pending = session.pending(ids, logits)
        num_rows = {"all": len(ids), "last": 1, "none": 0}[logits]
        rows = np.zeros((0, self.vocab_size), np.float32)
        if len(pending):
            try:
                rows = self._read(pending, session.cache, max(1, num_rows))[:num_rows]
            except BaseException:
                # After an interruption between two layers, some layers have the new keys already.
                session.forget()
                raise
        session.append(ids, len(pending))
        return rows

    def _read(self, ids: NDArray[np.int64], cache: Any, num_rows: int) -> NDArray[np.float32]:
        """The logits after the last `num_rows` of `ids`, which follow the tokens of `cache`."""
        with torch.no_grad():
            output = self._model(
                input_ids=torch.from_numpy(ids)[None].to(self.parameter.device),
                use_cache=True,
                logits_to_keep=num_rows,
                **{self._cache_name: cache},
            )
        rows: NDArray[np.float32] = output.logits[0].float().cpu().numpy()
        return rows

    def step(self, sessions: Sequence[Session], tokens: Sequence[int]) -> NDArray[np.float32]:
        if len(set(map(id, sessions))) != len(sessions) or len(sessions) > self.max_batch:
            raise UsageError(
                f"{len(sessions)} sessions at once: at most {self.max_batch}, each once"
            )
        for session, token in zip(sessions, tokens, strict=True):
            check_tokens(session, [token], self.vocab_size)
        if not self._can_batch or len(sessions) < 2:
            rows = [
                self.forward(session, [token])
                for session, token in zip(sessions, tokens, strict=True)
            ]
            return np.concatenate(rows) if rows else np.zeros((0, self.vocab_size), np.float32)
        texts = [session for session in sessions if isinstance(session, ReferenceSession)]
        try:
            logits = self._read_step(texts, np.asarray(tokens, np.int64))
        except BaseException:
            for text in texts:
                text.forget()
            raise
        for text in texts:
            text.length += 1
        return logits

    def _read_step(
        self, sessions: Sequence[ReferenceSession], ids: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """The logits after one more token of each session."""
        device = self.parameter.device
        caches = [session.cache for session in sessions]
        lengths = [session.length for session in sessions]
        with torch.no_grad():
            output = self._model(
                input_ids=torch.from_numpy(ids)[:, None].to(device),
                use_cache=True,
                **step_arguments(caches, lengths, self._num_layers, self._cache_name, device),
            )
        rows: NDArray[np.float32] = output.logits[:, -1].float().cpu().numpy()
        return rows

    def close(self) -> None:
        self._stack.close()
        self._model = self._weight_version = None

    def _new_recurrent_cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self._model.config)

    def _check_continuation(self, description: str) -> None:
        """Raise Unsupported unless two texts, token by token in turns, have the logits of one whole
        pass over each. In turns, because some models keep the state in their modules.
        """
        model_type = self._model.config.model_type
        try:
            difference = self._continuation_error()
        except Exception as error:  # the model's code knows another cache
            self.close()
            raise Unsupported(
                f"{description} has recurrent layers ({model_type}) that cannot be continued with "
                f"the cache of transformers ({' '.join(str(error).split())[:200]}); `fw evaluate`, "
                "which reads whole windows, measures it"
            ) from error
        if not difference <= max(1e-3, 16 * torch.finfo(self.parameter.dtype).eps):
            self.close()
            raise Unsupported(
                f"{description} has recurrent layers ({model_type}) whose states this version of "
                "transformers does not continue token by token as in one whole pass, so it cannot "
                "generate here; `fw evaluate`, which reads whole windows, measures it"
            )

    def _continuation_error(self) -> float:
        """The largest difference of a logit between continued texts and whole passes, relative to
        the largest logit.
        """
        ids, half = np.arange(PROBE_LENGTH) % self.vocab_size, PROBE_LENGTH // 2
        texts, sessions = [ids, ids[::-1].copy()], [self.session(PROBE_LENGTH) for _ in range(2)]
        whole = [self.forward(self.session(PROBE_LENGTH), text, "all")[half:] for text in texts]
        for session, text in zip(sessions, texts, strict=True):
            self.forward(session, text[:half])
        rows = [
            self.step(sessions, [int(text[i]) for text in texts]) for i in range(half, len(ids))
        ]
        return float(np.abs(np.stack(rows, 1) - np.stack(whole)).max() / np.abs(whole).max())

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """(heads, width) of each array of a state, by name; found by running one token."""
        if self._state_shapes is None:
            probe = ReferenceSession(self, 1)
            self.forward(probe, [0], "none")
            self._state_shapes = {
                name: (array.shape[0], array.shape[2]) for name, array in probe.state().items()
            }
        return self._state_shapes

    @property
    def parameter(self) -> Tensor:
        """A parameter of the model, for its dtype and device."""
        return next(self._model.parameters())


class ReferenceSession(Session):
    """Keys and values in a `DynamicCache`.

    A state holds them as "LAYER.keys" and "LAYER.values", (heads, length, width) in float32.
    """

    def __init__(self, engine: ReferenceEngine, capacity: int) -> None:
        self.capacity, self.length = capacity, 0
        self._engine = engine
        self.cache = _new_cache(engine.half_cache)

    def pending(self, ids: NDArray[np.int64], logits: Logits) -> NDArray[np.int64]:
        """The tokens that the model must read to append `ids`: these."""
        return ids

    def append(self, ids: NDArray[np.int64], num_read: int) -> None:
        """Count `ids`, whose keys and values are in the cache, as part of the text."""
        self.length += len(ids)

    def forget(self) -> None:
        """Forget keys and values that an interrupted pass left behind."""
        self.crop(self.length)

    def rewind(self, length: int) -> None:
        if not 0 <= length <= self.length:
            raise UsageError(f"cannot rewind to {length} tokens: there are {self.length}")
        self.crop(length)
        self.length = length

    def fork(self) -> ReferenceSession:
        """Keys and values are shared until one of the sessions appends, which makes new tensors."""
        session = ReferenceSession(self._engine, self.capacity)
        session.cache, session.length = copy.copy(self.cache), self.length
        session.cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        return session

    def crop(self, length: int) -> None:
        """Cut the keys and values of every layer to `length` tokens."""
        if length == 0:
            self.cache = _new_cache(self._engine.half_cache)
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[..., :length, :], layer.values[..., :length, :]

    def state(self) -> dict[str, NDArray]:
        state = {}
        for index, layer in enumerate(self.cache.layers):
            for name, tensor in (("keys", layer.keys), ("values", layer.values)):
                state[f"{index}.{name}"] = tensor[0].float().cpu().numpy().copy()
        return state

    def restore(self, state: dict[str, NDArray], length: int) -> None:
        shapes = self._engine.state_shapes() if length else {}
        if length > self.capacity:
            raise UsageError(
                f"a state of {length} tokens does not fit into a session of {self.capacity}"
            )
        if set(state) != set(shapes):
            raise BadInput("the state has other layers than this model")
        for name, (heads, width) in shapes.items():
            array = state[name]
            if array.shape != (heads, length, width) or array.dtype != np.float32:
                raise BadInput(
                    f"the state's {name} is {array.shape} {array.dtype}, "
                    f"not {(heads, length, width)} float32"
                )
        cache, parameter = _new_cache(self._engine.half_cache), self._engine.parameter
        for index in range(len(shapes) // 2):
            keys, values = (
                torch.tensor(
                    state[f"{index}.{name}"], dtype=parameter.dtype, device=parameter.device
                )[None]
                for name in ("keys", "values")
            )
            cache.update(keys, values, index)
        self.cache, self.length = cache, length

    def close(self) -> None:
        self.cache, self.length, self.capacity = _new_cache(False), 0, 0


def check_tokens(
    session: Session, tokens: Sequence[int] | NDArray, vocab_size: int
) -> NDArray[np.int64]:
    """`tokens` as an array (count,). Raises UsageError as `Engine.forward` does."""
    ids = np.asarray(tokens, np.int64)
    if ids.ndim != 1 or not len(ids):
        raise UsageError("no tokens; give at least one")
    if ids.min() < 0 or ids.max() >= vocab_size:
        token = ids.min() if ids.min() < 0 else ids.max()
        raise UsageError(f"token {token} is outside the vocabulary of {vocab_size}")
    if session.length + len(ids) > session.capacity:
        raise UsageError(
            f"{len(ids)} more tokens after {session.length}: "
            f"the session holds at most {session.capacity}"
        )
    return ids


def _new_cache(half: bool) -> Any:
    """An empty KV cache; with `half` it rounds keys and values to half precision."""
    from transformers import DynamicCache

    class HalfCache(DynamicCache):
        def update(self, keys: Tensor, values: Tensor, *args: Any, **options: Any) -> Any:  # type: ignore[override]
            return super().update(
                keys.half().to(keys.dtype), values.half().to(values.dtype), *args, **options
            )

    # The model's configuration is not passed: with it, layers with a sliding window drop old tokens
    # and could not be rewound.
    return HalfCache() if half else DynamicCache()


def _context(config: Any, is_recurrent: bool) -> int:
    """The most tokens of a session. Raises BadInput when the configuration names no such number,
    unless the model `is_recurrent`, which needs none.
    """
    limit = getattr(config, "max_position_embeddings", None)
    if limit is None and is_recurrent:
        return LONGEST_TEXT
    if type(limit) is not int or limit < 1:
        raise BadInput(
            f"the configuration should say how many tokens the model can read; "
            f"max_position_embeddings is {str(limit)[:40]}"
        )
    return limit
