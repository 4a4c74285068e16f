"""The boot script: what a machine is told, in plain sight of everybody who may describe it, and therefore without a secret.

It works as `#!/bin/bash` under cloud-init and needs nothing on the machine but Python with this project. Whatever happens in it, the machine
switches itself off at its end and at its lease, and a machine that is off is terminated.
"""

import re
import shlex
from collections.abc import Iterable
from typing import Final

from infra.compute.ec2.on_machine import GRACE_SECONDS, SAID
from infra.compute.rented.machines import Order
from infra.errors import BadInput, described

MAX_BYTES = 16 * 1024
BACKSTOP_SECONDS = 180  # beyond the lease: the machine's own watch ends the run at its lease, with time to seal
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# A shutdown under systemd ends the units while the network is still there, and tells what cloud-init started last of all. So the training is a unit.
# Its first process alone is told; a process that the kernel kills for its memory doesn't end the others.
UNIT: Final = (
    *("After=network.target", "After=network-online.target", "After=nss-lookup.target", "KillMode=mixed", f"TimeoutStopSec={GRACE_SECONDS + 10:.0f}"),
    *("OOMPolicy=continue", "TasksMax=infinity", "StandardOutput=journal+console", "StandardError=inherit"),
)

SCRIPT = """#!/bin/bash
# Spaceport: one training run, then off. There are no secrets here: the machine fetches them itself, by its role.
exec 2>&1
export SPACEPORT_PAID_SINCE=$(date +%s)
if [ "$1" != unit ]; then
  trap 'shutdown -h now' EXIT
  setsid bash -c 'sleep {backstop_seconds}; shutdown -h now' </dev/null &
  if [ -d /run/systemd/system ] && systemd-run --quiet --unit=spaceport-train {unit} /bin/bash "$0" unit; then
    until [[ $(systemctl is-active spaceport-train) =~ ^(inactive|failed|unknown)$ ]]; do sleep 2; done
    exit
  fi
fi
cd /
{exports}
{python} -c 'import infra' || {{ echo {no_python}; exit 1; }}
${{1:+exec}} {python} -m infra.compute.ec2.on_machine ${{1:+--told-alone}} --lease-seconds {lease_seconds} {secret} -- {command}
"""


def user_data(order: Order, python: str, secret_id: str | None, needed: Iterable[str]) -> str:
    """The script of one run. `needed` are the names of the variables that the machine must find in its secret."""
    names = sorted(needed)
    if names and not secret_id:
        raise BadInput(
            f"the machine needs {', '.join(names)}, and the pool's secret_id is empty. Name a secret of AWS Secrets Manager that holds them as a JSON object."
        )
    script = SCRIPT.format(
        backstop_seconds=order.lease_seconds + BACKSTOP_SECONDS,
        exports="\n".join(f"export {name}={shlex.quote(value)}" for name, value in sorted(order.environment.items()) if _NAME.fullmatch(name)),
        unit=" ".join(f"-p {told}" for told in UNIT),
        python=shlex.quote(python),
        no_python=shlex.quote(SAID + described(BadInput(f"{python} isn't there in this image, or lacks this project. Correct the pool's python or image."))),
        lease_seconds=order.lease_seconds,
        secret=f"--secret {shlex.quote(secret_id)}" + (f" --needs {','.join(names)}" if names else "") if secret_id else "",
        command=shlex.join(order.command),
    )
    size = len(script.encode())
    if size > MAX_BYTES:
        raise BadInput(
            f"the boot script would have {size:,} bytes, and EC2 takes {MAX_BYTES:,}. Pass on fewer or shorter variables (the pool's env, passed_on)."
        )
    return script
