"""Serves one folder of a static Space on a loopback port: `python spaces_static.py FOLDER APP_FILE PORT`. Standard library only."""

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class StaticSpace(SimpleHTTPRequestHandler):
    """Files of the folder; `/` is the app file; folders aren't listed."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: object, app_file: str, **kwargs: object) -> None:
        self.app_file = app_file
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def translate_path(self, path: str) -> str:
        """The file of a URL path."""
        bare = path.split("?", 1)[0].split("#", 1)[0]
        return super().translate_path("/" + self.app_file if bare == "/" else path)

    def list_directory(self, path: object) -> None:
        """No listings, as on the real service."""
        self.send_error(404, "Not found")


def main() -> None:
    """Serve until ended."""
    folder, app_file, port = sys.argv[1:]
    handler = partial(StaticSpace, directory=str(Path(folder).resolve()), app_file=app_file)
    ThreadingHTTPServer(("127.0.0.1", int(port)), handler).serve_forever()


if __name__ == "__main__":
    main()
