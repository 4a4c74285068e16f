"""Has the previews of a closed pull request deleted: by a deployment of ours on the worker, which holds the Hub's token.

    python3 -m deployments.closed_pull_request configs/movie_reviews.toml --repository URL --commit SHA

Standard library only. PREFECT_API_URL and PREFECT_API_AUTH_STRING say where, PULL_REQUEST is its number. It starts the run and doesn't wait for it.
"""

import sys
from collections.abc import Sequence

from deployments.committed import asked_for, previews_tag, repo_ids, server
from deployments.pages import page_of
from deployments.starting import REMOVE_PREVIEWS, start_or_attach
from deployments.trigger import failure
from infra.actions import ActionsJob
from infra.errors import BadInput, SpaceportError
from tasks.outcomes import EXIT_CODES


def main(words: Sequence[str] | None = None, job: ActionsJob | None = None) -> int:
    """Start it; the exit code."""
    told, job = list(sys.argv[1:] if words is None else words), job or ActionsJob.here()
    try:
        asked = asked_for(told, job)
        if not job.pull_request:
            raise BadInput("which pull request? Give its number as PULL_REQUEST.")
        wanted = {"pull_request": job.pull_request, "tag": previews_tag(asked, job), **repo_ids(asked.config)}
        run = start_or_attach(server(job), wanted, f"{asked.key}:closed", f"{asked.title} closed", ["ci", "closed"], REMOVE_PREVIEWS, checked=False)
    except SpaceportError as error:
        report = failure(error)
        job.tell(page_of(report, None))
        return EXIT_CODES[report["outcome"]]
    job.tell(f"## The previews of pull request {job.pull_request} are being deleted\n\nRun: [{run['name']}]({run['url']})\n")
    print(f"run     {run['name']}   {run['url']}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
