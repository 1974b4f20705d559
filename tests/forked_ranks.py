"""Runs a function on several processes that find each other like those of torchrun."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable


def run_ranks(work: Callable[[], None], num_ranks: int) -> None:
    """Call `work` in `num_ranks` forks of this process, and wait until all have succeeded.

    This process must have computed nothing with torch before, since threads do not survive a fork.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(num_ranks):
        child = os.fork()
        if child:
            children.append(child)
            continue
        os.environ |= {
            "WORLD_SIZE": str(num_ranks),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(code)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
