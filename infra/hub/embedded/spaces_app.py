"""One running app: a process on a loopback port, ended together with the hub."""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from infra.hub.embedded.spaces_card import SpaceProblem
from infra.hub.embedded.spaces_log import LogBook, copy_output

HERE = Path(__file__).parent
PASSED_ON = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE", "OMP_NUM_THREADS")
PROBE_SECONDS = 0.1
ANSWER_SECONDS = 10.0
GRACE_SECONDS, STOP_SECONDS = 2.0, 5.0  # the guard kills after the first


class App:
    """A process that serves one commit of a Space."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, sha: str, log: LogBook) -> None:
        self.port, self.sha, self.log = port, sha, log
        self._process = process
        assert process.stdout is not None  # noqa: S101  (PIPE was asked for)
        self._pump = asyncio.create_task(copy_output(process.stdout, log))

    @classmethod
    async def start(cls, folder: Path, command: Callable[[int], list[str]], sha: str, environment: Mapping[str, str], log: LogBook) -> "App":
        """Start the app of a checkout by the command for a port; it doesn't answer yet."""
        port = free_port()
        starting = asyncio.create_task(
            asyncio.create_subprocess_exec(
                *[sys.executable, "-I", "-S", str(HERE / "spaces_guard.py"), str(GRACE_SECONDS), *command(port)],
                cwd=folder,
                env={**environment, "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port), "PORT": str(port)},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the hub's terminal is the hub's; it ends its apps itself
            )
        )
        try:
            return cls(await asyncio.shield(starting), port, sha, log)
        except asyncio.CancelledError:  # cancelled in the middle of a fork: the process must not be lost
            await cls(await starting, port, sha, log).stop()
            raise

    @property
    def pid(self) -> int:
        """The guard's process id."""
        return self._process.pid

    async def ready(self, timeout_seconds: float) -> None:
        """Wait until the app answers HTTP. Raises SpaceProblem with RUNTIME_ERROR when it ends or stays silent."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while not await answers(self.port):
                    if self._process.returncode is not None:
                        raise SpaceProblem("RUNTIME_ERROR", await self.ended())
                    await asyncio.sleep(PROBE_SECONDS)
        except TimeoutError as error:
            raise SpaceProblem("RUNTIME_ERROR", f"Launch timed out: the app did not answer on port {self.port} within {timeout_seconds:.0f} s.") from error

    async def ended(self) -> str:
        """Wait for the end of the process and say how it ended."""
        code = await self._process.wait()
        await self._finish_log()
        return f"Exit code: {code}. The app ended" + (" by itself." if code == 0 else ".")

    async def stop(self) -> None:
        """End the app and everything it started."""
        stdin = self._process.stdin
        if stdin is not None:
            stdin.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await self._finish_log()

    async def _finish_log(self) -> None:
        # A process that left the app's group may still hold the pipe: don't wait for that one.
        await asyncio.wait([self._pump], timeout=1.0)
        self._pump.cancel()


def app_environment(repo_id: str, sha: str, address: str, endpoint: str, home: Path) -> dict[str, str]:
    """What an app sees: nothing of the hub's own secrets, and a home of its own, so that no login of the person's is found there."""
    home.mkdir(parents=True, exist_ok=True)
    owner, name = repo_id.split("/")
    return {variable: os.environ[variable] for variable in PASSED_ON if variable in os.environ} | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",  # `python` is this environment's
        "HOME": str(home),
        "HF_HOME": str(home / "huggingface"),
        "GRADIO_TEMP_DIR": str(home / "gradio"),
        "PYTHONUNBUFFERED": "1",
        "SPACE_ID": repo_id,
        "SPACE_HOST": address.removeprefix("http://"),
        "SPACE_AUTHOR_NAME": owner,
        "SPACE_REPO_NAME": name,
        "SPACE_COMMIT_SHA": sha,  # ours: the real service doesn't tell an app its commit
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",  # this hub speaks LFS only
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
    }


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def answers(port: int) -> bool:
    """Whether something speaks HTTP on a loopback port."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n" % port)
                return (await reader.read(5)) == b"HTTP/"
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
