"""Serves one model revision, in whose folder it is started: `handler.py` where it has one, else the pipeline of its task. Imports nothing of ours.

It answers as the toolkit of the real service does: POST / with {"inputs": …, "parameters": {…}}; whoever asks must know the secret that it was started with.
"""

import hmac
import importlib.util
import json
import os
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

Answer = Callable[[dict[str, Any]], Any]


def loaded(folder: Path, task: str) -> Answer:
    """What the revision answers with."""
    own = folder / "handler.py"
    if own.is_file():
        spec = importlib.util.spec_from_file_location("handler", own)
        assert spec and spec.loader  # noqa: S101  (a path of a .py file has both)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        handler: Answer = module.EndpointHandler(str(folder))
        return handler
    from transformers import pipeline

    ask: Any = pipeline(task, model=str(folder), trust_remote_code=False)  # type: ignore[call-overload]
    return lambda body: ask(body["inputs"], **(body.get("parameters") or {}))


def main() -> None:
    """Load, and only then listen: who can connect gets an answer."""
    answer = loaded(Path.cwd(), os.environ["TASK"])
    secret = os.environ["ENDPOINT_SECRET"]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if not hmac.compare_digest(self.headers.get("x-endpoint-secret", ""), secret):
                self._send(401, {"error": "unauthorized"})
                return
            try:
                body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)))
                said = answer(body)
            except Exception as error:  # whatever the model makes of it, the endpoint lives on
                self._send(400, {"error": f"{type(error).__name__}: {error}"})
            else:
                self._send(200, said)

        def _send(self, code: int, said: Any) -> None:
            text = json.dumps(said).encode()
            self.send_response(code)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()


if __name__ == "__main__":
    main()
