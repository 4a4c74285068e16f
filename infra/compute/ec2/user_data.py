"""The boot script: what a machine is told, in plain sight of everybody who may describe it, and therefore without a secret.

It works as `#!/bin/bash` under cloud-init and needs nothing on the machine but Python with this project. Whatever happens in it, the machine
switches itself off at its end and at its lease, and a machine that is off is terminated.
"""

import re
import shlex
from collections.abc import Iterable

from infra.compute.rented.machines import Order
from infra.errors import BadInput

MAX_BYTES = 16 * 1024
BACKSTOP_SECONDS = 180  # beyond the lease: the machine's own watch ends the run at its lease, with time to seal
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

SCRIPT = """#!/bin/bash
# Spaceport: one training run, then off. There are no secrets here: the machine fetches them itself, by its role.
exec 2>&1
trap 'shutdown -h now' EXIT
setsid bash -c 'sleep {backstop_seconds}; shutdown -h now' </dev/null &
cd /
{exports}
{python} -m infra.compute.ec2.on_machine --lease-seconds {lease_seconds} {secret} -- {command}
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
        python=shlex.quote(python),
        lease_seconds=order.lease_seconds,
        secret=f"--secret {shlex.quote(secret_id)} --needs {','.join(names)}" if secret_id and names else "",
        command=shlex.join(order.command),
    )
    size = len(script.encode())
    if size > MAX_BYTES:
        raise BadInput(
            f"the boot script would have {size:,} bytes, and EC2 takes {MAX_BYTES:,}. Pass on fewer or shorter variables (the pool's env, passed_on)."
        )
    return script
