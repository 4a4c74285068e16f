"""What our things in a cluster are called; shared by the template, the watch, the leases and the manifests."""

from typing import Final

NAMESPACE: Final = "spaceport"
SECRET: Final = "spaceport-secrets"  # noqa: S105 - the name of one
SETTINGS: Final = "spaceport-settings"
CONTAINER: Final = "prefect-job"  # the stock worker insists on this name
OURS_LABEL: Final = "spaceport.dev/part"
RUN_LABEL: Final = "prefect.io/flow-run-id"  # put there by the stock worker
START_TIMEOUT_ANNOTATION: Final = "spaceport.dev/start-timeout"
