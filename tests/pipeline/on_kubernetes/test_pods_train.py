"""Training in pods of a real cluster makes the same bytes as on this machine, with no secret and no right that it doesn't need."""

import json
import re
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from infra.hub.embedded.process import EmbeddedHub
from infra.hub.exchange import ExchangedToken
from infra.revisions import Repo
from infra.settings import PROJECT
from tests.eventually import eventually
from tests.kubernetes_cluster.cluster import NAMESPACE, RealCluster
from tests.pipeline.conftest import no_space, same_bytes_in_two_processes
from tests.pipeline.on_kubernetes.pods import TARGET
from tests.trusting_hub import users_who_trust

pytestmark = pytest.mark.kubernetes


def weights(api: Any, repo_id: str) -> str:
    """SHA-256 of what main serves."""
    (found,) = api.get_paths_info(repo_id, ["model.safetensors"])
    return str(found.lfs.sha256)


def test_a_pod_trains_the_same_bytes_and_no_other_target_trains_again(spaceport: Any, project: Path, cluster: RealCluster, hub_api: Any) -> None:
    """One Job makes the candidate, with the weights that this machine makes; the same config here then retrains nothing; no pod is left."""
    config, before = no_space(project, "acme/in-a-pod"), len(cluster.listed("jobs"))
    code, report, said = spaceport("run", str(config), "--target", TARGET)
    assert (code, report["outcome"]) == (0, "promoted"), said
    assert spaceport("run", str(config), "--target", "process")[1]["outcome"] == "unchanged"
    assert len(cluster.listed("jobs")) == before + 1 and cluster.living() == []
    assert spaceport("run", str(no_space(project, "acme/in-a-process")))[1]["outcome"] == "promoted"
    assert weights(hub_api, "acme/in-a-pod") == weights(hub_api, "acme/in-a-process")


def test_two_processes_in_a_pod_make_the_bytes_that_two_make_here(spaceport: Any, project: Path) -> None:
    """torchrun with gloo, the same world size: the same weights."""
    same_bytes_in_two_processes(spaceport, project, TARGET)


def test_two_pods_make_the_bytes_that_two_processes_make_here(spaceport: Any, project: Path, cluster: RealCluster) -> None:
    """`train.nodes`: each pod is a machine, they find each other by address, and one of them publishes; none is left."""
    same_bytes_in_two_processes(spaceport, project, TARGET, how="nodes")
    eventually(lambda: not [pod for pod in cluster.listed("pods") if pod["status"]["phase"] in {"Pending", "Running"}])


def test_no_secret_is_in_a_manifest_or_in_what_a_pod_said(spaceport: Any, cluster: RealCluster) -> None:
    """The Hub's token and Prefect's credential reach a pod by reference alone."""
    pod = cluster.listed("pods")[0]
    shown = cluster.kubectl("get", "jobs,pods,events,configmaps", "-o", "yaml") + cluster.kubectl("logs", pod["metadata"]["name"])
    named = {entry["name"] for entry in pod["spec"]["containers"][0]["env"] if "secretKeyRef" in entry.get("valueFrom", {})}
    assert {"HF_TOKEN", "PREFECT_API_AUTH_STRING"} <= named
    canaries = [*(spaceport.key(name) for name in ("hub-write", "hub-read", "prefect")), spaceport.key("prefect").partition(":")[2]]
    assert [canary for canary in canaries if not canary or canary in shown] == []


def test_a_pod_has_no_rights(cluster: RealCluster) -> None:
    """Neither on its node (not root, no privilege, no capability) nor in the cluster (no token, an account without a role)."""
    pod = cluster.listed("pods")[0]["spec"]
    container = pod["containers"][0]["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 1000
    assert not container["allowPrivilegeEscalation"] and container["capabilities"]["drop"] == ["ALL"]
    assert [volume["name"] for volume in pod["volumes"]] == ["work", "shm"]
    account = f"system:serviceaccount:spaceport:{pod['serviceAccountName']}"
    assert cluster.kubectl("auth", "can-i", "list", "pods", "--as", account, check=False).strip() == "no"


@pytest.mark.usefixtures("stuck")  # the namespace and its accounts are there
def test_a_pods_own_identity_publishes(cluster: RealCluster, tmp_path: Path) -> None:
    """The volume of docs/targets.md in a real pod: the token that the cluster puts there is exchanged, and writes the one repository that trusts it."""
    added = re.search(r"```yaml\n(# added to what the Job has.*?)```", (PROJECT / "docs" / "targets.md").read_text(), re.DOTALL)
    assert added
    job, settings = yaml.safe_load_all(added[1])
    issuer = json.loads(cluster.kubectl("get", "--raw", "/.well-known/openid-configuration"))["issuer"]
    (key,) = json.loads(cluster.kubectl("get", "--raw", "/openid/v1/jwks"))["keys"]
    (tmp_path / "issuer.pem").write_bytes(jwt.PyJWK(key).key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "users.toml").write_text(users_who_trust(issuer))
    with EmbeddedHub.start(tmp_path / "hub", tmp_path / "users.toml", ends_with_parent=True) as hub:
        hub.api().create_repo("acme/words", private=True)
        spec = job["spec"]["template"]["spec"]
        spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["audience"] = hub.endpoint
        spec["containers"][0] |= {"name": "training", "image": cluster.image, "args": ["sleep", "600"]}
        spec |= {"serviceAccountName": "spaceport-training", "securityContext": {"runAsUser": 1000, "runAsNonRoot": True, "fsGroup": 1000}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "identity", "namespace": NAMESPACE}, "spec": spec}
        cluster.kubectl("create", "-f", "-", told=json.dumps(pod))
        try:
            file = settings["data"]["SPACEPORT_OIDC_TOKEN_FILE"]
            token = eventually(lambda: cluster.kubectl("exec", "identity", "--", "cat", file, check=False))
        finally:
            cluster.kubectl("delete", "pod", "identity", "--force", "--grace-period=0", check=False)
        (tmp_path / "token").write_text(token)
        exchanged = ExchangedToken(tmp_path / "token", Repo(repo_type="model", repo_id="acme/words"), hub.endpoint).value()
        hub.api(exchanged).upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="acme/words")
        assert hub.api().list_repo_commits("acme/words")[0].authors == ["ci"]
