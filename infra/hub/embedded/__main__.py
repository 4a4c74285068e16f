"""`python -m infra.hub.embedded`: the Hub as a process of its own."""

import argparse
import os
import signal
import sys
import threading
from dataclasses import fields
from pathlib import Path

from infra.errors import SpaceportError
from infra.hub.embedded.server import serve
from infra.hub.embedded.state import Options


def main() -> int:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m infra.hub.embedded", description="A Hugging Face Hub on a loopback port.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one.")
    parser.add_argument("--root", type=Path, default=Path(".spaceport/hub"), help="Folder that holds everything.")
    parser.add_argument("--users", type=Path, help="TOML file with users, tokens and organisations.")
    parser.add_argument("--ends-with-stdin", action="store_true", help="Stop when standard input is closed, as it is when the parent dies.")
    for option in fields(Options):
        parser.add_argument("--" + option.name.replace("_", "-"), type=int, default=option.default, help=option.metadata["help"])
    arguments = parser.parse_args()
    options = Options(**{option.name: getattr(arguments, option.name) for option in fields(Options)})
    if arguments.ends_with_stdin:
        threading.Thread(target=_stop_with_stdin, daemon=True).start()
    try:
        serve(arguments.port, arguments.root, arguments.users, options)
    except (SpaceportError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _stop_with_stdin() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
