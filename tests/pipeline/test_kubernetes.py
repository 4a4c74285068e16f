"""Training in pods of a real cluster: the same as on this machine, and true whatever dies. `make test-kubernetes`."""

import json
import re
import threading
import time
from ast import literal_eval
from base64 import b64decode
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flows.config_files import load_run_config
from infra.compute.kubernetes.ready import MANIFESTS
from infra.compute.kubernetes.watch import EVERY_SECONDS
from infra.hub.embedded.process import EmbeddedHub
from infra.hub.exchange import ExchangedToken
from infra.prefect_api import FINAL_STATES, PrefectApi
from infra.revisions import Repo
from infra.settings import PROJECT
from tests.eventually import eventually, within
from tests.kubernetes_cluster.cluster import NAMESPACE, RealCluster, real_cluster
from tests.pipeline.conftest import SLOW_MACHINE_SECONDS, Work, no_space, same_bytes_in_two_processes
from tests.pipeline.kill_matrix import Case, every_seed, every_victim, kill_container, log_lines
from tests.trusting_hub import users_who_trust

TARGET = "kubernetes"
EPOCHS = 40  # some 20 s on a fast machine
pytestmark = pytest.mark.kubernetes


@pytest.fixture(scope="module")
def cluster() -> Iterator[RealCluster]:
    with real_cluster() as found:
        yield found


@pytest.fixture(scope="module")
def stack_environment(cluster: RealCluster) -> dict[str, str]:
    """The stack knows the cluster; pauses before a further try are short."""
    return cluster.environment | {"SPACEPORT_RETRY_PACE": "0.02"}


@pytest.fixture
def hub_api(spaceport: Any) -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=spaceport.endpoint, token=spaceport.key("hub-write"))


def weights(api: Any, repo_id: str) -> str:
    """SHA-256 of what main serves."""
    (found,) = api.get_paths_info(repo_id, ["model.safetensors"])
    return str(found.lfs.sha256)


def test_a_pod_trains_the_same_bytes_and_no_other_target_trains_again(spaceport: Any, project: Path, cluster: RealCluster, hub_api: Any) -> None:
    """One Job makes the candidate, with the weights that this machine makes; the same config here then retrains nothing; no pod is left."""
    config = no_space(project, "acme/in-a-pod")
    code, report, said = spaceport("run", str(config), "--target", TARGET)
    assert (code, report["outcome"]) == (0, "promoted"), said
    assert spaceport("run", str(config), "--target", "process")[1]["outcome"] == "unchanged"
    assert len(cluster.listed("jobs")) == 1 and cluster.living() == []
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


class Training:
    """A pipeline run that waits for a long training in a pod."""

    def __init__(self, spaceport: Any, config: Path, prefect: PrefectApi, cluster: RealCluster, epochs: int = EPOCHS) -> None:
        self.spaceport, self.prefect, self.cluster = spaceport, prefect, cluster
        self.key = config.stem
        self.words = ["run", str(config), "--target", TARGET, "--train.args.epochs", str(epochs), "--key", self.key]
        self.run = str(spaceport(*self.words, "--detach")[1]["flow_run"]["id"])
        self.child = eventually(self._child)
        eventually(lambda: self.said("is sealed"))

    def _child(self) -> str | None:
        found = [run for run in self.prefect.find_runs(tag="spaceport") if run["name"].startswith("train-") and run["parent_task_run_id"] is None]
        mine = [run for run in found if run["parameters"]["config"]["model"]["repo_id"] == f"acme/{self.key}"]
        return str(mine[0]["id"]) if mine else None

    @property
    def pod(self) -> str:
        """The name of the pod that trains."""
        (name,) = self.cluster.living(self.child)
        return name

    def is_promoted(self) -> None:
        """Follow it to its end, which must be that."""
        _, report, said = self.spaceport(*self.words)
        assert report["outcome"] == "promoted", (report, said)

    def said(self, words: str) -> bool:
        """Whether the training run's log holds these."""
        return any(words in line for line in log_lines(self.prefect, self.child))

    def state(self) -> dict[str, Any]:
        """The training run's state."""
        return dict(self.prefect.read_run(self.child)["state"])


@pytest.fixture
def training(request: pytest.FixtureRequest, spaceport: Any, project: Path, prefect: PrefectApi, cluster: RealCluster) -> Iterator[Training]:
    config = no_space(project, f"acme/{request.node.name.replace('_', '-')[5:35].strip('-')}")
    yield Training(spaceport, config, prefect, cluster, getattr(request, "param", EPOCHS))
    eventually(lambda: cluster.living() == [])


def test_a_deleted_pod_is_replaced_and_goes_on(training: Training) -> None:
    """Kubernetes starts another pod for the same Job, which goes on from the checkpoint that the first sealed as it went; one model is promoted, by one run."""
    first = training.pod
    training.cluster.kubectl("delete", "pod", first, "--wait=false")
    training.is_promoted()
    assert training.state()["type"] == "COMPLETED" and len(training.cluster.listed("jobs", training.child)) == 1
    assert training.said("goes on from checkpoint")


@pytest.mark.parametrize("training", [4 * EPOCHS], indirect=True)  # the second pod begins well before the first could end
def test_of_two_pods_of_one_run_only_one_seals_and_the_other_is_gone_within_a_minute(training: Training) -> None:
    """Kubernetes may start a pod beside one that still lives: 1.20 where a pod was deleted, any version where a node is cut off. The newest attempt wins."""
    first = training.pod
    (pod,) = training.cluster.listed("pods", training.child)
    labels = {name: value for name, value in pod["metadata"]["labels"].items() if not name.endswith("controller-uid")}  # its Job doesn't count it
    pod["metadata"] = {"name": f"{first}-twin", "namespace": NAMESPACE, "labels": labels}
    del pod["status"], pod["spec"]["nodeName"]
    training.cluster.kubectl("create", "-f", "-", told=json.dumps(pod))
    eventually(lambda: f"{first}-twin" in training.cluster.living(training.child), 60)
    eventually(lambda: training.prefect.read_run(training.child)["run_count"] >= 2, 120)
    eventually(lambda: len(training.cluster.living(training.child)) == 1, 60)
    training.is_promoted()
    eventually(lambda: training.state()["type"] == "COMPLETED", 60)
    history = [(state["type"], state["name"], state["message"]) for state in training.prefect.states_of(training.child)]
    assert training.said("is superseded by attempt") and "FAILED" not in [kind for kind, *_ in history], history


def test_a_pod_that_dies_while_nobody_watches_is_replaced(spaceport: Any, training: Training) -> None:
    """Worker and watch are dead, then the container is killed as a kernel would (exit 137): the run goes on from what was sealed, and is promoted once.

    On 1.20 the Job starts the next pod; from 1.26 on our failure policy ends the Job, and who comes back starts the run again in another.
    """
    if not training.cluster.is_ours:
        pytest.skip("it kills a process of the node, which runs elsewhere")
    for daemon in (f"worker-{TARGET}", f"watch-{TARGET}"):
        spaceport.daemon(daemon).kill()
    kill_container(training.child)
    training.is_promoted()
    assert training.state()["type"] == "COMPLETED" and training.said("goes on from checkpoint")


def test_a_training_outlives_its_worker(spaceport: Any, training: Training) -> None:
    """kill -9 of the worker: the pod goes on and publishes, the pipeline promotes; nothing runs twice."""
    spaceport.daemon(f"worker-{TARGET}").kill()
    training.is_promoted()
    assert len(training.cluster.listed("jobs", training.child)) == 1


def test_a_training_outlives_its_pipeline(training: Training) -> None:
    """kill -9 of the pipeline's process: the pod goes on, and the same run, started again, waits for it; nothing runs twice."""
    Work.process_of(training.run).kill()
    training.is_promoted()
    assert len(training.cluster.listed("jobs", training.child)) == 1 and training.prefect.read_run(training.child)["run_count"] == 1


def test_a_deleted_job_is_crashed_with_the_reason_and_trained_again(training: Training) -> None:
    """The whole Job is deleted, as the sweep does by the cluster's own list: the pipeline starts the same run again in another."""
    sweep = "from infra.compute.kubernetes import leases as k; print([(i.run, k.end(i.id), i.expires_at.timestamp()) for i in k.list_leased()])"
    ((run, ended, expires_at),) = literal_eval(training.cluster.ask(sweep))
    assert (run, ended) == (training.child, True) and expires_at > time.time()
    training.is_promoted()
    assert any("without a word of its run" in str(state["message"]) for state in training.prefect.states_of(training.child))


def test_cancelling_the_pipeline_ends_the_pod(training: Training) -> None:
    """With the last who waits for it, the training is cancelled, and nothing is rented any more."""
    training.prefect.cancel_run(training.run)
    eventually(lambda: training.state()["type"] == "CANCELLED")
    eventually(lambda: training.cluster.living(training.child) == [])


class Stuck:
    """Runs whose pods can't start, with job variables of their own."""

    def __init__(self, spaceport: Any, project: Path, prefect: PrefectApi, cluster: RealCluster) -> None:
        self.spaceport, self.project, self.prefect, self.cluster = spaceport, project, prefect, cluster
        assert spaceport("check", str(no_space(project, "acme/looked-at")), "--target", TARGET)[0] == 0
        self.deployment = prefect.deployment_id(f"train_model/{TARGET}")
        self.before = prefect.call("GET", f"/deployments/{self.deployment}")["job_variables"]

    def variables(self, **chosen: Any) -> None:
        self.prefect.call("PATCH", f"/deployments/{self.deployment}", {"job_variables": self.before | chosen})

    def seconds_until_failed(self, name: str) -> float:
        """From the training run's first being taken up to its first failure."""
        children = [
            run for run in self.prefect.find_runs(tag="spaceport") if run["parameters"].get("config", {}).get("model", {}).get("repo_id") == f"acme/{name}"
        ]
        (child,) = [run for run in children if run["name"].startswith("train-")]
        first = {state["type"]: datetime.fromisoformat(state["timestamp"]) for state in reversed(self.prefect.states_of(child["id"]))}
        return (first["FAILED"] - first["PENDING"]).total_seconds()

    def run(self, name: str, *words: str) -> tuple[int, dict[str, Any], str]:
        code, report, said = self.spaceport("run", str(no_space(self.project, f"acme/{name}")), "--target", TARGET, *words)
        return code, report, said


@pytest.fixture
def stuck(spaceport: Any, project: Path, prefect: PrefectApi, cluster: RealCluster) -> Iterator[Stuck]:
    found = Stuck(spaceport, project, prefect, cluster)
    yield found
    found.variables()
    eventually(lambda: cluster.living() == [])


@pytest.mark.parametrize(
    ("name", "chosen", "kind", "words"),
    [
        ("no-image", {"image": "localhost/nobody/has:this"}, "bad input", "localhost/nobody/has:this"),
        ("no-gpu", {"gpus": 1}, "capacity", "nvidia.com/gpu"),
        ("no-image-name", {"image": "Not A/Name"}, "bad input", "InvalidImageName"),
        ("no-account", {"service_account_name": "nobody-made-it"}, "bad input", "nobody-made-it"),
        ("no-node", {"node_selector": {"cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice"}, "tpus": 4}, "capacity", "node"),
    ],
)
def test_a_pod_that_can_never_start_is_said(stuck: Stuck, name: str, chosen: dict[str, Any], kind: str, words: str) -> None:
    """No image, no GPU, no account, no such node: the run fails with the kind and the cluster's reason within a minute of its start limit; the Job is gone."""
    stuck.variables(**chosen, start_timeout_seconds=15)
    code, report, _ = stuck.run(name)
    assert stuck.seconds_until_failed(name) < 15 + 60
    assert (code, report["error"]["kind"]) == (1, kind)
    assert words in report["error"]["message"] and "within 15 s" in report["error"]["message"]


def test_a_drained_nodes_pod_is_replaced_and_has_the_whole_start_limit(
    stuck: Stuck, spaceport: Any, project: Path, prefect: PrefectApi, cluster: RealCluster
) -> None:
    """Cordoned, and its pod evicted: the pod seals; its Job, older than the limit, starts another, which waits for a node, and goes on."""
    if not cluster.is_ours:
        pytest.skip("it cordons the node, which is not for somebody's cluster")
    limit_seconds = 40
    stuck.variables(start_timeout_seconds=limit_seconds)
    training = Training(spaceport, no_space(project, "acme/drained"), prefect, cluster, 6 * EPOCHS)
    (job,) = cluster.listed("jobs", training.child)
    born_at = datetime.fromisoformat(job["metadata"]["creationTimestamp"]).timestamp()
    threading.Event().wait(born_at + limit_seconds - time.time())  # from here on the Job is older than its limit
    eviction = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": training.pod, "namespace": NAMESPACE}}  # policy/v1 from 1.22 on
    cluster.kubectl("cordon", cluster.node)
    try:
        cluster.kubectl("create", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{training.pod}/eviction", "-f", "-", told=json.dumps(eviction))
        eventually(lambda: [pod for pod in cluster.listed("pods", training.child) if pod["status"]["phase"] == "Pending"], 90)
        threading.Event().wait(2 * EVERY_SECONDS)  # the watch has looked; the pod itself waits for less than the limit
    finally:
        cluster.kubectl("uncordon", cluster.node)
    training.is_promoted()
    assert training.said("goes on from checkpoint") and len(cluster.listed("jobs", training.child)) == 1
    history = [(state["type"], state["message"]) for state in prefect.states_of(training.child)]
    assert "FAILED" not in [kind for kind, _ in history], history


def test_a_pod_that_fills_its_disk_is_evicted_and_goes_on_in_another(
    stuck: Stuck, spaceport: Any, project: Path, prefect: PrefectApi, cluster: RealCluster
) -> None:
    """The kubelet's own eviction, of every pod of a Job: said as evicted in its words, and the run goes on in another Job from what was sealed."""
    stuck.variables(disk_limit="400Mi", backoff_limit=1)
    training = Training(spaceport, no_space(project, "acme/full"), prefect, cluster)
    (job,) = cluster.listed("jobs", training.child)
    for _ in range(2):
        pod = eventually(lambda: _running(cluster, job))
        eventually(lambda pod=pod: _is_full(cluster, pod))
    training.is_promoted()
    said = [str(state["message"]) for state in prefect.states_of(training.child)]
    assert any("evicted" in line and "ephemeral local storage usage exceeds" in line for line in said), said
    assert training.said("goes on from checkpoint")


def _worker_said(cluster: RealCluster) -> str:
    return cluster.kubectl("logs", "deployment/spaceport-worker", "--all-containers", "--tail=100", check=False)


def _is_full(cluster: RealCluster, pod: str) -> bool:
    """Whether the kubelet has thrown it out; until then its script stands still and its disk is filled, again where that failed.

    The kubelet measures disks 10 to 60 s apart: a script that went on could end before it is looked at.
    """
    if cluster.kubectl("get", "pod", pod, "-o", "jsonpath={.status.reason}") == "Evicted":
        return True
    freeze = "kill -s STOP -- -1"  # all but the pod's first process, which follows the script, and this shell
    cluster.kubectl("exec", pod, "--", "sh", "-c", f"{freeze}; [ -e /tmp/filled ] || {{ head -c 450M /dev/zero > /tmp/fill && : > /tmp/filled; }}", check=False)
    return False


def _running(cluster: RealCluster, job: dict[str, Any]) -> str | None:
    pods = [pod for pod in cluster.listed("pods") if pod["metadata"]["labels"].get("job-name") == job["metadata"]["name"]]
    return next((str(pod["metadata"]["name"]) for pod in pods if pod["status"]["phase"] == "Running"), None)


def test_a_local_stack_leaves_a_teams_secret_alone(cluster: RealCluster) -> None:
    """Whoever has a team's cluster in KUBECONFIG puts no tokens of a laptop into its pods: said, and nothing changed."""
    cluster.kubectl("create", "namespace", "a-team")
    cluster.kubectl("create", "secret", "generic", "spaceport-secrets", "--from-literal=HF_TOKEN=theirs", "-n", "a-team")
    said = cluster.ask("from infra.compute.kubernetes.ready import make_ready; make_ready({'HF_TOKEN': 'ours'}, {}, 'a-team')")
    assert "BadInput" in said and "SPACEPORT_KUBERNETES_NAMESPACE" in said
    kept = json.loads(cluster.kubectl("get", "secret", "spaceport-secrets", "-o", "json", "-n", "a-team"))["data"]
    cluster.kubectl("delete", "namespace", "a-team", "--wait=false")
    assert b64decode(kept["HF_TOKEN"]) == b"theirs"


@pytest.fixture
def served_from_inside(stuck: Stuck, spaceport: Any, cluster: RealCluster) -> Iterator[Stuck]:
    """Quota, worker and watch as a team applies them, with the image and the address that this cluster's pods need; no worker outside it."""
    address = stuck.prefect.url.replace("//127.0.0.1:", f"//{cluster.reachable_at}:")
    (worker,) = yaml.safe_load_all((MANIFESTS / "worker.yaml").read_text())
    for container in worker["spec"]["template"]["spec"]["containers"]:
        container["image"] = cluster.image
        container["env"] = [entry | ({"value": address} if entry["name"] == "PREFECT_API_URL" else {}) for entry in container["env"]]
        if cluster.is_ours:  # it has no kube-proxy, so the API server's own address stands for that of its Service
            api = urlsplit(yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
            container["env"] += [{"name": f"KUBERNETES_SERVICE_{name}", "value": str(value)} for name, value in (("HOST", api.hostname), ("PORT", api.port))]
    manifests = {"apiVersion": "v1", "kind": "List", "items": [worker, *yaml.safe_load_all((MANIFESTS / "quota.yaml").read_text())]}
    for daemon in (f"worker-{TARGET}", f"watch-{TARGET}"):
        spaceport.daemon(daemon).kill()
    cluster.kubectl("apply", "-f", "-", told=json.dumps(manifests))
    eventually(lambda: cluster.kubectl("get", "deployment", "spaceport-worker", "-o", "jsonpath={.status.availableReplicas}") == "1")
    yield stuck
    cluster.kubectl("delete", "-f", "-", told=json.dumps(manifests))
    eventually(lambda: not [pod for pod in cluster.listed("pods") if pod["metadata"]["labels"].get("spaceport.dev/part") == "worker"])


def test_worker_and_watch_serve_as_pods_with_no_more_rights_than_the_manifests_give(
    served_from_inside: Stuck, project: Path, prefect: PrefectApi, cluster: RealCluster
) -> None:
    """Under the quota, and with a service account of their own: a pod trains and its model is promoted; one whose image isn't there is said by the watch."""

    def ends(name: str) -> dict[str, Any]:
        config = load_run_config([no_space(project, f"acme/{name}")], {"target": TARGET})  # not by the command, which starts a worker here
        run = prefect.create_run("pipeline/process", {"config": config.model_dump(mode="json")}, idempotency_key=name)
        within(SLOW_MACHINE_SECONDS, lambda: prefect.read_run(run["id"])["state"]["type"] in FINAL_STATES)
        state = dict(prefect.read_run(run["id"])["state"])
        assert state["type"] in FINAL_STATES, _worker_said(cluster)
        return state

    state = ends("from-inside")
    assert state["type"] == "COMPLETED", (state["message"], _worker_said(cluster))
    served_from_inside.variables(image="localhost/nobody/has:this", start_timeout_seconds=15)
    state = ends("from-inside-stuck")
    assert state["type"] == "FAILED" and "localhost/nobody/has:this" in state["message"] and "within 15 s" in state["message"]
    worker = "system:serviceaccount:spaceport:spaceport-worker"
    assert [cluster.kubectl("auth", "can-i", *words, "--as", worker, check=False).strip() for words in (("delete", "pods"), ("get", "secrets"))] == ["no", "no"]


def test_a_run_cancelled_before_its_pod_started_ends_at_once(stuck: Stuck) -> None:
    """Prefect alone leaves it in Cancelling for five minutes, and its Job for ever."""
    stuck.variables(gpus=1)
    run = stuck.run("cancelled-early", "--detach")[1]["flow_run"]["id"]

    def waits() -> Any:
        found = stuck.prefect.find_runs(tag="spaceport", states=["PENDING"])
        ours = [run for run in found if run["name"].startswith("train-") and run["parameters"]["config"]["model"]["repo_id"] == "acme/cancelled-early"]
        return next((run for run in ours if run["infrastructure_pid"]), None)

    child = eventually(waits)
    stuck.prefect.cancel_run(str(run))
    eventually(lambda: stuck.prefect.read_run(child["id"])["state"]["type"] == "CANCELLED", seconds=60)
    eventually(lambda: stuck.cluster.listed("jobs", child["id"]) == [])


def test_a_pod_out_of_memory_is_said(stuck: Stuck, work: Work) -> None:
    """A limit that training can't keep: kind out of memory, and what to do."""
    work.folder.joinpath("script.py").write_text("kept = [b'x' * (64 << 20) for _ in range(64)]  # a limit just too small for Python alone is only slow")
    stuck.variables(memory_limit="768Mi", memory_request="768Mi")
    code, report, _ = stuck.spaceport("run", str(work.config), "--target", TARGET)
    assert (code, report["error"]["kind"]) == (1, "out of memory")


def test_an_image_without_this_project_is_said_after_one_job(stuck: Stuck) -> None:
    """A program that fails before its run begins is bad input with the pod's last line, and isn't rented again and again."""
    stuck.variables(env={"PREFECT_HOME": "/var/spaceport/prefect", "PYTHONHOME": "/nowhere"}, backoff_limit=1)
    code, report, _ = stuck.run("wrong-image")
    assert (code, report["error"]["kind"]) == (1, "bad input") and "must hold this project" in report["error"]["message"]


def test_a_lease_is_held_by_the_cluster_alone(stuck: Stuck) -> None:
    """activeDeadlineSeconds ends a Job that outlives it, with kind quota; what it had sealed is kept."""
    stuck.variables(lease_seconds=25)
    code, report, _ = stuck.run("too-long", "--train.args.epochs", "300")
    assert (code, report["error"]["kind"]) == (1, "quota") and "lease" in report["error"]["message"]


def test_a_finished_run_is_final(prefect: PrefectApi) -> None:
    """After all of these no run is left open."""
    assert [run["name"] for run in prefect.find_runs(tag="spaceport") if run["state"]["type"] not in FINAL_STATES] == []


@pytest.mark.kills
@every_victim
@every_seed
@pytest.mark.timeout(1800)
def test_whatever_is_killed_it_finishes(spaceport: Any, project: Path, cluster: RealCluster, victim: str, seed: int) -> None:
    """Nobody publishes twice, no pod is left, at most one checkpoint is lost."""

    def kill_machine(run_id: str) -> None:
        for pod in cluster.living(run_id):
            cluster.kubectl("delete", "pod", pod, "--force", "--grace-period=0", "--wait=false", check=False)

    Case(spaceport, no_space(project, f"acme/{victim}-{seed}-{TARGET}"), TARGET, cluster.living, kill_machine).run(victim, seed)
