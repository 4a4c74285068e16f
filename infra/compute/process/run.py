"""Run a user's command as a process of this machine, and tell its end as one of our errors."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from infra.compute import contract
from infra.compute.process import supervisor
from infra.compute.process.command import runnable, script_of
from infra.compute.process.environment import redacted, secret_values
from infra.compute.process.outcome import MemoryWatch, script_error
from infra.revisions import Frozen

Progress = Mapping[str, float | int | str]
_LONGEST_LINE = 16_384
_TAIL_LINES = 40
# The supervisor has its own clock for the grace; this is for the supervisor itself.
_SPARE_SECONDS = 15.0


class ScriptResult(Frozen):
    """How a script that ended well used its machine."""

    seconds: float
    cpu_seconds: float
    max_rss_bytes: int


async def run_script(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    *,
    on_line: Callable[[str], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    grace_seconds: float = 30.0,
    lease_seconds: float | None = None,
    owner: str = "",
    secrets: Iterable[str] = (),
) -> ScriptResult:
    """Run the command in `folder` with exactly this environment and a folder of its own for temporary files, and wait for it.

    Progress lines go to `on_progress`, all others to `on_line`. When this coroutine is cancelled the script gets
    SIGTERM and `grace_seconds` to seal a checkpoint; when this process dies the script dies with it. The process table shows
    when the lease ends and which run is the `owner`.
    """
    name = script_name(command, folder)
    hidden = secret_values(names=secrets)
    tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def heard(line: str, is_error: bool) -> None:
        line = redacted(line, hidden)
        facts = None if is_error else contract.read_progress(line)
        if facts is not None:
            if on_progress:
                on_progress(facts)
            return
        if is_error:
            tail.append(line)
        if on_line:
            on_line(line)

    watch, started = MemoryWatch(), time.monotonic()
    # A script that is killed clears nothing away, nor does torchrun ever (2.13): a worker's disk would fill over the months.
    with TemporaryDirectory(prefix="spaceport-", ignore_cleanup_errors=True) as temporary:
        told = {**environment, "TMPDIR": temporary}
        status = await _supervised(runnable(command, folder), told, folder, heard, grace_seconds, lease_seconds, owner)
    if lease_seconds and time.monotonic() - started > lease_seconds + grace_seconds and status["code"] == -signal.SIGKILL:
        status = status | {"reason": "lease"}  # it did not end itself, and was swept away
    error = script_error(name, status, list(tail), watch.killed(status))
    if error is not None:
        raise error
    return ScriptResult(seconds=time.monotonic() - started, cpu_seconds=status["cpu_seconds"], max_rss_bytes=status["max_rss_bytes"])


def script_name(command: Sequence[str], folder: Path) -> str:
    """What a command is called in messages: its script, its module, or its program."""
    script = script_of(command, folder)
    if script:
        return script.name
    modules = [after for flag, after in pairwise(command) if flag == "-m"]
    if modules:
        return modules[-1]  # `python -m torch.distributed.run … -m train`: the launcher is not what anybody asks about
    return Path(command[0]).name if command else "the command"


async def _supervised(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    heard: Callable[[str, bool], None],
    grace_seconds: float,
    lease_seconds: float | None,
    owner: str,
) -> dict[str, Any]:
    read_status, write_status = os.pipe()
    limits = [str(write_status), str(grace_seconds), str(lease_seconds or 0), f"{supervisor.OWNER}={owner}"]
    if lease_seconds:
        limits.append(f"{supervisor.LEASE_ENDS}={time.time() + lease_seconds + grace_seconds:.0f}")
    try:
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-I", "-S", supervisor.__file__, *limits, "--", *arguments],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(write_status,),
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
    except BaseException:
        os.close(read_status)
        raise
    finally:
        os.close(write_status)
    try:
        await _listen(process, heard, grace_seconds)
        with os.fdopen(os.dup(read_status)) as file:
            text = file.read()
    finally:
        os.close(read_status)
    # Both the supervisor and its guard were killed, and the script with them.
    status: dict[str, Any] = json.loads(text) if text else {"code": -signal.SIGKILL, "reason": None, "max_rss_bytes": 0, "cpu_seconds": 0.0}
    return status


async def _listen(process: asyncio.subprocess.Process, heard: Callable[[str, bool], None], grace_seconds: float) -> None:
    assert process.stdout and process.stderr and process.stdin  # noqa: S101 - all three are pipes
    streams = {asyncio.ensure_future(_lines(stream, heard, is_error)): stream for stream, is_error in ((process.stdout, False), (process.stderr, True))}
    try:
        await asyncio.gather(*(asyncio.shield(reading) for reading in streams), process.wait())
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        # Cancelled, perhaps with all tasks of the loop. Somebody must go on reading: a script blocked on a full pipe could not seal.
        drains = [asyncio.ensure_future(_drain(stream)) for reading, stream in streams.items() if reading.done()]
        with contextlib.suppress(BaseException):
            await asyncio.wait_for(process.wait(), grace_seconds + _SPARE_SECONDS)
        for drain in drains:
            drain.cancel()
        raise
    finally:
        process.stdin.close()  # the lifeline: whatever still runs is killed now
        for reading in streams:
            reading.cancel()
        with contextlib.suppress(BaseException):
            await asyncio.wait_for(process.wait(), _SPARE_SECONDS)
        await asyncio.gather(*streams, return_exceptions=True)


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65_536):
        pass


async def _lines(stream: asyncio.StreamReader, heard: Callable[[str, bool], None], is_error: bool) -> None:
    """Hand on line after line. A progress bar's carriage returns end a line too, and an endless line is cut."""
    rest = b""
    while chunk := await stream.read(65_536):
        *whole, rest = (rest + chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            whole, rest = [*whole, rest], b""
        for line in whole:
            heard(line[:_LONGEST_LINE].decode("utf-8", "replace"), is_error)
    if rest:
        heard(rest.decode("utf-8", "replace"), is_error)
