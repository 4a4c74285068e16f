"""The files of a commit against a plain model: a dict of paths, in which a file and a folder can't share a name."""

import pygit2
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.hub.embedded.git_files import Files

SEGMENT = st.sampled_from(["a", "b", "a.b", "a-"])
PATH = st.lists(SEGMENT, min_size=1, max_size=3).map("/".join)
OPERATION = st.tuples(st.sampled_from(["set", "remove", "remove folder"]), PATH, st.sampled_from(["1" * 40, "2" * 40]))


def model_of(operations: list[tuple[str, str, str]]) -> tuple[dict[str, str], list[bool]]:
    """What the operations mean, written as plainly as possible."""
    files: dict[str, str] = {}
    answers = []
    for action, path, oid in operations:
        below = [name for name in files if name.startswith(path + "/")]
        if action == "set":
            above = [name for name in files if path.startswith(name + "/")]
            files = {name: value for name, value in files.items() if name not in below + above} | {path: oid}
        elif action == "remove":
            answers.append(files.pop(path, None) is not None)
        else:
            answers.append(bool(below))
            files = {name: value for name, value in files.items() if name not in below}
    return files, answers


@settings(max_examples=400, deadline=None)
@given(st.lists(OPERATION, max_size=15), st.integers(0, 15))
def test_files_against_the_model(operations, cut):
    """Any order of writes and deletes, also over two commits, leaves the files that the model has."""
    index = pygit2.Index()
    answers = []
    for part in (operations[:cut], operations[cut:]):
        files = Files(index)
        for action, path, oid in part:
            if action == "set":
                files.set(path, oid)
            else:
                answers.append(files.remove(path) if action == "remove" else files.remove_folder(path))
    assert ({entry.path: str(entry.id) for entry in index}, answers) == model_of(operations)


def test_the_model_itself():
    """The model agrees with a case that was worked out by hand."""
    assert model_of([("set", "a/b", "1" * 40), ("set", "a", "2" * 40), ("remove", "a/b", "")]) == ({"a": "2" * 40}, [False])
