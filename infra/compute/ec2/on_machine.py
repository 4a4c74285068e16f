"""What runs on the machine: `python -m infra.compute.ec2.on_machine --lease-seconds N --secret ID --needs A,B -- COMMAND`.

It fetches the secrets by the machine's role, starts the run's command, and tells it to stop (SIGTERM, so that it seals) when EC2 announces that the
machine will be taken away, or when its lease is over. Its last line on the console, `spaceport: kind: message`, is why the machine ends where the run
itself can't say so.
"""

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

from infra.compute.ec2.metadata import Metadata
from infra.compute.process.outcome import MemoryWatch
from infra.errors import BadInput, OutOfMemory, Preempted, QuotaExceeded, SpaceportError, Unauthorized, Unhealthy, described
from infra.settings import process_environment

SAID: Final = "spaceport: "
NOTICE_SECONDS: Final = 5.0
GRACE_SECONDS: Final = 110.0  # a spot notice comes two minutes before the end
_TRIES, _PAUSE_SECONDS = 5, 3.0


def main(arguments: Sequence[str]) -> int:
    """From the secrets to the end of the command; the exit status is of no use to anybody, the last line is."""
    told, command = arguments[: arguments.index("--")], list(arguments[arguments.index("--") + 1 :])
    parser = argparse.ArgumentParser(prog="python -m infra.compute.ec2.on_machine")
    parser.add_argument("--lease-seconds", type=float, required=True)
    parser.add_argument("--secret", default="")
    parser.add_argument("--needs", default="")
    parser.add_argument("--told-alone", action="store_true", help="a shutdown tells this process and no other of the run")
    options = parser.parse_args(told)
    lease_ends = time.monotonic() + options.lease_seconds
    try:
        secrets = fetched(options.secret, [name for name in options.needs.split(",") if name])
        watched(command, process_environment() | secrets, lease_ends, told_alone=options.told_alone)
    except SpaceportError as error:
        print(f"{SAID}{described(error)}", flush=True)
        return 1
    return 0


def fetched(secret_id: str, needed: Sequence[str]) -> dict[str, str]:
    """All variables of a secret, by the machine's role. Raises for one that can't be had, or that lacks a needed name; no message holds a value."""
    if not secret_id:
        return {}
    for attempt in range(1, _TRIES + 1):
        try:
            text = _secret(secret_id)
            break
        except Unhealthy:
            if attempt == _TRIES:
                raise
            time.sleep(_PAUSE_SECONDS)  # the role's credentials may take some seconds to reach a machine that has only just booted
    try:
        held = json.loads(text)
    except ValueError:
        held = None
    if not isinstance(held, dict):
        raise BadInput(f"the secret {secret_id} is no JSON object of variables.")
    missing = [name for name in needed if not held.get(name)]
    if missing:
        raise BadInput(f"the secret {secret_id} lacks {', '.join(missing)}. Add them in AWS Secrets Manager.")
    return {str(name): str(value) for name, value in held.items()}


def watched(command: Sequence[str], environment: Mapping[str, str], lease_ends: float, *, told_alone: bool = False) -> None:
    """Run the command to its end. Raises what ended it where that was not its own doing.

    A shutdown tells every process, and the command's end is waited for; where it tells this one alone, the command is told from here. Never twice:
    a second SIGTERM cuts the time to seal short.
    """
    memory, metadata, reason = MemoryWatch(), Metadata(), None
    told: list[int] = []
    untold: list[subprocess.Popen[bytes]] = []  # the run, until it is told to stop

    def tell(*, from_here: bool) -> None:
        with contextlib.suppress(IndexError):
            run = untold.pop()
            if from_here:
                run.terminate()

    def hear(number: int, _frame: object) -> None:
        told.append(number)
        tell(from_here=told_alone)

    signal.signal(signal.SIGTERM, hear)
    process = subprocess.Popen(command, env=dict(environment), stdin=subprocess.DEVNULL)
    untold.append(process)
    if told:  # while the run was being started
        tell(from_here=told_alone)
    while process.poll() is None and reason is None:
        reason = _reason(metadata, lease_ends)
        if reason is None:
            _wait(process, min(NOTICE_SECONDS, max(0.1, lease_ends - time.monotonic())))
    if process.poll() is None:
        print(f"{SAID}telling the run to stop: {reason}", flush=True)
        tell(from_here=True)
        _wait(process, GRACE_SECONDS)
        process.kill()
        process.wait()
    if reason is not None:
        raise reason
    if told:
        raise Preempted("the machine was told to shut down; the next attempt goes on from the last sealed checkpoint.")
    if process.returncode == -signal.SIGKILL and memory.killed({"code": process.returncode}):
        raise OutOfMemory("the machine ran out of memory and killed the run. Name an instance type with more, or make the batch smaller.")
    if process.returncode:
        raise Preempted(f"the run's process ended with {process.returncode} and without a word of its own.")


def _reason(metadata: Metadata, lease_ends: float) -> SpaceportError | None:
    notice = metadata.spot_notice()
    if notice:
        return Preempted(f"EC2 takes this machine away ({notice}); the next attempt goes on from the last sealed checkpoint.")
    if time.monotonic() >= lease_ends:
        return QuotaExceeded(
            "the machine was ended at its lease. Raise train.max_hours or the pool's lease; the training goes on from its last sealed checkpoint."
        )
    return None


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _secret(secret_id: str) -> str:
    import boto3.session
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        found = boto3.session.Session().client("secretsmanager").get_secret_value(SecretId=secret_id)
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code"))
        if code == "ResourceNotFoundException":
            raise BadInput(f"there is no secret {secret_id} in this region, or no value in it. Make it, or correct the pool's secret_id.") from error
        if code in ("AccessDeniedException", "AccessDenied"):
            raise Unauthorized(f"the machine's role may not read the secret {secret_id} ({code}). It needs secretsmanager:GetSecretValue there.") from error
        raise Unhealthy(f"the secret {secret_id} can't be had: {code}.") from error
    except BotoCoreError as error:
        raise Unhealthy(f"the secret {secret_id} can't be had ({type(error).__name__}). Has the machine an instance profile, and a way to AWS?") from error
    if "SecretString" not in found:
        raise BadInput(f"the secret {secret_id} holds binary data. Put it in as text: one JSON object of variables.")
    return str(found["SecretString"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
