"""Publishing without a long-lived token: the pod's identity is exchanged for a short token of one repository, by the unmodified client."""

import base64
import hmac
import json
import time

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from huggingface_hub.errors import HfHubHTTPError

from infra.errors import Unauthorized
from infra.hub.client import HubClient
from infra.hub.embedded.process import EmbeddedHub
from infra.hub.embedded.publishers import NotTrusted, Publisher, trusted
from infra.hub.exchange import ExchangedToken
from infra.hub.step_records import StepRecord
from infra.redaction import without_tokens
from infra.revisions import DatasetRevision, Repo
from infra.settings import Settings
from tasks.publish_candidate import ModelConfig, Provenance, publish_candidate
from tests import patient_http
from tests.trusting_hub import SUBJECT, users_who_trust

ISSUER = "https://oidc.example.org/cluster"
REPO = Repo(repo_type="model", repo_id="acme/words")


class Cluster:
    """An issuer of identity tokens, and the file in a pod that holds one."""

    def __init__(self, folder) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.file = folder / "token"
        (folder / "issuer.pem").write_bytes(_public(self.key))

    def project(self, hub, key=None, algorithm="RS256", **claims) -> str:
        """Write a token into the pod, as Kubernetes does."""
        told = {"iss": ISSUER, "sub": SUBJECT, "aud": [hub.endpoint], "exp": time.time() + 600, **claims}
        identity = _signed(told, algorithm, key or self.key)
        self.file.write_text(identity + "\n")
        return identity


def _public(key) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _signed(claims, algorithm, key) -> str:
    """A JWT made by hand (RFC 7515 and 7518), so that no library is trusted with both ends. A forger who knows the public key signs with HS256."""
    said = f"{_encoded({'alg': algorithm, 'typ': 'JWT'})}.{_encoded({name: value for name, value in claims.items() if value is not None})}"
    if algorithm == "HS256":
        signature = hmac.digest(_public(key), said.encode(), "sha256")
    elif algorithm == "ES256":
        both = decode_dss_signature(key.sign(said.encode(), ec.ECDSA(hashes.SHA256())))
        signature = b"".join(number.to_bytes(32) for number in both)
    else:
        signature = key.sign(said.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{said}.{_encoded(signature)}"


def _encoded(part) -> str:
    content = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


@pytest.fixture
def acme(cluster, tmp_path, request):
    """A Hub that trusts the cluster for acme/words, a private model; acme/other is there, too. `request.param`: how long an exchanged token is good."""
    (tmp_path / "users.toml").write_text(users_who_trust(ISSUER))
    seconds = getattr(request, "param", 3600)
    with EmbeddedHub.start(tmp_path / "hub", tmp_path / "users.toml", ends_with_parent=True, exchanged_token_seconds=seconds) as running:
        for name in ("words", "other"):
            running.api().create_repo(f"acme/{name}", private=True)
        yield running


def client_of(cluster, acme) -> HubClient:
    told = {"HF_ENDPOINT": acme.endpoint, "HF_TOKEN": "hf_not_to_be_used_here", "SPACEPORT_OIDC_TOKEN_FILE": str(cluster.file)}
    return HubClient.to_publish(REPO, Settings.model_validate(told))


def test_a_pod_publishes_by_its_own_identity(cluster, acme, tmp_path):
    """With the projected token alone a candidate is published, in the name that the repository trusts."""
    cluster.project(acme)
    client, output = client_of(cluster, acme), tmp_path / "output"
    output.mkdir()
    (output / "model.json").write_text('{"word": 1}')
    origin = Provenance(dataset=DatasetRevision(repo_id="acme/rows", sha="a" * 40), dataset_digest="d")
    made = publish_candidate(output, None, {"accuracy": 0.9}, StepRecord.of("train_model", 1, {}), origin, ModelConfig(repo_id="acme/words"), client)
    assert made.outcome == "published" and acme.api().list_repo_commits("acme/words", revision=made.revision.sha)[0].authors == ["ci"]
    assert client.read_bytes(made.revision, "model.json") == b'{"word": 1}'


def test_an_exchanged_token_writes_one_repository(cluster, acme):
    """Neither another one of the same owner, nor a new one."""
    cluster.project(acme)
    token = ExchangedToken(cluster.file, REPO, acme.endpoint).value()
    api = acme.api(token)
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="acme/words")
    for refused in (lambda: api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="acme/other"), lambda: api.create_repo("acme/new")):
        with pytest.raises(HfHubHTTPError):
            refused()


@pytest.mark.parametrize("acme", [1], indirect=True)
def test_an_exchanged_token_ends(cluster, acme):
    """Once its time is over it is a token that nobody knows."""
    cluster.project(acme)
    headers = {"Authorization": f"Bearer {ExchangedToken(cluster.file, REPO, acme.endpoint).value()}"}
    time.sleep(1.1)
    assert patient_http.get(f"{acme.endpoint}/api/models/acme/words", headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"sub": "system:serviceaccount:default:somebody"}, "isn't what this repository trusts"),
        ({"iss": "https://elsewhere.example.org"}, "isn't what this repository trusts"),
        ({"aud": "https://kubernetes.default.svc"}, "its audience is 'https://kubernetes.default.svc', not http://127.0.0.1"),
        ({"exp": 1_700_000_000}, "it has expired"),
        ({"nbf": 9_999_999_999}, "it isn't valid yet"),
        ({"key": rsa.generate_private_key(public_exponent=65537, key_size=2048)}, "its signature is of no issuer that this repository trusts"),
        ({"algorithm": "none"}, "its signature is of no issuer that this repository trusts"),
        ({"algorithm": "HS256"}, "its signature is of no issuer that this repository trusts"),
        ({"exp": None}, "it lacks 'exp'"),
    ],
)
def test_an_identity_that_is_not_trusted_publishes_nothing_and_is_never_quoted(cluster, acme, claims, said):
    """One line that says why and what to look at, without the token; an error of permission, not tried again."""
    identity = cluster.project(acme, **claims)
    with pytest.raises(Unauthorized) as refused:
        client_of(cluster, acme).read_bytes(REPO.at("a" * 40), "README.md")
    line = str(refused.value)
    assert said in line and "trusted publishers" in line and "\n" not in line and not any(part in line for part in identity.split("."))


def test_an_issuer_with_an_elliptic_key_is_trusted_for_what_that_key_signed():
    """ES256 by its key and no other; of two publishers the one that signed is told apart."""
    ours, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    hub, claims = "http://127.0.0.1:1", {"iss": ISSUER, "sub": SUBJECT, "aud": "http://127.0.0.1:1", "exp": time.time() + 60}
    rows = [Publisher("acme/words", user, ISSUER, subject, _public(ours)) for user, subject in (("another", "nobody"), ("ci", SUBJECT))]
    assert trusted(rows, "acme/words", _signed(claims, "ES256", ours), hub).user == "ci"
    for identity in (_signed(claims, "ES256", other), _signed(claims, "HS256", ours)):
        with pytest.raises(NotTrusted, match="its signature is of no issuer"):
            trusted(rows, "acme/words", identity, hub)
    for nonsense in ("", "a.b.c", _encoded(b'{"a":' * 9000) + ".e30.x"):
        with pytest.raises(NotTrusted, match="no JWT"):
            trusted(rows, "acme/words", nonsense, hub)


def test_a_repository_without_a_trusted_publisher_is_told_of(cluster, acme):
    """The exchange is for one repository; trust in one is none in another."""
    cluster.project(acme)
    with pytest.raises(Unauthorized, match="no trusted publisher is set up for datasets/acme/words"):
        ExchangedToken(cluster.file, Repo(repo_type="dataset", repo_id="acme/words"), acme.endpoint).value()


def test_a_file_that_is_not_there_is_one_line(cluster, acme):
    """The pod lacks its projected volume: said with the variable's name."""
    with pytest.raises(Unauthorized, match=r"it can't be read \(FileNotFoundError\)\. SPACEPORT_OIDC_TOKEN_FILE names"):
        ExchangedToken(cluster.file, REPO, acme.endpoint).value()


def test_a_token_is_kept_and_renewed_before_its_end(cluster, acme):
    """One exchange until five minutes before its end, then another, with what the file holds by then."""
    cluster.project(acme)
    now = [0.0]
    source = ExchangedToken(cluster.file, REPO, acme.endpoint, clock=lambda: now[0])
    first = source.value()
    cluster.file.write_text("nothing that anybody trusts")
    now[0] = 3290.0
    assert source.value() == first
    now[0] = 3310.0
    with pytest.raises(Unauthorized, match="no JWT"):
        source.value()
    cluster.project(acme)
    assert source.value() != first


def test_no_identity_or_exchanged_token_is_quoted():
    """Whatever a service says is searched for them."""
    assert without_tokens("no: hf_jwt_eyJhbGciOi.eyJzdWIi.c2ln and eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln") == "no: hf_*** and ***"
