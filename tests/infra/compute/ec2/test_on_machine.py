"""From power on to power off: the real boot script on machines that really run, its secrets, its lease, and what its end means."""

import json
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.compute.ec2.endings import BY_ITSELF, error_of
from infra.compute.ec2.machines import Instances
from infra.compute.ec2.user_data import MAX_BYTES, user_data
from infra.compute.ec2.worker import Ec2Configuration
from infra.compute.rented.machines import Machine, Order
from infra.errors import BadInput, SpaceportError
from infra.settings import PROJECT
from tests.ec2_cloud import Ec2Cloud
from tests.ec2_cloud.running import IMAGE
from tests.eventually import eventually

SECRET, BINARY, CANARY = "spaceport/train", "spaceport/binary", "hf_canary_that_nobody_may_see"
SEALING = "trap 'echo sealed; exit 75' TERM; echo training; sleep 100 & wait"


@pytest.fixture
def boot(cloud: Ec2Cloud, instances: Instances) -> Callable[..., Machine]:
    """A machine that runs a shell command as its training."""
    profile = cloud.instance_profile("machine", "secretsmanager:GetSecretValue")
    secrets = cloud.client("secretsmanager")
    if not secrets.list_secrets()["SecretList"]:
        secrets.create_secret(Name=SECRET, SecretString=json.dumps({"HF_TOKEN": CANARY}))
        secrets.create_secret(Name=BINARY, SecretBinary=b"{}")

    def make(
        shell: str, *, needs: tuple[str, ...] = ("HF_TOKEN",), lease_seconds: int = 600, secret: str = SECRET, python: str = sys.executable, **more: str
    ) -> Machine:
        made = order(shell, lease_seconds, {**more, "AWS_ENDPOINT_URL": cloud.url, "AWS_DEFAULT_REGION": "us-east-1"})
        pool = Ec2Configuration(image=IMAGE, python=python, secret_id=secret, instance_profile=profile)
        return instances.run({**pool.request(instances, made, list(needs)), "InstanceType": "t3.medium", "ClientToken": uuid.uuid4().hex})

    return make


def boot_script(made: Order) -> str:
    return user_data(made, "/opt/python", None, [])


def order(shell: str, lease_seconds: int = 600, environment: dict[str, str] | None = None) -> Order:
    told = {"run_id": str(uuid.uuid4()), "attempt": 1, "step_key": "k" * 64, "image": IMAGE, "lease_seconds": lease_seconds}
    return Order.model_validate({**told, "command": ("bash", "-c", shell), "environment": environment or {}})


def ended(instances: Instances, machine: Machine) -> tuple[Machine, SpaceportError]:
    """Wait for its end; what that means."""
    found = eventually(lambda: (seen := instances.look(machine.id)) and not seen.lives and seen)
    return found, instances.why_it_ended(found)


def test_a_machine_has_its_secret_and_nobody_sees_it(cloud: Ec2Cloud, instances: Instances, boot: Any) -> None:
    """It reads it by its role over IMDSv2, also where the worker has none of its names. Neither user data, tags, console nor description hold it; then
    the machine is off, and gone."""
    ordered_at, asks = time.time(), "test $HF_TOKEN = " + CANARY[:9] + "'" + CANARY[9:] + "' && echo has it"
    machine = boot("echo $PLAIN; echo $SPACEPORT_PAID_SINCE; " + asks, needs=(), PLAIN="as it is")
    found, _ = ended(instances, machine)
    assert (found.stage, found.said) == ("terminated", "Client.InstanceInitiatedShutdown")
    plain, paid_since, has = instances.last_lines(machine.id).splitlines()
    assert (plain, has) == ("as it is", "has it") and ordered_at - 1 < int(paid_since) <= time.time()
    instance_id = machine.id.partition("/")[2]
    attribute = cloud.client("ec2").describe_instance_attribute(InstanceId=instance_id, Attribute="userData")
    shown = json.dumps([cloud.instance(instance_id), attribute], default=str) + cloud.console(instance_id)
    assert CANARY not in shown and cloud.instance(instance_id)["MetadataOptions"]["HttpTokens"] == "required"


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        (SECRET, "lacks OTHER"),
        pytest.param("nobodys", "there is no secret nobodys", marks=pytest.mark.slow),
        pytest.param(BINARY, "holds binary data", marks=pytest.mark.slow),
    ],
)
def test_a_machine_that_lacks_a_secret_says_so_and_goes(instances: Instances, boot: Any, secret: str, said: str) -> None:
    """The command isn't started; the machine's own last word is a bad input that names what to do."""
    _, error = ended(instances, boot("echo training", needs=("HF_TOKEN", "OTHER"), secret=secret))
    assert isinstance(error, BadInput) and said in str(error)
    assert "training" not in str(error)


def test_a_spot_notice_seals_before_the_machine_is_taken(cloud: Ec2Cloud, instances: Instances, boot: Any) -> None:
    """The notice reaches the run as SIGTERM within seconds; it seals, and the machine ends by itself, preempted, long before its time."""
    machine = boot(SEALING)
    instance_id = machine.id.partition("/")[2]
    eventually(lambda: "training" in cloud.console(instance_id))
    cloud.tell("interrupt", id=instance_id, seconds=600)
    started = time.monotonic()
    found, error = ended(instances, machine)
    assert time.monotonic() - started < 600 / 8
    assert error.kind == "preempted" and "takes this machine away" in str(error) and "sealed" in cloud.console(instance_id)
    assert found.said == "Client.InstanceInitiatedShutdown"


@pytest.mark.slow
def test_the_lease_ends_a_machine_that_nobody_ends(cloud: Ec2Cloud, instances: Instances, boot: Any) -> None:
    """Told to seal at its lease, without Prefect and without us; the kind is quota."""
    machine = boot(SEALING, lease_seconds=2)
    _, error = ended(instances, machine)
    assert error.kind == "quota" and "at its lease" in str(error)
    assert "sealed" in cloud.console(machine.id.partition("/")[2])


@pytest.mark.slow
def test_ending_a_machine_lets_it_seal_and_a_dead_host_is_told_from_that(cloud: Ec2Cloud, instances: Instances, boot: Any) -> None:
    """TerminateInstances reaches the run as SIGTERM; a host that dies says nothing. Both are preempted, by EC2's own reasons."""
    asked, died = boot(SEALING), boot(SEALING)
    for machine in (asked, died):
        eventually(lambda machine=machine: "training" in cloud.console(machine.id.partition("/")[2]))
    instances.end(asked.id)
    cloud.tell("kill", id=died.id.partition("/")[2])
    found, error = ended(instances, asked)
    assert error.kind == "preempted" and found.said == "Client.UserInitiatedShutdown" and "sealed" in cloud.console(asked.id.partition("/")[2])
    found, error = ended(instances, died)
    assert error.kind == "preempted" and found.said == "Server.InternalError" and "sealed" not in cloud.console(died.id.partition("/")[2])


def test_an_image_without_the_interpreter_is_a_bad_input(instances: Instances, boot: Any) -> None:
    """The pool's python isn't in the image: said once and clearly by the machine, which isn't called lost and had again and again."""
    _, error = ended(instances, boot("echo training", python="/nowhere/python"))
    assert isinstance(error, BadInput) and "/nowhere/python isn't there in this image" in str(error)


def test_a_machine_that_ended_without_a_word_is_told_of_by_its_console() -> None:
    """What it said last is in the reason, where it ended by itself; of one that was taken away the console says nothing about why."""
    machine = Machine(id="us-east-1/i-1", run_id="r", stage="terminated", lives=False, said=BY_ITSELF)
    console = "\n".join(f"line {number}" for number in range(20)) + "\nTraceback\n\nImportError: no such name\n"
    assert str(error_of(machine, console)).endswith("Its console ends: line 17 | line 18 | line 19 | Traceback | ImportError: no such name")
    assert "console" not in str(error_of(machine.model_copy(update={"said": "Server.InternalError"}), console))


def test_a_shutdown_that_tells_one_process_reaches_the_run_once(tmp_path: Path) -> None:
    """As systemd does it: the run is told from there, once, seals, and is waited for; where all are told, it isn't told again."""
    for told_alone, heard in (([], 0), (["--told-alone"], 1)):
        over = tmp_path / f"over-{heard}"
        command = ["bash", "-c", f"trap 'echo told' TERM; echo training; until [ -e {over} ]; do sleep 0.05; done; echo sealed"]
        begun = [sys.executable, "-m", "infra.compute.ec2.on_machine", *told_alone, "--lease-seconds", "600", "--", *command]
        with subprocess.Popen(begun, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as machine:
            assert machine.stdout is not None and machine.stdout.readline() == "training\n"
            for _ in range(2):
                machine.send_signal(signal.SIGTERM)
                time.sleep(0.3)
            over.touch()
            said = machine.stdout.read()
        assert said.count("told\n") == heard and "sealed" in said and "preempted: the machine was told to shut down" in said, said


TOLD_AT_THE_START = """
import os, signal, subprocess, sys, time

class Popen(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        time.sleep(0.5)  # the run is there, and listens
        os.kill(os.getpid(), signal.SIGTERM)

subprocess.Popen = Popen
from infra.compute.ec2.on_machine import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_shutdown_while_the_run_is_being_started_reaches_it() -> None:
    """The signal comes before we know the run that it is for: it is passed on as soon as we do."""
    run = ["bash", "-c", "trap 'echo told; exit 75' TERM; for i in $(seq 400); do sleep 0.05; done"]
    begun = [sys.executable, "-c", TOLD_AT_THE_START, "--told-alone", "--lease-seconds", "600", "--", *run]
    said = subprocess.run(begun, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False).stdout
    assert said.startswith("told\n") and "preempted: the machine was told to shut down" in said


def test_a_run_that_seals_is_not_told_again_at_its_lease(tmp_path: Path) -> None:
    """A second SIGTERM would cut the time to seal short."""
    over = tmp_path / "over"
    run = ["bash", "-c", f"trap 'echo told' TERM; echo training; until [ -e {over} ]; do sleep 0.05; done; echo sealed"]
    begun = [sys.executable, "-m", "infra.compute.ec2.on_machine", "--told-alone", "--lease-seconds", "4", "--", *run]
    with subprocess.Popen(begun, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as machine:
        assert machine.stdout is not None and machine.stdout.readline() == "training\n"
        machine.send_signal(signal.SIGTERM)
        said = [machine.stdout.readline(), machine.stdout.readline()]
        over.touch()
        said += machine.stdout.read().splitlines(keepends=True)
    assert said[0] == "told\n" and "telling the run to stop: " in said[1] and said[2] == "sealed\n" and "quota" in said[3] and len(said) == 4


@pytest.mark.slow
def test_a_machine_dies_at_its_lease_whatever_is_killed_on_it(cloud: Ec2Cloud, instances: Instances, boot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer is armed by the user data before anything else, so that even a machine whose own watch was killed, or hangs, is off soon after."""
    for module in ("user_data", "worker"):
        monkeypatch.setattr(f"infra.compute.ec2.{module}.BACKSTOP_SECONDS", 5)
    script = boot_script(order("true"))
    assert script.index("shutdown -h now' </dev/null &") < min(script.index(word) for word in ("systemd-run", "cd /", "/opt/python"))
    killed = "trap '' TERM; kill -STOP $PPID; echo stopped; sleep 300"
    machine = boot(killed, lease_seconds=10)
    eventually(lambda: "stopped" in cloud.console(machine.id.partition("/")[2]))
    found, error = ended(instances, machine)
    assert found.said == "Client.InstanceInitiatedShutdown" and error.kind == "quota" and "at its lease" in str(error), error
    assert "telling the run to stop" not in cloud.console(machine.id.partition("/")[2])


def test_the_boot_script_is_small_and_quotes_what_it_is_told() -> None:
    """A value with quotes, spaces and newlines stays one value; 16 KiB are the limit; needed secrets want a secret's name."""
    nasty = 'a\'b "c" $(reboot)\nd'
    script = boot_script(order("true", environment={"NASTY": nasty, "not a name": "x"}))
    line = script.rpartition("\nexport ")[2]
    assert shlex.split("export " + line.partition("\n/opt/python")[0]) == ["export", f"NASTY={nasty}"] and "not a name" not in script
    with pytest.raises(BadInput, match=f"{MAX_BYTES:,}"):
        user_data(order("true", environment={"LONG": "x" * MAX_BYTES}), "/opt/python", None, [])
    with pytest.raises(BadInput, match=r"HF_TOKEN.*secret_id is empty"):
        user_data(order("true"), "/opt/python", None, ["HF_TOKEN"])
