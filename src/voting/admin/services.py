"""What every endpoint of the admin service uses: its settings, database, access control and templates."""

from dataclasses import dataclass

from starlette.requests import Request

from voting.admin.access import Access
from voting.admin.database import Database
from voting.admin.identity import Identity
from voting.admin.links import Links
from voting.admin.metrics import AdminMetrics
from voting.settings.services import AdminSettings
from voting.web.origin import client_address
from voting.web.rendering import Pages


@dataclass(frozen=True, slots=True)
class Services:
    """Made once for each application, by `app.create_app`."""

    settings: AdminSettings
    metrics: AdminMetrics
    database: Database
    access: Access
    pages: Pages

    def links(self, request: Request) -> Links:
        return Links(request, self.settings)

    def address(self, request: Request) -> str:
        """Return the address for which wrong keys are counted."""
        return client_address(request.scope, self.settings.trusted_proxies)

    async def identify(self, request: Request) -> Identity:
        """Return who makes a request, or raise the 401, 403, 429 or 503."""
        return await self.access.identify(request.method, dict(request.scope["headers"]), self.address(request))

    def is_secure(self, request: Request) -> bool:
        """Whether the browser uses HTTPS, so that cookies must be sent over HTTPS only."""
        return self.settings.admin_url.startswith("https://") or request.scope["scheme"] == "https"
