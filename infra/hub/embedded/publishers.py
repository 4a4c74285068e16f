"""Trusted publishers: who may exchange an identity token (a JWT) of which issuer for a short write token of one repository.

    [[publishers]]
    on = "acme/model"                                # one repository; datasets/… or spaces/… before it
    user = "ci"                                      # in whose name it writes
    issuer = "https://oidc.example.org/cluster"
    subject = "system:serviceaccount:spaceport:spaceport-training"
    public_key = "issuer.pem"                        # beside the users file; the real Hub asks the issuer for its keys

The audience must be this Hub's address.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from infra.errors import BadInput

CLOCK_SKEW_SECONDS = 30
UNSIGNED = (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError)
FIELDS = {"on", "user", "issuer", "subject", "public_key"}


class NotTrusted(Exception):
    """Why an identity token opens nothing. Quotes nothing of it but what it claims."""


@dataclass(frozen=True)
class Publisher:
    """One row of trust."""

    on: str
    user: str
    issuer: str
    subject: str
    public_key: bytes


def read_publishers(file: Path, rows: Any, users: set[str]) -> list[Publisher]:
    """The rows of a users file. Raises BadInput."""
    found = []
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], 1):
        if not isinstance(row, dict) or set(row) != FIELDS or row["user"] not in users:
            raise BadInput(f"{file}: publisher {number} needs {', '.join(sorted(FIELDS))}, and a user of this file. See infra/hub/embedded/publishers.py.")
        key = file.parent / str(row["public_key"])
        if not key.is_file():
            raise BadInput(f"{file}: publisher {number}: {key} is no file. Name the issuer's public key in PEM form.")
        found.append(Publisher(str(row["on"]).lower(), row["user"], str(row["issuer"]), str(row["subject"]), key.read_bytes()))
    return found


def trusted(publishers: list[Publisher], resource: str, identity: str, audience: str) -> Publisher:
    """The publisher that this identity token is of. Raises NotTrusted; nothing it claims is believed before its signature is checked."""
    refusals: list[jwt.InvalidTokenError] = []
    for publisher in publishers:
        if publisher.on == resource.lower():
            try:
                _check(publisher, identity, audience)
                return publisher
            except jwt.InvalidTokenError as error:
                refusals.append(error)
    if not refusals:
        raise NotTrusted(f"no trusted publisher is set up for {resource[:100]}")
    signed = [error for error in refusals if not isinstance(error, UNSIGNED)]
    raise NotTrusted(_reason((signed or refusals)[0], identity, audience))


def _check(publisher: Publisher, identity: str, audience: str) -> None:
    """Raises InvalidTokenError. The algorithm is the key's own, whatever the token's header wishes for."""
    key = load_pem_public_key(publisher.public_key)
    algorithm = "ES256" if isinstance(key, EllipticCurvePublicKey) else "RS256"
    claims: dict[str, Any] = {"issuer": publisher.issuer, "subject": publisher.subject, "audience": audience, "leeway": CLOCK_SKEW_SECONDS}
    try:
        jwt.decode(identity, publisher.public_key, [algorithm], {"require": ["exp", "iss", "sub", "aud"]}, **claims)
    except RecursionError:  # a header of a thousand brackets
        raise jwt.DecodeError from None


def _reason(error: jwt.InvalidTokenError, identity: str, audience: str) -> str:
    """In words; claims are quoted only of a token whose signature was good."""
    match error:
        case jwt.InvalidSignatureError() | jwt.InvalidAlgorithmError():
            return "its signature is of no issuer that this repository trusts"
        case jwt.DecodeError():
            return "it is no JWT"
        case jwt.ExpiredSignatureError():
            return "it has expired"
        case jwt.ImmatureSignatureError():
            return "it isn't valid yet"
        case jwt.MissingRequiredClaimError():
            return f"it lacks {error.claim!r}"
    claims = jwt.decode(identity, options={"verify_signature": False})
    if isinstance(error, jwt.InvalidAudienceError):
        return f"its audience is {str(claims.get('aud'))[:100]!r}, not {audience}"
    return f"issuer {str(claims.get('iss'))[:100]!r} with subject {str(claims.get('sub'))[:100]!r} isn't what this repository trusts"
