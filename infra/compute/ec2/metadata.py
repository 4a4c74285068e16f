"""What EC2 tells a machine about itself, by IMDSv2. Standard library only."""

import json
import time
import urllib.error
import urllib.request
from typing import Final

ADDRESS: Final = "http://169.254.169.254"
TOKEN_SECONDS: Final = 3600
TIMEOUT_SECONDS: Final = 2.0


class Metadata:
    """The metadata service of the machine that this runs on."""

    def __init__(self) -> None:
        self._token, self._token_ends = "", 0.0

    def spot_notice(self) -> str | None:
        """When EC2 will take the machine away, as it says it; None while it doesn't, and where nobody answers."""
        try:
            said = json.loads(self._get("/latest/meta-data/spot/instance-action"))
        except (OSError, ValueError):  # 404: no notice
            return None
        return f"{said.get('action')} at {said.get('time')}" if isinstance(said, dict) else None

    def _get(self, path: str) -> bytes:
        if time.monotonic() > self._token_ends:
            request = urllib.request.Request(  # noqa: S310 - the service's fixed address
                f"{ADDRESS}/latest/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
            )
            self._token, self._token_ends = self._answer(request).decode(), time.monotonic() + TOKEN_SECONDS / 2
        return self._answer(urllib.request.Request(f"{ADDRESS}{path}", headers={"X-aws-ec2-metadata-token": self._token}))  # noqa: S310

    def _answer(self, request: urllib.request.Request) -> bytes:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            return bytes(answer.read())
