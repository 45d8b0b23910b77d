"""A registry with one tiny image: as much of the protocol as `docker pull` asks for.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

import contextlib
import hashlib
import io
import json
import tarfile
from typing import Self

from tests.http_server import Handler, serving

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _layer() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("nothing-in-it"))
    return buffer.getvalue()


class Registry:
    """On a free port of loopback, which Docker trusts without TLS; `image` is the name, `digest` the manifest's."""

    def __init__(self) -> None:
        layer = _layer()
        root = {"type": "layers", "diff_ids": [_digest(layer)]}
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": root}).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": _descriptor("application/vnd.docker.container.image.v1+json", config),
                "layers": [_descriptor("application/vnd.docker.image.rootfs.diff.tar", layer)],
            }
        ).encode()
        self.digest = _digest(manifest)
        contents = {_digest(part): part for part in (layer, config, manifest)}

        class Contents(Handler):
            """GET and HEAD of what there is."""

            def answer(self) -> None:
                content = b"{}" if self.path == "/v2/" else contents.get(self.path.rsplit("/", 1)[1])
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Type", MANIFEST if "/manifests/" in self.path else "application/octet-stream")
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Docker-Content-Digest", _digest(content))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

        self._handler, self._serving = Contents, contextlib.ExitStack()

    def __enter__(self) -> Self:
        url = self._serving.enter_context(serving(self._handler))
        self.image = f"{url.removeprefix('http://')}/voting"
        return self

    def __exit__(self, *_: object) -> None:
        self._serving.close()


def _descriptor(kind: str, content: bytes) -> dict[str, str | int]:
    return {"mediaType": kind, "size": len(content), "digest": _digest(content)}
