"""What a rented machine is told openly, and what only as a secret: by name, from the worker's own environment."""

from collections.abc import Iterable, Mapping

from infra.compute.process.environment import is_secret
from infra.settings import process_environment

OF_THIS_MACHINE = frozenset({"PREFECT_HOME", "PREFECT_PROFILES_PATH", "PREFECT_LOCAL_STORAGE_PATH"})


def parted(
    environment: Mapping[str, str | None], secrets: Iterable[str], passed_on: Iterable[str], ours: Mapping[str, str] | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """The plain variables and the secret ones. What Prefect puts into a run's environment is sorted by name: its own credential must not lie open."""
    here = process_environment() if ours is None else ours
    told = {name: value for name, value in environment.items() if value is not None and name not in OF_THIS_MACHINE} | {
        name: here[name] for name in passed_on if name in here
    }
    secret = {name: value for name, value in told.items() if is_secret(name, value)} | {name: here[name] for name in secrets if name in here}
    return {name: value for name, value in told.items() if name not in secret}, secret
