"""What an end means when it can't be provoked here: memory, mostly."""

import pytest

from infra.compute.process.outcome import MemoryWatch, script_error
from infra.errors import BadInput, OutOfMemory, Preempted, QuotaExceeded


def status(code: int, **more):
    """What the supervisor would report."""
    return {"code": code, "reason": None, "max_rss_bytes": 3 << 30, **more}


@pytest.mark.parametrize("code", [-9, 137])
def test_a_kill_with_evidence_is_out_of_memory(code):
    """kill -9 counts as memory only with evidence; without it somebody took the process away, and an attempt more is right."""
    assert isinstance(script_error("train.py", status(code), [], True), OutOfMemory)
    assert "at 3.0 GiB" in str(script_error("train.py", status(code), [], True))
    assert isinstance(script_error("train.py", status(code), [], False), Preempted)


@pytest.mark.parametrize(
    "words",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.",
        "MemoryError: Unable to allocate 74.5 GiB for an array",
        "OSError: [Errno 12] Cannot allocate memory",
    ],
)
def test_frameworks_say_it_in_their_own_words(words):
    """The last words of torch, numpy and the system for too little memory are known."""
    assert isinstance(script_error("train.py", status(1), ["Traceback", words], False), OutOfMemory)


def test_the_gpu_s_memory_is_not_the_machine_s():
    """When the GPU is full, the message says so and quotes how full, and not the process's own memory, of which there was plenty."""
    said = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.18 GiB of which 1.12 GiB is free."
    error = script_error("train.py", status(1), [said], False)
    assert isinstance(error, OutOfMemory) and "79.18 GiB" in str(error) and "3.0 GiB" not in str(error)


def test_the_end_of_the_lease_is_quota_even_when_it_was_sealed():
    """A script that seals in time at its time limit has used up its quota; it wasn't preempted."""
    error = script_error("train.py", status(75, reason="lease"), [], False)
    assert isinstance(error, QuotaExceeded) and "a checkpoint is sealed" in str(error)


def test_a_script_that_finishes_while_told_to_stop_is_not_done():
    """Exit 0 after SIGTERM may be a script that gave up: it counts as stopped, and the next attempt says what was done."""
    assert isinstance(script_error("train.py", status(0, reason="stopped"), [], False), Preempted)


def test_last_words_are_one_short_line():
    """An endless last line is cut; empty lines don't hide the one that matters."""
    error = script_error("train.py", status(1), ["x" * 5000, "", "  "], False)
    assert isinstance(error, BadInput) and len(str(error)) < 500


def test_evidence_is_a_peak_near_the_limit(tmp_path):
    """A peak far below the machine's memory is no evidence, one at it is; an end without kill -9 never asks."""
    watch = MemoryWatch()
    assert not watch.killed(status(-9, max_rss_bytes=1 << 20))
    assert watch.killed(status(-9, max_rss_bytes=1 << 50))
    assert not watch.killed(status(1, max_rss_bytes=1 << 50))
