"""Training on Kubernetes: the stock prefect-kubernetes worker with our Job template, and a watch for what Prefect never ends."""
