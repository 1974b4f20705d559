"""The type checker that tests/conftest.py weaves into featherweight: beartype, with an int where a
float is due.
"""

from __future__ import annotations

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
