"""Settings from AWS Systems Manager Parameter Store: with `SSM_PREFIX=/voting/prod`, NAME is /voting/prod/NAME.

Parameters are read by name, so a role needs only `ssm:GetParameters` for those of its service, and `kms:Decrypt` for a
SecureString under a key of your own. boto3, from the extra `cloud`, finds region, credentials and endpoint.
https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html
"""

import time
from typing import Any

MAX_NAMES = 10  # in one GetParameters call
CACHE_SECONDS = 10.0  # a value is not read again within this time


class Unavailable(Exception):
    """Parameter Store could not be read; the message names the fix."""


class Parameters:
    """The parameters below one prefix, such as /voting/prod."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.rstrip("/")
        self._cache: dict[str, tuple[float, str]] = {}

    def read(self, names: list[str]) -> dict[str, str]:
        """Return those of the named parameters that exist, decrypted; or raise `Unavailable`."""
        client = self._client()
        found: dict[str, str] = {}
        for start in range(0, len(names), MAX_NAMES):
            found |= self._get(client, names[start : start + MAX_NAMES])
        now = time.monotonic()
        self._cache |= {name: (now, value) for name, value in found.items()}
        return found

    def reread(self, name: str) -> str:
        """Return the value of a parameter that was read before, at most `CACHE_SECONDS` old; also if it was deleted.

        Raises:
            Unavailable: see `read`; the next call within `CACHE_SECONDS` returns the previous value.
        """
        read_at, value = self._cache[name]
        if time.monotonic() - read_at < CACHE_SECONDS:
            return value
        self._cache[name] = time.monotonic(), value  # other connections do not wait for the response
        return self.read([name]).get(name, value)

    def _client(self) -> Any:
        """Return a new client: a session must not be shared by threads, nor its sockets by processes."""
        try:
            import boto3  # noqa: PLC0415 - an optional dependency
            from botocore import config, exceptions  # noqa: PLC0415
        except ImportError:
            raise Unavailable(
                "SSM_PREFIX is set, but boto3 is not installed; install voting[cloud], or build the image with "
                "LOCK=cloud"
            ) from None
        limits = config.Config(connect_timeout=1, read_timeout=2, retries={"mode": "standard", "max_attempts": 3})
        try:
            return boto3.session.Session().client("ssm", config=limits)
        except exceptions.NoRegionError:
            raise Unavailable("SSM_PREFIX is set, but no region is; set AWS_DEFAULT_REGION") from None
        except (exceptions.BotoCoreError, ValueError) as error:
            raise Unavailable(f"SSM_PREFIX: boto3 is not configured correctly: {error}") from None

    def _get(self, client: Any, names: list[str]) -> dict[str, str]:
        from botocore import exceptions  # noqa: PLC0415 - as above

        paths = [f"{self._prefix}/{name}" for name in names]
        try:
            reply = client.get_parameters(Names=paths, WithDecryption=True)
        except exceptions.NoCredentialsError:
            raise Unavailable(
                "SSM_PREFIX is set, but there are no AWS credentials; give the instance a role (and containers a hop "
                "limit of 2 for IMDSv2), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from None
        except exceptions.ClientError as error:
            raise Unavailable(self._explain(error.response["Error"], paths)) from None
        except exceptions.BotoCoreError as error:
            raise Unavailable(f"SSM_PREFIX: Parameter Store does not answer: {error}") from None
        return {each["Name"].removeprefix(f"{self._prefix}/"): each["Value"] for each in reply["Parameters"]}

    def _explain(self, error: dict[str, str], paths: list[str]) -> str:
        code, message = error.get("Code", ""), error.get("Message", "")
        shown = ", ".join(paths)
        is_denied = "AccessDenied" in f"{code} {message}"
        if "KMS" in code or (is_denied and ("kms:" in message or "ciphertext" in message)):
            return f"SSM_PREFIX: {shown} may not be decrypted ({message}); allow the role kms:Decrypt on the key"
        if is_denied:
            return (
                f"SSM_PREFIX: {shown} may not be read ({message}); "
                f"allow the role ssm:GetParameters on arn:aws:ssm:*:*:parameter{self._prefix}/*"
            )
        if "Throttl" in code or "TooManyRequests" in code:
            return f"SSM_PREFIX: Parameter Store is throttled ({message}); raise its limit, or start fewer at once"
        if "Token" in code or "UnrecognizedClient" in code or "Signature" in code:
            return f"SSM_PREFIX: AWS does not accept the credentials ({message}); renew them"
        return f"SSM_PREFIX: {code}: {message}"
