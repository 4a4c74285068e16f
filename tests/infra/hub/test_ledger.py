"""The ledger: a step's work is published once, whatever happens to requests, answers, rivals and processes."""

import hashlib
import json
import subprocess
import sys

import pytest
from huggingface_hub import CommitOperationAdd

from infra.errors import Conflict, RateLimited, Unauthorized, UnknownOutcome
from infra.hub.client import ASK_TRIES, HubClient
from infra.hub.ledger import REBASES, TRAILER, Copy, Ledger, Publication, ref_of
from infra.hub.step_records import STEP_FILE, StepRecord
from infra.revisions import Repo

COMMIT = r"POST /api/datasets/.*/commit/main"


@pytest.fixture
def client(hub) -> HubClient:
    return HubClient(hub.api())


@pytest.fixture
def repo(client, hub_namespace) -> Repo:
    made = Repo(repo_type="dataset", repo_id=f"{hub_namespace}/rows")
    client.create(made, "private")
    return made


@pytest.fixture
def ledger(over_the_line) -> Ledger:
    """A ledger that talks to the Hub over a line that can fail, and doesn't wait long between its tries."""
    return Ledger(over_the_line, pause_seconds=0.01)


def publication(repo, name="a", parent=None, **more) -> Publication:
    record = StepRecord.of("data_register", 1, {"name": name}, {"rows": 3})
    return Publication(repo, record, f"Rows of {name}", {"data.txt": name.encode(), "big.bin": name.encode() * 10_000}, parent=parent, tag=True, **more)


def commits(client, repo, branch="main") -> list[str]:
    return [commit.sha for commit in client.recent_commits(repo, branch, 100)]


def by_hand(client, repo, path="note.txt", content=b"hi") -> str:
    return client.api.create_commit(repo.repo_id, [CommitOperationAdd(path, content)], commit_message="by hand", repo_type=repo.repo_type).oid


def test_one_publish_is_one_commit_that_carries_its_key(client, repo, ledger):
    """Files, LFS and the record arrive in one commit, tagged with the key, and the manifest holds the files' SHA-256."""
    before = commits(client, repo)
    done = ledger.publish(publication(repo))
    assert done.outcome == "published" and commits(client, repo) == [done.revision.sha, *before]
    assert client.head(repo, ref_of(done.record.key)) == done.revision.sha
    assert client.read_json(done.revision, STEP_FILE) == json.loads(done.record.dump())
    assert done.record.files.keys() == {"data.txt", "big.bin"} and client.read_bytes(done.revision, "data.txt") == b"a"


def test_the_same_again_publishes_nothing(client, repo, ledger):
    """The second publish of a key finds the first, with no commit."""
    first = ledger.publish(publication(repo))
    before = commits(client, repo)
    again = ledger.publish(publication(repo))
    assert (again.revision, again.outcome) == (first.revision, "reused") and commits(client, repo) == before
    assert ledger.find(repo, first.record.key).revision == first.revision


def test_a_large_file_is_hashed_once(ledger, repo, tmp_path):
    """The digest in the record is the one that the upload works out anyway: opened for a sample, for the digest and to be sent, and not once more."""
    big, content, opened = tmp_path / "big.bin", b"many bytes" * 10_000, []
    big.write_bytes(content)
    sys.addaudithook(lambda event, words: opened.append(words[0]) if event == "open" and str(words[0]) == str(big) else None)
    done = ledger.publish(Publication(repo, StepRecord.of("data_register", 1, {"name": "big"}), "Big", {"big.bin": big}))
    assert done.record.files == {"big.bin": hashlib.sha256(content).hexdigest()}
    assert len(opened) == 3


@pytest.mark.parametrize("fault", ["lose answer", "503 after"])
def test_a_lost_answer_after_the_commit_leaves_one_commit(client, repo, ledger, line, fault):
    """The Hub committed and nobody heard of it: the key is found, and nothing is sent again."""
    before = commits(client, repo)
    rule = line.on(COMMIT, fault)
    done = ledger.publish(publication(repo))
    assert rule.met == 1 and done.outcome == "published" and commits(client, repo) == [done.revision.sha, *before]
    assert sum("/commit/" in request for request in line.seen) == 1


@pytest.mark.parametrize("fault", ["refuse", "503 unseen", "429 unseen"])
def test_a_request_that_never_arrived_is_sent_again(client, repo, ledger, line, fault):
    """The Hub saw nothing twice: the third try is the one commit."""
    before = commits(client, repo)
    line.on(COMMIT, fault, times=2)
    done = ledger.publish(publication(repo))
    assert commits(client, repo) == [done.revision.sha, *before]


def test_an_answer_lost_while_the_hub_cannot_be_asked_either_is_resolved_later(client, repo, ledger, line):
    """The look-up fails too: the next try meets 412 and then finds its own commit."""
    before = commits(client, repo)
    line.on(COMMIT, "lose answer")
    line.on(r"GET /api/datasets/.*/commits/", "refuse", times=ASK_TRIES)
    done = ledger.publish(publication(repo))
    assert commits(client, repo) == [done.revision.sha, *before]


def test_a_line_that_stays_dead_ends_as_unknown_outcome(client, repo, ledger, line):
    """After so many tries the outcome is called unknown, and the next run settles it without a second commit."""
    before = commits(client, repo)
    line.on(COMMIT, "lose answer", times=99)
    line.on(r"GET /api/datasets/.*/commits/", "refuse", times=99)
    with pytest.raises(UnknownOutcome, match="Run it again"):
        ledger.publish(publication(repo))
    assert len(commits(client, repo)) == len(before) + 1
    line.rules.clear()
    assert ledger.publish(publication(repo)).outcome == "reused" and len(commits(client, repo)) == len(before) + 1


def test_a_limit_that_stays_is_named(repo, ledger, line):
    """A Hub that keeps asking for a pause is not an unknown outcome."""
    line.on(COMMIT, "429 unseen", times=99)
    ledger.attempts = 2
    with pytest.raises(RateLimited):
        ledger.publish(publication(repo))


def test_a_refusal_is_not_repeated(repo, hub, line):
    """A token without the right asks once."""
    from huggingface_hub import HfApi

    with pytest.raises(Unauthorized):
        Ledger(HubClient(HfApi(endpoint=line.endpoint, token="hf_nobody")), pause_seconds=0.01).publish(publication(repo))
    assert sum("/commit/" in request for request in line.seen) <= 1


def test_a_rival_on_a_judged_parent_is_a_conflict(client, repo, ledger, line):
    """Somebody commits between the judgement and our commit: nothing of ours is written."""
    parent = client.head(repo)
    line.on(COMMIT, first=lambda: by_hand(client, repo))
    with pytest.raises(Conflict):
        ledger.publish(publication(repo, parent=parent))
    assert sum("/commit/" in request for request in line.seen) == 1
    assert len(commits(client, repo)) == 2 and client.read_bytes(repo.at(client.head(repo)), STEP_FILE) is None


def test_without_a_judged_parent_a_rival_is_given_way_to(client, repo, ledger, line):
    """Other commits come between, as often as we give way: ours lands on top of all, and theirs stay."""
    rivals = REBASES - 1
    counter = iter(range(rivals))
    line.on(COMMIT, times=rivals, first=lambda: by_hand(client, repo, f"note{next(counter)}.txt"))
    done = ledger.publish(publication(repo))
    assert commits(client, repo)[0] == done.revision.sha and len(commits(client, repo)) == rivals + 2
    assert all(client.read_bytes(done.revision, f"note{number}.txt") for number in range(rivals))


def test_a_twin_that_was_faster_by_a_breath_is_found(client, repo, ledger, line):
    """The same work arrives from elsewhere just before our commit: one commit, and both name it."""
    other = []
    line.on(COMMIT, first=lambda: other.append(Ledger(client).publish(publication(repo))))
    done = ledger.publish(publication(repo))
    assert done.revision == other[0].revision and done.outcome == "reused" and len(commits(client, repo)) == 2


def test_a_twin_that_finished_before_the_upload_is_found(client, repo, ledger, line):
    """The same content is there before we upload, so that the client has nothing to send and calls the head a success: it is named as reused."""
    other = []
    line.on(r"POST /api/datasets/.*/preupload/main", first=lambda: other.append(Ledger(client).publish(publication(repo))))
    done = ledger.publish(publication(repo))
    assert (done.revision, done.outcome) == (other[0].revision, "reused") and len(commits(client, repo)) == 2


PUBLISH = """
import sys
from huggingface_hub import HfApi
from infra.hub.client import HubClient
from infra.hub.ledger import Ledger, Publication
from infra.hub.step_records import StepRecord
from infra.revisions import Repo
endpoint, repo_id, name = sys.argv[1:]
token = sys.stdin.readline().strip()
hub = HubClient(HfApi(endpoint=endpoint, token=token))
repo = Repo(repo_type="dataset", repo_id=repo_id)
record = StepRecord.of("data_register", 1, {"name": name})
print("ready", flush=True)
sys.stdin.readline()
done = Ledger(hub, pause_seconds=0.05).publish(Publication(repo, record, "Rows", {"data.txt": name.encode()}, tag=True))
print(done.outcome, done.revision.sha, "prefect" in sys.modules)
"""


def race(hub, repo, names) -> list[list[str]]:
    """One process for each name, all let go at the same moment."""
    command = [sys.executable, "-c", PUBLISH, hub.endpoint, repo.repo_id]
    processes = [subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for name in names]
    for process in processes:
        process.stdin.write(hub.token + "\n")
        process.stdin.flush()
    assert all(process.stdout.readline() == "ready\n" for process in processes)
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.communicate(timeout=60)[0].split() for process in processes]


def test_the_same_key_from_three_processes_is_one_commit(hub, client, repo):
    """Three processes publish the same work at once, without Prefect: one commit, one of them made it, all name it."""
    results = race(hub, repo, ["same"] * 3)
    assert len(commits(client, repo)) == 2 and {sha for _, sha, _ in results} == {client.head(repo)}
    assert sorted(outcome for outcome, *_ in results) == ["published", "reused", "reused"]
    assert {prefect for *_, prefect in results} == {"False"}


def test_different_keys_from_three_processes_are_three_commits(hub, client, repo):
    """Rivals with other work lose nothing: each has its commit and its tag."""
    results = race(hub, repo, ["a", "b", "c"])
    assert [outcome for outcome, *_ in results] == ["published"] * 3 and len(commits(client, repo)) == 4
    tags = {tag.target_commit for tag in client.api.list_repo_refs(repo.repo_id, repo_type="dataset").tags}
    assert tags == {sha for _, sha, _ in results}


def test_a_missing_tag_is_put_back_on_the_commit_that_the_step_made(client, repo, ledger):
    """Somebody deletes the tag and edits the card: the key is found at the head, and the tag leads to our commit, not to the edit."""
    done = ledger.publish(publication(repo))
    client.api.delete_tag(repo.repo_id, repo_type="dataset", tag=ref_of(done.record.key))
    by_hand(client, repo)
    assert ledger.find(repo, done.record.key).revision == done.revision
    assert client.head(repo, ref_of(done.record.key)) == done.revision.sha


def test_a_tag_that_was_moved_elsewhere_leads_back(client, repo, ledger):
    """A tag on a foreign commit is no proof of anything; the next publish puts it right without a commit."""
    done = ledger.publish(publication(repo))
    tag, before = ref_of(done.record.key), commits(client, repo)
    client.api.delete_tag(repo.repo_id, repo_type="dataset", tag=tag)
    client.api.create_tag(repo.repo_id, repo_type="dataset", tag=tag, revision=before[-1])
    assert ledger.publish(publication(repo)).revision == done.revision
    assert client.head(repo, tag) == done.revision.sha and commits(client, repo) == before


def test_a_tag_on_a_later_commit_that_still_holds_the_key_stays(client, repo, ledger, line):
    """Somebody moved the tag to their edit on top of ours: it leads to this key as before, so it is left to them."""
    done = ledger.publish(publication(repo))
    tag, edit = ref_of(done.record.key), by_hand(client, repo)
    client.api.delete_tag(repo.repo_id, repo_type="dataset", tag=tag)
    client.api.create_tag(repo.repo_id, repo_type="dataset", tag=tag, revision=edit)
    ledger.tag(done.revision, done.record.key)
    assert client.head(repo, tag) == edit and not [request for request in line.seen if request.startswith("DELETE")]


def test_a_twin_that_makes_the_branch_or_the_tag_in_between_is_no_failure(client, repo, ledger, line):
    """Both see that it isn't there, the other is faster: both go on with the same one."""
    key, twin = publication(repo).record.key, Ledger(client)
    branch = line.on(r"POST /api/datasets/.*/branch/", first=lambda: twin.ensure_branch(repo, key))
    for _ in range(2):
        assert ledger.ensure_branch(repo, key) == client.head(repo, ref_of(key)) and branch.met == 1
    done = ledger.publish(Publication(repo, publication(repo, "b").record, "Rows", {"data.txt": b"b"}))
    tag = line.on(r"POST /api/datasets/.*/tag/", first=lambda: twin.tag(done.revision, done.record.key))
    ledger.tag(done.revision, done.record.key)
    assert client.head(repo, ref_of(done.record.key)) == done.revision.sha and tag.met == 1


def test_the_same_key_with_other_bytes_publishes_nothing(client, repo, ledger):
    """A training that isn't exact to the bit is still the same work: what was published first stays."""
    first = ledger.publish(publication(repo))
    record = publication(repo).record
    again = ledger.publish(Publication(repo, record, "Rows of a", {"data.txt": b"other"}, deletes=frozenset({"not there"})))
    assert (again.revision, again.outcome) == (first.revision, "reused") and len(commits(client, repo)) == 2


def test_a_message_that_only_claims_a_key_is_not_taken_for_it(client, repo, ledger):
    """Somebody copies our commit message to a commit without our record: the key isn't there, and is published."""
    key = publication(repo).record.key
    client.api.create_commit(repo.repo_id, [CommitOperationAdd("a.txt", b"a")], commit_message="by hand", commit_description=TRAILER + key, repo_type="dataset")
    assert ledger.find_in_history(repo, key) is None
    assert ledger.publish(publication(repo)).outcome == "published"


def test_a_tag_on_another_keys_commit_is_not_taken_for_this_key(client, repo, ledger):
    """The record at the tag decides, not the tag's name."""
    a, b = ledger.publish(publication(repo, "a")), ledger.publish(publication(repo, "b"))
    client.api.delete_tag(repo.repo_id, repo_type="dataset", tag=ref_of(a.record.key))
    client.api.create_tag(repo.repo_id, repo_type="dataset", tag=ref_of(a.record.key), revision=b.revision.sha)
    assert ledger.find(repo, a.record.key) is None


def test_content_that_was_published_before_is_found_behind_newer_content(client, repo, ledger):
    """A, then B, then A again: A's revision is found and nothing new is committed."""
    a, b = ledger.publish(publication(repo, "a")), ledger.publish(publication(repo, "b"))
    assert ledger.find(repo, a.record.key).revision == a.revision and ledger.find(repo, b.record.key).revision == b.revision
    assert len(commits(client, repo)) == 3


def test_a_candidate_keeps_its_commit_under_whatever_comes_on_top(client, repo, ledger):
    """Verdicts and edits move the branch; the candidate's revision stays the commit that the step made."""
    record = publication(repo).record
    parent = ledger.ensure_branch(repo, record.key)
    made = ledger.publish(Publication(repo, record, "Candidate", {"a.txt": b"a"}, branch=ref_of(record.key), parent=parent))
    for number in range(3):
        verdict = StepRecord.of("gate", 1, {"number": number})
        ledger.publish(Publication(repo, verdict, "Gate", branch=ref_of(record.key), record_file=f".spaceport/gate/{number}.json"))
    assert client.head(repo, ref_of(record.key)) != made.revision.sha
    found = ledger.find(repo, record.key)
    assert (found.revision, found.record) == (made.revision, made.record)
    again = ledger.publish(Publication(repo, record, "Candidate", {"a.txt": b"a"}, branch=ref_of(record.key)))
    assert (again.revision, again.outcome) == (made.revision, "reused")


def test_a_guard_has_the_last_word_after_the_upload_and_before_the_commit(client, repo, ledger, line, tmp_path):
    """It is asked once the large files are there, so that the moment between its answer and the commit is short; its refusal leaves no commit."""
    (tmp_path / "big.bin").write_bytes(b"big" * 50_000)
    record, before = publication(repo).record, commits(client, repo)
    asked = []

    def guard():
        asked.append([request for request in line.seen if "info/lfs" in request or request.startswith("PUT ")])
        raise Conflict("a newer attempt")

    with pytest.raises(Conflict, match="a newer attempt"):
        ledger.publish(Publication(repo, record, "Rows", {"big.bin": tmp_path / "big.bin"}, parent=before[0], guard=guard))
    assert len(asked) == 1 and asked[0] and commits(client, repo) == before
    done = ledger.publish(Publication(repo, record, "Rows", {"big.bin": tmp_path / "big.bin"}))
    assert done.record.files == {"big.bin": hashlib.sha256(b"big" * 50_000).hexdigest()}


def test_copies_and_deletes_are_in_the_same_commit(client, repo, ledger):
    """A file taken from another revision and one taken away arrive together, and LFS bytes don't travel."""
    first = ledger.publish(publication(repo))
    by_hand(client, repo, "old.txt")
    copies = {"copy.bin": Copy(first.revision, "big.bin", first.record.files["big.bin"])}
    second = ledger.publish(Publication(repo, StepRecord.of("x", 1, {}), "Copy", copies=copies, deletes=frozenset({"old.txt"})))
    assert client.read_bytes(second.revision, "copy.bin") == b"a" * 10_000 and client.read_bytes(second.revision, "old.txt") is None
    assert second.record.files == {"copy.bin": first.record.files["big.bin"]}


def test_a_hub_that_dies_between_commit_and_answer_has_the_commit_when_it_is_back(tmp_path, line_to):
    """SIGKILL of the Hub right after it committed, before it answers: the key is found in the Hub's next life."""
    from huggingface_hub import HfApi

    from infra.hub.embedded.process import EmbeddedHub

    root, lives = tmp_path / "hub", []
    lives.append(EmbeddedHub.start(root, ends_with_parent=True))
    port = int(lives[0].endpoint.rsplit(":", 1)[1])

    def die_and_return() -> None:
        lives[-1].kill()
        lives.append(EmbeddedHub.start(root, port=port, ends_with_parent=True))

    try:
        with line_to(lives[0].endpoint) as line:
            client = HubClient(HfApi(endpoint=line.endpoint, token=lives[0].token))
            repo = Repo(repo_type="dataset", repo_id="team/rows")
            client.create(repo, "private")
            line.on(COMMIT, "lose answer", then=die_and_return)
            done = Ledger(client, pause_seconds=0.01).publish(publication(repo))
            assert len(lives) == 2 and commits(client, repo)[0] == done.revision.sha and len(commits(client, repo)) == 2
    finally:
        for life in lives:
            life.stop()
