"""`python -m infra.compute.kubernetes.watch --pool kubernetes`: gives runs in pods the true state that Prefect never gives them.

Prefect's own observer leaves a pod that never starts in Pending for ever, a run cancelled before its pod started in Cancelling for five minutes, and knows
no reasons (prefect-kubernetes 0.8.0, 2026-11). It is off beside this one (PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_ENABLED=false): of two who say how a run
ended, the first would win.
"""

import argparse
import asyncio
import logging

from infra.compute.kubernetes.machines import Cluster
from infra.compute.kubernetes.names import NAMESPACE
from infra.compute.rented.ending import Watch
from infra.prefect_api import PrefectApi

EVERY_SECONDS = 5.0


def main() -> None:
    """Look again and again until told to stop."""
    parser = argparse.ArgumentParser(description="Give runs in pods their true state.")
    parser.add_argument("--pool", default="kubernetes")
    parser.add_argument("--namespace", default=NAMESPACE)
    parser.add_argument("--every", type=float, default=EVERY_SECONDS, metavar="SECONDS")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    asyncio.run(Watch(PrefectApi.from_settings(), Cluster(given.namespace), given.pool).forever(given.every))


if __name__ == "__main__":
    main()
