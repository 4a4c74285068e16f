"""A real Kubernetes for tests: the one of KUBECONFIG, else one that is built from source, started and ended here."""
