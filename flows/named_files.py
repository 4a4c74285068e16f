"""The files that a run config names by relative paths, where a run was started by a commit and not from a folder."""

from flows.layers import at_home, with_paths
from flows.run_config import RunConfig
from infra.checkouts import checkout
from infra.errors import BadInput
from infra.settings import Settings


def with_files(config: RunConfig, repository: str | None, git_commit: str | None) -> RunConfig:
    """The config with its relative paths made absolute, in that commit's files. Raises as `checkout` does; nothing is fetched that nobody names."""
    plain = config.model_dump(mode="json")
    if not repository or with_paths(plain, lambda value: f"/{value}") == plain:
        return config
    if not git_commit:
        raise BadInput(f"the files of {repository} are wanted, and no git_commit says which.")
    return RunConfig.model_validate(at_home(plain, checkout(repository, git_commit, Settings().home / "checkouts")))
