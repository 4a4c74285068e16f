"""The users file of a Hub that trusts one issuer of identities: its pods may write one repository, in the name of `ci`."""

SUBJECT = "system:serviceaccount:spaceport:spaceport-training"


def users_who_trust(issuer: str) -> str:
    """The file's text; the issuer's public key lies beside it, as issuer.pem."""
    return f"""
default = "alice"
[users.alice]
tokens = [{{ role = "write" }}]
[users.ci]
[organisations.acme]
members = {{ alice = "admin", ci = "write" }}
[[publishers]]
on = "acme/words"
user = "ci"
issuer = "{issuer}"
subject = "{SUBJECT}"
public_key = "issuer.pem"
"""
