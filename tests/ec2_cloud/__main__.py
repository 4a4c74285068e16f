"""`python -m tests.ec2_cloud --port 15000 --folder /tmp/cloud`: ready when http://127.0.0.1:15000/cloud/ answers; SIGTERM ends it with every instance."""

import argparse
import logging
import signal
import threading
from pathlib import Path

from werkzeug.serving import make_server

from tests.ec2_cloud.api import Api
from tests.ec2_cloud.books import Books
from tests.ec2_cloud.cloud import Cloud

LOOPBACK = "127.0.0.1"


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser(prog="python -m tests.ec2_cloud", description=__doc__)
    parser.add_argument("--port", type=int, default=15_000)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/ec2-cloud"), help="for consoles and the machines' files")
    parser.add_argument("--reach", type=int, action="append", default=[], help="a loopback port that the machines can reach; the API's own is one")
    parser.add_argument("--image", default="/", help="root of the machines; one with cloud-init in it boots through the real cloud-init")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    cloud = Cloud(Books(), options.folder, options.image, {options.port, *options.reach}, ())
    server = make_server(LOOPBACK, options.port, Api(cloud), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ended.wait()
    cloud.close()


if __name__ == "__main__":
    main()
