"""What the embedded Hub claims, asked of the real one. Runs only when SPACEPORT_SMOKE_HF_TOKEN holds a token that may write."""

import os
import uuid

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RevisionNotFoundError

TOKEN = os.environ.get("SPACEPORT_SMOKE_HF_TOKEN")
pytestmark = pytest.mark.skipif(not TOKEN, reason="SPACEPORT_SMOKE_HF_TOKEN is not set: the real Hub is not asked")


@pytest.fixture(params=["embedded", "real"])
def api(request, hub):
    """First our Hub, then the real one: the same test must hold for both."""
    return hub.api() if request.param == "embedded" else HfApi(endpoint="https://huggingface.co", token=TOKEN)


def test_publish_promote_and_refuse(api):
    """Branches with slashes, guarded commits, copies by revision, 412, no-ops: as the pipeline uses them."""
    repo = api.create_repo(f"spaceport-smoke-{uuid.uuid4().hex[:8]}", private=True).repo_id
    try:
        base = api.model_info(repo).sha
        api.create_branch(repo, branch="spaceport/key")
        candidate = api.create_commit(
            repo,
            [CommitOperationAdd("config.json", b"{}"), CommitOperationAdd("w.bin", b"w" * 999)],
            commit_message="candidate",
            revision="spaceport/key",
            parent_commit=base,
        )
        copies = [CommitOperationCopy(n, n, src_revision=candidate.oid) for n in ("config.json", "w.bin")]
        promoted = api.create_commit(repo, copies, commit_message="promote", parent_commit=base)
        with pytest.raises(HfHubHTTPError) as stale:
            api.create_commit(repo, [CommitOperationAdd("x", b"1")], commit_message="late", parent_commit=base)
        assert stale.value.response.status_code == 412
        with pytest.raises(EntryNotFoundError):
            api.create_commit(repo, [CommitOperationDelete("absent.txt")], commit_message="x")
        with pytest.raises(RevisionNotFoundError):
            api.create_commit(repo, [CommitOperationAdd("x", b"1")], commit_message="x", revision=base)
        assert api.create_commit(repo, [CommitOperationAdd("config.json", b"{}")], commit_message="same").oid == promoted.oid
        files = {s.rfilename: s.blob_id for s in api.model_info(repo, files_metadata=True).siblings}
        assert files["config.json"] == "9e26dfeeb6e641a33dae4961196235bdb965b21b"
    finally:
        api.delete_repo(repo)
