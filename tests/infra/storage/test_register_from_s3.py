"""A dataset from S3, from the bucket to the Hub: pinned, unread when unchanged, a conflict when it changes on the way."""

import uuid
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from infra.errors import Conflict
from infra.hub.client import HubClient
from infra.revisions import Repo
from tasks.data_register import DataConfig, data_register, sample_check


def rows(count: int) -> bytes:
    return ("text,label\n" + "".join(f"snippet {number},{('good', 'bad')[number % 2]}\n" for number in range(count))).encode()


@pytest.fixture
def client(hub: Any) -> HubClient:
    return HubClient(HfApi(endpoint=hub.endpoint, token=hub.token))


@pytest.fixture
def config(client: HubClient, bucket: str) -> DataConfig:
    return DataConfig(repo_id=f"{client.whoami()['name']}/s3-{uuid.uuid4().hex[:8]}", source=f"s3://{bucket}/raw/")


def test_from_bucket_to_hub_and_again(s3: Any, bucket: str, client: HubClient, config: DataConfig, tmp_path: Path) -> None:
    """Objects become a dataset; nothing of the download stays; the next time the ledger answers without reading them."""
    for part in (0, 1):
        s3.put_object(Bucket=bucket, Key=f"raw/part-{part}.csv", Body=rows(60 + part))
    assert sample_check(config, client).labels == {"bad": 60, "good": 61}
    first = data_register(config, client, tmp_path)
    assert (first.report.rows_read, first.report.rows) == (121, 61)
    assert not list((tmp_path / "downloads").iterdir())
    again = data_register(config, client, tmp_path)
    assert (again.outcome, again.revision) == ("reused", first.revision)
    assert not list((tmp_path / "downloads").iterdir())


def test_an_object_that_changes_on_the_way_publishes_nothing(s3: Any, bucket: str, client: HubClient, config: DataConfig, tmp_path: Path) -> None:
    """An object rewritten between listing and download is a conflict, and no repository is made."""
    for part in (0, 1):
        s3.put_object(Bucket=bucket, Key=f"raw/part-{part}.csv", Body=rows(60))

    def meddle(what: str, done: int, total: int | None) -> None:
        s3.put_object(Bucket=bucket, Key="raw/part-1.csv", Body=rows(70))

    with pytest.raises(Conflict, match=r"part-1\.csv changed while it was read"):
        data_register(config, client, tmp_path, on_progress=meddle)
    assert not client.exists(Repo(repo_type="dataset", repo_id=config.repo_id))
