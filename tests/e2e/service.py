"""One service as a process, as a container runs it."""

import os
import subprocess
import sys
from pathlib import Path


class Service:
    """`voting <name>` with some settings; `log` is its output."""

    def __init__(self, name: str, folder: Path, **settings: str) -> None:
        self.name = name
        self._log = folder / f"{name}-{len(list(folder.glob(f'{name}-*.log')))}.log"
        settings |= {"METRICS_LISTEN": f"unix:{self._log.with_suffix('.sock')}"}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "voting", name],
                env=os.environ | settings,  # noqa: TID251
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        """Its output so far."""
        return self._log.read_text()

    def stop(self) -> int | None:
        """Stop it with SIGTERM; return its exit code."""
        self.process.terminate()
        return self.process.wait(20)
