"""Flags, a YAML file and `--set` as one plain dict: the part of a recipe that the user decided.

    --config recipe.yaml  <  --bits, --preset, --seed  <  --set key=value

Later ones win, so that a file can be varied from the shell. `--bits 2` and `bits: 2` in the file
are the same, and so are `--set plan.lm_head=Int(bits=8)` and its YAML. Objects stay text here
(`base/spec.py` reads them later). In a group (`plan`, `calibration`, ...) everything behind the
first dot is the key, because names of layers hold dots too. A run.yaml of an earlier run works as a
recipe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..base.errors import BadInput, UsageError


def gather(
    config: Path | None, flags: Mapping[str, Any], changes: Iterable[str] = ()
) -> dict[str, Any]:
    """The settings of a file, of flags and of changes, merged.

    Args: config, a YAML file; flags by key, None for a flag that was not given; changes, texts like
    "key=value". Raises BadInput for the file, UsageError for a change.
    """
    settings = {} if config is None else read(config)
    settings.update({key: value for key, value in flags.items() if value is not None})
    for change in changes:
        _apply(settings, change)
    return settings


def read(path: Path) -> dict[str, Any]:
    """The recipe in a YAML file, without what a run recorded about its machine.

    Raises BadInput for a file that cannot be read or holds no recipe.
    """
    import yaml

    from ..base.run_folder import ORIGIN

    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise BadInput(f"{path} holds no recipe; it should have lines like `bits: 2`")
    settings.pop(ORIGIN, None)
    return settings


def _apply(settings: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    group, dot, name = key.strip().partition(".")
    if not equals or not group or (dot and not name):
        raise UsageError(
            f"--set {change!r} should look like key=value, e.g. --set calibration.count=128"
        )
    if not dot:
        settings[group] = _value(text)
        return
    entries = settings.get(group)
    if entries is None:
        entries = {}
    if not isinstance(entries, dict):
        raise UsageError(f"--set {change!r}: {group} is {entries!r}, not a group of keys")
    # The new key comes first: in a plan the first pattern that matches decides, and the latest
    # change should win.
    old_entries = {key: value for key, value in entries.items() if key != name}
    settings[group] = {name: _value(text), **old_entries}


def _value(text: str) -> Any:
    import yaml

    if text.strip() == "None":
        return None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
