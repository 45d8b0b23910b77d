"""Settings from AWS Systems Manager Parameter Store: `SSM_PREFIX=/voting/prod` makes NAME come from /voting/prod/NAME.

Only the names asked for are read, so a role needs no more than `ssm:GetParameters` on its own parameters (and
`kms:Decrypt` for a SecureString under a key of one's own). Region, credentials and endpoint are found as boto3 finds
them. boto3 is imported here alone and only when it is used; it comes with the extra `cloud`.
https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html
"""

import time
from typing import Any

AT_ONCE = 10  # names that one GetParameters takes
FRESH_SECONDS = 10.0  # a value read so lately is not asked for again, whoever connects how often


class Unavailable(Exception):
    """Parameter Store did not give what it was asked for; the message names the fix."""


class Parameters:
    """The parameters below one prefix.

    Args:
        prefix: such as /voting/prod.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.rstrip("/")
        self._held: dict[str, tuple[float, str]] = {}

    def read(self, names: list[str]) -> dict[str, str]:
        """Those of the named parameters that exist, decrypted.

        Raises:
            Unavailable: boto3, region, credentials or a permission is missing, or there is no answer within seconds.
        """
        client = self._client()
        found: dict[str, str] = {}
        for start in range(0, len(names), AT_ONCE):
            found |= self._ask(client, names[start : start + AT_ONCE])
        now = time.monotonic()
        self._held |= {name: (now, value) for name, value in found.items()}
        return found

    def again(self, name: str) -> str:
        """One parameter that was read before, as it is now or was `FRESH_SECONDS` ago; as it was, if it has gone.

        Raises:
            Unavailable: as for `read`; it is not asked for again before `FRESH_SECONDS` have passed either.
        """
        read_at, value = self._held[name]
        if time.monotonic() - read_at < FRESH_SECONDS:
            return value
        self._held[name] = time.monotonic(), value  # whoever connects meanwhile does not wait for the answer
        return self.read([name]).get(name, value)

    def _client(self) -> Any:
        """A client for one use: sessions are not for several threads, nor their sockets for several processes."""
        try:
            import boto3  # noqa: PLC0415 - only installations that use it have it
            from botocore import config, exceptions  # noqa: PLC0415
        except ImportError:
            raise Unavailable(
                "SSM_PREFIX is set, but boto3 is not installed; install voting[cloud], or build the image with "
                "LOCK=cloud"
            ) from None
        patience = config.Config(connect_timeout=1, read_timeout=2, retries={"mode": "standard", "max_attempts": 3})
        try:
            return boto3.session.Session().client("ssm", config=patience)
        except exceptions.NoRegionError:
            raise Unavailable("SSM_PREFIX is set, but no region; set AWS_DEFAULT_REGION") from None
        except (exceptions.BotoCoreError, ValueError) as error:
            raise Unavailable(f"SSM_PREFIX: boto3 cannot be used as it is set up: {error}") from None

    def _ask(self, client: Any, names: list[str]) -> dict[str, str]:
        from botocore import exceptions  # noqa: PLC0415 - as above

        paths = [f"{self._prefix}/{name}" for name in names]
        try:
            answer = client.get_parameters(Names=paths, WithDecryption=True)
        except exceptions.NoCredentialsError:
            raise Unavailable(
                "SSM_PREFIX is set, but there are no AWS credentials; give the instance a role (and containers a hop "
                "limit of 2 for IMDSv2), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from None
        except exceptions.ClientError as error:
            raise Unavailable(self._sentence(error.response["Error"], paths)) from None
        except exceptions.BotoCoreError as error:
            raise Unavailable(f"SSM_PREFIX: Parameter Store does not answer: {error}") from None
        return {each["Name"].removeprefix(f"{self._prefix}/"): each["Value"] for each in answer["Parameters"]}

    def _sentence(self, error: dict[str, str], paths: list[str]) -> str:
        """What is wrong, and its fix."""
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
