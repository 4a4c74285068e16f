"""The templates of a Space, a row each: of which files it is made, what tells that an app is there, and how a live one is asked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SpaceTemplate = Literal["gradio", "streamlit", "docker", "static"]
PredictApi = Literal["gradio", "json"]


@dataclass(frozen=True)
class Template:
    """`folders` are laid over each other. A Space that has one of `app_files` without our having written it is a team's own."""

    sdk: Literal["gradio", "docker", "static"]
    folders: tuple[str, ...]
    app_files: tuple[str, ...]
    revision_path: str
    predict_api: PredictApi | None

    def files(self) -> dict[str, bytes]:
        """What the template brings, by path in the Space."""
        found: dict[str, bytes] = {}
        for folder in (Path(__file__).parent / name for name in self.folders):
            found |= {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".pyc"}
        return found


TEMPLATES: dict[SpaceTemplate, Template] = {
    "gradio": Template("gradio", ("served", "gradio"), ("app.py",), "/revision", "gradio"),
    "streamlit": Template("docker", ("served", "container", "streamlit"), ("Dockerfile", "app.py"), "/revision", "json"),
    "docker": Template("docker", ("served", "container", "docker"), ("Dockerfile", "app.py"), "/revision", "json"),
    "static": Template("static", ("static",), ("index.html",), "/revision.json", None),
}
