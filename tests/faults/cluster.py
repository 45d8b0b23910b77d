"""A PostgreSQL cluster that is made and migrated once; each system under test gets a copy."""

import asyncio
import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.waiting import eventually
from voting.local import servers
from voting.local.datadir import DataDir
from voting.local.supervisor import Part

ROOT = Path(__file__).parents[2]


async def is_ready(part: Part) -> bool:
    """Return whether a store is ready."""
    return await part.is_ready()


@functools.cache
def cluster_files() -> Path:
    """Return the files of a migrated database cluster; made once, removed when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="voting-cluster-"))
    atexit.register(shutil.rmtree, folder)
    folder.chmod(0o711)  # PostgreSQL of root runs as another user, who needs to enter it
    data = DataDir(folder)
    data.open()
    part, url = servers.postgres(data)
    with data.log_file(part.name).open("ab") as log:
        process = subprocess.Popen(part.command, cwd="/", stdout=log, stderr=log, **part.options)
    try:
        eventually(lambda: asyncio.run(is_ready(part)))
        environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT / "src"), "DATABASE_URL": url}
        subprocess.run([sys.executable, "-m", "voting", "migrate"], env=environment, check=True, capture_output=True)
    finally:
        process.send_signal(part.stop_signal)
        process.wait(30)
        data.close()
    return data.postgres / "data"
