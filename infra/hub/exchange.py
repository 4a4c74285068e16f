"""Publishing without a long-lived token: a pod's own identity token, exchanged at the Hub for one that writes one repository for an hour.

The exchange is the unmodified client's (huggingface_hub's Trusted Publishers). The file is read at use, since Kubernetes renews it; what comes back stays
in memory.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import BadInput, Unauthorized
from infra.hub.answers import hub_errors
from infra.revisions import Repo

if TYPE_CHECKING:
    from huggingface_hub import HfApi

EARLY_SECONDS = 300.0  # a token is renewed so long before its end, or at half of its life


class ExchangedToken:
    """The token of one repository, exchanged anew before it ends."""

    def __init__(self, file: Path, repo: Repo, endpoint: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.file, self.repo, self.endpoint, self.clock = file, repo, endpoint, clock
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = float("-inf")

    def value(self) -> str:
        """A token that is good for some minutes more. Raises Unauthorized when the Hub doesn't trust the file's, or it isn't there."""
        with self._lock:
            now = self.clock()
            if now >= self._renew_at:
                self._token, seconds = self._exchanged()
                self._renew_at = now + seconds - min(EARLY_SECONDS, seconds / 2)
            return self._token

    def _exchanged(self) -> tuple[str, float]:
        from huggingface_hub._oidc import exchange_oidc_token

        doing = f"exchanging the token of {self.file} for one that writes {self.repo}"
        try:
            identity = self.file.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise Unauthorized(f"{doing}: it can't be read ({type(error).__name__}). SPACEPORT_OIDC_TOKEN_FILE names the pod's projected token.") from None
        try:
            with hub_errors(doing):
                found = exchange_oidc_token(subject_token=identity, resource=str(self.repo), endpoint=self.endpoint)
        except BadInput as error:  # the answer of the grant is 400 whatever is wrong with the identity
            raise Unauthorized(f"{error} Look at the repository's trusted publishers on the Hub, and at the audience of the projected token.") from None
        token, seconds = found.get("access_token"), found.get("expires_in")
        if not isinstance(token, str) or not token:
            raise Unauthorized(f"{doing}: the Hub's answer holds no token.")
        return token, float(seconds) if isinstance(seconds, int | float) else 3600.0


def publishing_api(file: Path, repo: Repo, endpoint: str) -> "HfApi":
    """The unmodified client, whose token is exchanged for this repository whenever a call needs it."""
    from huggingface_hub import HfApi

    source = ExchangedToken(file, repo, endpoint)

    class Exchanging(HfApi):
        @property
        def token(self) -> str:
            return source.value()

        @token.setter
        def token(self, given: object) -> None:
            """HfApi's own constructor sets it; there is none to keep."""

    return Exchanging(endpoint=endpoint)
