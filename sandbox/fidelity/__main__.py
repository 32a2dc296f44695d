"""The emulator's process: `python -m sandbox.fidelity TOKEN ADDRESS...`, started by `sandbox.aws`.

TOKEN only makes the process recognisable in the process table.
"""

from __future__ import annotations

import asyncio
import os
import sys

import ministack.app
from hypercorn.asyncio import serve
from hypercorn.config import Config

from sandbox.fidelity import (  # noqa: F401 - importing applies the patches
    cloudformation,
    functions,
    identity,
    metrics,
    objects,
    registry,
    rest_apis,
    runtimes,
    schedules,
    step_functions,
    topics,
)


def main() -> None:
    """Serve the patched emulator on `GATEWAY_PORT` of the given addresses until SIGTERM."""
    config = Config()
    config.bind = [f"{address}:{os.environ['GATEWAY_PORT']}" for address in sys.argv[2:]]
    config.keep_alive_timeout = 75
    metrics.evaluate_alarms_from_now_on()
    asyncio.run(serve(ministack.app.app, config))


if __name__ == "__main__":
    main()
