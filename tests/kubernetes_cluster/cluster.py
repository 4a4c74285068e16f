"""The cluster that the tests use, and what they ask it beside the code under test (kubectl)."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infra.settings import process_environment

HERE = Path(__file__).parent
NODE_ADDRESS = "10.89.0.1"
NAMESPACE = "spaceport"
BUILD_GB, IMAGE_GB, TESTS_GB = 2.5, 6.5, 2  # the first two once: building leaves 0.4, the image's making 4.3
KERNELS_REASONS = ("FailedCreatePodSandBox", "failed to create containerd task")  # a machine that is a container itself may lack what it takes


class RealCluster:
    """A cluster by its kubeconfig, the image in it, and this machine's address as its pods see it."""

    def __init__(self, kubeconfig: Path, image: str, reachable_at: str, *, is_ours: bool) -> None:
        self.kubeconfig, self.image, self.reachable_at, self.is_ours = kubeconfig, image, reachable_at, is_ours

    @property
    def environment(self) -> dict[str, str]:
        """What a local stack is told of it."""
        return {"KUBECONFIG": str(self.kubeconfig), "SPACEPORT_IMAGE": self.image, "SPACEPORT_REACHABLE_AT": self.reachable_at}

    def kubectl(self, *words: str, check: bool = True, told: str | None = None) -> str:
        """What kubectl prints when it is told this on its standard input."""
        command = ["kubectl", "--kubeconfig", str(self.kubeconfig), "-n", NAMESPACE, *words]
        return subprocess.run(command, input=told, capture_output=True, text=True, check=check, timeout=90).stdout

    def ask(self, code: str) -> str:
        """What a program of ours says when this cluster is its KUBECONFIG, which the client reads once."""
        done = subprocess.run(
            [sys.executable, "-c", code], env=process_environment() | self.environment, capture_output=True, text=True, check=False, timeout=90
        )
        return done.stdout or done.stderr

    @property
    def node(self) -> str:
        """The name of its only node."""
        return self.kubectl("get", "nodes", "-o", "name").strip().removeprefix("node/")

    def listed(self, kind: str, run_id: str | None = None) -> list[dict[str, Any]]:
        """Things of a kind, as the API writes them, of one flow run or all."""
        label = ["-l", f"prefect.io/flow-run-id={run_id}"] if run_id else []
        return list(json.loads(self.kubectl("get", kind, "-o", "json", *label))["items"])

    def living(self, run_id: str | None = None) -> list[str]:
        """Names of the pods that are there and not at their end."""
        return [pod["metadata"]["name"] for pod in self.listed("pods", run_id) if pod["status"].get("phase") in {"Pending", "Running"}]


def why_none() -> str | None:
    """Why no cluster can be had here; None when one can."""
    if not shutil.which("kubectl"):
        return "kubectl isn't installed"
    if os.environ.get("KUBECONFIG"):
        missing = [name for name in ("SPACEPORT_IMAGE", "SPACEPORT_REACHABLE_AT") if not os.environ.get(name)]
        return f"KUBECONFIG is set, and {' and '.join(missing)} must be too" if missing else None
    return _why_none_of_ours()


def _why_none_of_ours() -> str | None:
    if os.geteuid() != 0:
        return "a cluster of our own needs root; set KUBECONFIG to use another"
    if not Path("/etc/debian_version").exists() or not Path("/etc/debian_version").read_text().startswith("12"):
        return "a cluster of our own is built from Debian 12's sources; set KUBECONFIG to use another"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spaceport" / "kubernetes"
    cache.mkdir(parents=True, exist_ok=True)
    needed_gb = TESTS_GB + (0 if (cache / "bin/pause").exists() else BUILD_GB) + (0 if list(cache.glob("images/packages-*")) else IMAGE_GB)
    free_gb = shutil.disk_usage(cache).free / 1e9
    if free_gb < needed_gb:
        return f"the disk of {cache} has {free_gb:.1f} GB free, and a cluster of our own needs {needed_gb:.1f}; free some, or set KUBECONFIG to use another"
    return None


@contextmanager
def real_cluster() -> Iterator[RealCluster]:
    """The cluster of KUBECONFIG, or one of ours that ends with the block. Its build (6 to 15 minutes, once) is kept in ~/.cache/spaceport/kubernetes."""
    if reason := why_none():
        pytest.skip(f"no Kubernetes here: {reason}")
    given = os.environ.get("KUBECONFIG")
    if given:
        yield RealCluster(Path(given), os.environ["SPACEPORT_IMAGE"], os.environ["SPACEPORT_REACHABLE_AT"], is_ours=False)
        return
    environment = process_environment() | {"CLUSTER_PYTHON": sys.executable}
    _script("build.sh", environment)
    kubeconfig = Path(_script("up.sh", environment).split()[-1])
    try:
        making = [sys.executable, str(HERE / "image.py"), "project", str(kubeconfig.parent / "run/containerd.sock")]
        told = subprocess.run(making, stdout=subprocess.PIPE, text=True, check=True)  # what went wrong is on stderr, for the test's log
        found = RealCluster(kubeconfig, told.stdout.split()[-1], NODE_ADDRESS, is_ours=True)
        _try_a_pod(found)
        yield found
    finally:
        _script("down.sh", environment)


def _try_a_pod(cluster: RealCluster) -> None:
    """Whether this machine's kernel lets a pod run at all: a container in a container may not."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe", "namespace": "default"}}
    container = {"name": "probe", "image": cluster.image, "command": ["sh", "-c", "sleep 600"]}
    manifest = pod | {"spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}}
    kubectl = ["kubectl", "--kubeconfig", str(cluster.kubeconfig), "-n", "default"]
    subprocess.run([*kubectl, "create", "-f", "-"], input=json.dumps(manifest), text=True, check=True, timeout=60)
    runs = subprocess.run([*kubectl, "wait", "--for=condition=Ready", "pod/probe", "--timeout=120s"], capture_output=True, text=True, check=False)
    if runs.returncode:
        events = subprocess.run(
            [*kubectl, "get", "events", "-o", "custom-columns=:reason,:message", "--no-headers"], capture_output=True, text=True, check=False
        )
        told = f"a pod doesn't start on this machine: {events.stdout.strip()[-600:]}"
        if any(reason in events.stdout for reason in KERNELS_REASONS):
            pytest.skip(f"no Kubernetes here: {told}")
        raise AssertionError(told)  # our image, or our cluster
    subprocess.run([*kubectl, "delete", "pod", "probe", "--force"], capture_output=True, check=False, timeout=60)


def _script(name: str, environment: dict[str, str]) -> str:
    done = subprocess.run(["bash", str(HERE / name)], env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no Kubernetes here: {name} ended with {done.returncode}; its last words are above")
    return done.stdout
