"""Schemathesis calls the API of admin in every way that its document allows, and in many that it does not.

No answer is a 5xx, and each is one that the document has: status, headers, content type and body. Schemathesis does not
check that everything that fits the schema is accepted, since JSON Schema cannot say "in the future", or "different".
"""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.integration.admin import KEY, make, make_session, serving
from voting.service.lifecycle import Stop
from voting.web.server import listen, serve

pytestmark = pytest.mark.anyio
EXAMPLES = 15  # for each operation and phase
SECONDS = 40  # of phases that generate data; the others are short
CHECKS = [
    *("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance"),
    *("response_schema_conformance", "unsupported_method", "ignored_auth", "negative_data_rejection"),
    *("missing_required_header", "allow_header_conformance", "use_after_free", "ensure_resource_availability"),
]

REJECTED = [400, 401, 403, 404, 405, 409, 413, 415, 422, 429]  # 413: data can be wrong by being too large
CONFIG = f"[checks.negative_data_rejection]\nexpected-statuses = {REJECTED}\n"


async def test_every_answer_is_documented_and_none_is_an_error_of_the_service(
    database_url: str, tmp_path: Path
) -> None:
    async with serving(database_url) as admin:
        client = await admin.client()
        await make_session(client, await make(client))
        with listen("127.0.0.1:0") as sock:
            url = f"http://127.0.0.1:{sock.getsockname()[1]}/openapi.json"
            run = ["run", url, "-H", f"Authorization: Bearer {KEY}", "--checks", ",".join(CHECKS)]
            options = [
                "-n",
                str(EXAMPLES),
                "--max-time",
                str(SECONDS),
                "--seed",
                "1",
                "--suppress-health-check",
                "all",
                "--no-color",
            ]
            (tmp_path / "schemathesis.toml").write_text(CONFIG)
            command = [sys.executable, "-m", "schemathesis.cli", *run, *options]
            stop = Stop()
            serving_requests = asyncio.create_task(serve(admin.app, sock, stop))
            process = await asyncio.create_subprocess_exec(
                *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            output, _ = await process.communicate()
            stop.set()
            await serving_requests
        assert process.returncode == 0, output.decode()
