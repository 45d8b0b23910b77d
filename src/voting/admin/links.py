"""The addresses of polls and sessions on the three web services."""

from starlette.requests import Request

from voting.admin.code_lists import Owner
from voting.polls.poll import DEFAULT_POLL
from voting.settings.services import AdminSettings
from voting.web.origin import service_url


class Links:
    """Makes addresses for the answer to one request; without public URLs in the settings, from the host in it."""

    def __init__(self, request: Request, settings: AdminSettings) -> None:
        host = request.scope["scheme"], request.headers.get("host", "")
        self.vote = service_url(*host, settings.vote_url, settings.vote_port)
        self.result = service_url(*host, settings.result_url, settings.result_port)
        self.admin = service_url(*host, settings.admin_url, settings.admin_port)

    def of_poll(self, slug: str) -> dict[str, str]:
        path = "" if slug == DEFAULT_POLL else f"/p/{slug}"
        return {
            "vote_url": f"{self.vote}{path or '/'}",
            "result_url": f"{self.result}{path or '/'}",
            "present_url": f"{self.result}{path}/present",
            "embed_url": f"{self.result}/embed/{slug}",
            "record_url": f"{self.result}{path}/final.json",
            "ballots_url": f"{self.result}{path}/ballots",
            "control_url": f"{self.admin}/polls/{slug}/control",
        }

    def of_session(self, code: str) -> dict[str, str]:
        return {
            "join_url": f"{self.vote}/{code}",
            "result_url": f"{self.result}/s/{code}",
            "present_url": f"{self.result}/s/{code}/present",
            "control_url": f"{self.admin}/sessions/{code}/control",
        }

    def of_codes(self, owner: Owner) -> str:
        """Return the address at which people vote with codes: of the session's ballot, or of the poll's."""
        return self.of_session(owner.name)["join_url"] if owner.session else self.of_poll(owner.name)["vote_url"]

    def with_code(self, owner: Owner, code: str) -> str:
        """Return the address at which a voting code is filled in. The fragment reaches no server and no log."""
        return f"{self.of_codes(owner)}#code={code}"

    def of_host(self, token: str) -> str:
        """Return a host link, which is a secret."""
        return f"{self.admin}/host/{token}"
