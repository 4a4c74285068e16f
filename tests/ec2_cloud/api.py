"""The API at its door: moto's, with what AWS documents and moto 5.2.5 lacks, and with faults on demand.

RunInstances     one ClientToken, one answer; IdempotentParameterMismatch; user data of 16 KiB at most
DescribeInstances  filter client-token; a machine is pending until it boots and shutting-down until it is off
GetConsoleOutput the instance's own words
"""

import base64
import hashlib
import io
import json
import re
import socket
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl, urlencode
from xml.sax.saxutils import escape

from tests.ec2_cloud.books import stamp
from tests.ec2_cloud.cloud import Cloud

MAX_USER_DATA_BYTES = 16 * 1024
XML = [("Content-Type", "text/xml")]
Answer = tuple[str, list[tuple[str, str]], bytes]
Form = dict[str, str]


class Api:
    """The WSGI application. `/cloud/…` is the tests' own door."""

    def __init__(self, cloud: Cloud) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app

        self.cloud, self.moto = cloud, DomainDispatcherApplication(create_backend_app)
        self.faults: list[dict[str, Any]] = []
        self.blind = 0
        self._answers: dict[str, tuple[str, Answer]] = {}  # client token: fingerprint and answer
        self._ids: dict[str, list[str]] = {}

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """One request."""
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        path = environ["PATH_INFO"]
        if len(body) < length:  # AWS's signature covers the whole body; moto checks none
            answer = refusal(403, "SignatureDoesNotMatch", "the request was cut off")
        elif path.startswith("/cloud/"):
            answer = self._told(path.removeprefix("/cloud/"), json.loads(body or b"{}"))
        elif "/ec2/aws4_request" in environ.get("HTTP_AUTHORIZATION", ""):
            answer = self._ec2(dict(parse_qsl(body.decode("latin-1"), keep_blank_values=True)), environ)
        else:
            answer = self._moto(environ, body)
        start_response(answer[0], answer[1])
        return [answer[2]]

    def _ec2(self, form: Form, environ: dict[str, Any]) -> Answer:
        action = form.get("Action", "")
        fault = self._fault(action, form)
        if fault and not fault["after"]:
            return refusal(fault["status"], fault["code"], fault["message"])
        if action == "RunInstances":
            answer = self._run(form, environ)
        elif action == "GetConsoleOutput":
            answer = self._console(form, environ)
        else:
            with self.cloud.books.lock:
                answer = self._moto(environ, urlencode(self._seen(action, form)).encode())
                if action == "CreateLaunchTemplate":
                    self.cloud.books.untangle_templates()
                if action == "TerminateInstances" and answer[0].startswith("200"):
                    self.cloud.terminated(value for name, value in form.items() if name.startswith("InstanceId."))
        if fault and fault["code"] == "cut":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return refusal(fault["status"], fault["code"], fault["message"]) if fault else answer

    def _run(self, form: Form, environ: dict[str, Any]) -> Answer:
        if len(base64.b64decode(form.get("UserData", ""))) > MAX_USER_DATA_BYTES:
            return refusal(400, "InvalidParameterValue", f"User data is limited to {MAX_USER_DATA_BYTES} bytes")
        token = form.get("ClientToken", "")
        fingerprint = hashlib.sha256(json.dumps(sorted(pair for pair in form.items() if pair[0] != "ClientToken")).encode()).hexdigest()
        with self.cloud.books.lock:
            known = self._answers.get(token)
            if known:
                told = "The request uses the same client token as a previous, but non-identical request."
                return known[1] if known[0] == fingerprint else refusal(400, "IdempotentParameterMismatch", told)
            answer = self._moto(environ, urlencode(form).encode())
            if answer[0].startswith("200"):
                self._answers[token], self._ids[token] = (fingerprint, answer), re.findall(r"<instanceId>(.*?)<", answer[2].decode())
                self.cloud.launched(self._ids[token])
            return answer

    def _console(self, form: Form, environ: dict[str, Any]) -> Answer:
        """moto looks whether the caller may and the instance is; the words are the machine's."""
        answer = self._moto(environ, urlencode(form).encode())
        text = base64.b64encode(self.cloud.console(form.get("InstanceId", ""))).decode()
        said = re.sub(r"<output>.*?</output>|<output\s*/>", f"<output>{text}</output>", answer[2].decode(), flags=re.DOTALL)
        return answer[0], [header for header in answer[1] if header[0].lower() != "content-length"], said.encode()

    def _seen(self, action: str, form: Form) -> Form:
        """A list that is behind shows nothing of what it was asked for."""
        if action == "DescribeInstances" and self.blind and "Filter.1.Name" in form:
            self.blind -= 1
            return {"Action": action, "Version": form["Version"], "Filter.1.Name": "instance-id", "Filter.1.Value.1": "i-none"}
        return self._by_id(form)

    def _by_id(self, form: Form) -> Form:
        """The filter client-token, which moto can't, as the filter instance-id, which it can."""
        for name in [name for name, value in form.items() if re.fullmatch(r"Filter\.\d+\.Name", name) and value == "client-token"]:
            prefix = name.removesuffix("Name")
            ids = [found for key, token in form.items() if key.startswith(f"{prefix}Value.") for found in self._ids.get(token, [])]
            form = {key: value for key, value in form.items() if not key.startswith(prefix)} | {name: "instance-id"}
            form |= {f"{prefix}Value.{place}": found for place, found in enumerate(ids or ["i-none"], 1)}
        return form

    def _moto(self, environ: dict[str, Any], body: bytes) -> Answer:
        kept: list[Any] = []
        inner = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        said = b"".join(self.moto(inner, lambda status, headers, *_: kept.extend((status, headers))))
        return kept[0], kept[1], said

    def _fault(self, action: str, form: Form) -> dict[str, Any] | None:
        for fault in self.faults:
            if fault["action"] == action and fault["times"] and all(form.get(name) == value for name, value in fault["when"].items()):
                fault["times"] -= 1
                return fault
        return None

    def _told(self, verb: str, order: dict[str, Any]) -> Answer:
        """fault {action, code, when, status, times (-1: always), after}, heal, interrupt {id, seconds}, kill {id}, reach {ports}, hide {folders}.

        blind {lists}: so many lists show nothing yet.
        """
        if verb == "fault":
            self.faults.append({"status": 500, "times": 1, "message": "as the test wants it", "when": {}, "after": False} | order)
        elif verb == "heal":
            self.faults.clear()
            self.blind = 0
        elif verb == "blind":
            self.blind = order["lists"]
        elif verb == "interrupt":
            self.cloud.interrupt(order["id"], order["seconds"])
        elif verb == "kill":
            self.cloud.kill(order["id"])
        elif verb == "reach":
            self.cloud.reachable |= set(order["ports"])
        elif verb == "hide":
            self.cloud.hidden |= set(order["folders"])
        told = {"living": self.cloud.books.living(), "now": stamp(0)}
        return "200 OK", [("Content-Type", "application/json")], json.dumps(told).encode()


def refusal(status: int, code: str, message: str) -> Answer:
    """An error as EC2 writes it."""
    body = f"<Response><Errors><Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error></Errors><RequestID>test</RequestID></Response>"
    return f"{status} {code}", XML, body.encode()
