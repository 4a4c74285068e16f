"""A text classifier with a text box and an API. What it serves is in served.py."""

from typing import Any

from served import HUB, MAX_CHARACTERS, MODEL, PAGE, links, loading, plain, predict, revision  # first: the model loads while gradio is imported

import gradio as gr  # isort: skip
from fastapi.routing import APIRoute
from gradio.events import api

CSS = """
.gradio-container { max-width: none !important; }
.main.app { max-width: 800px !important; margin: 0 auto !important; }
#head h1 { margin-bottom: .2em; }
#foot { border-top: 1px solid var(--border-color-primary); margin-top: 1rem; padding-top: .6rem; font-size: .85em; overflow-wrap: anywhere; }
#head p, #foot p { opacity: .8; }
footer { display: none !important; }
"""


def shown(text: str) -> dict[str, float] | None:
    """What the page shows for a text; nothing, and a word about it, for an empty one."""
    if text.strip():
        return predict(text)
    gr.Warning("Write or paste a text first.", duration=4)
    return None


def page() -> Any:
    """The one page."""
    with gr.Blocks(title=PAGE["title"], analytics_enabled=False) as demo:
        gr.Markdown(f"# {plain(PAGE['title'])}\nWrite a text and see how the model labels it. [Model card]({HUB}/{MODEL})", elem_id="head")
        text = gr.Textbox(label="Text", placeholder="Write or paste a text …", lines=3, max_lines=12, max_length=MAX_CHARACTERS, autofocus=True)
        answer: Any = gr.Label(label="Answer", num_top_classes=10, render=False)
        if PAGE["examples"]:
            samples = [[example] for example in PAGE["examples"]]
            gr.Examples(samples, inputs=text, outputs=answer, fn=shown, run_on_click=True, cache_examples=False, api_visibility="private", label="Try one")
        button = gr.Button("Classify", variant="primary")
        answer.render()
        gr.Markdown(" · ".join([*(f"{word} [{name}]({url})" for word, name, url in links()), "[API](?view=api)"]), elem_id="foot")
        gr.on([button.click, text.submit], shown, text, answer, api_visibility="private")
        api(predict, api_name="predict")
    return demo


if __name__ == "__main__":
    demo = page()
    loading.result()  # a model that can't be loaded ends the app here, with its reason in the log
    theme = gr.themes.Default(primary_hue="indigo", neutral_hue="slate").set(link_text_color_dark="*primary_300")
    demo.launch(quiet=True, css=CSS, theme=theme, app_kwargs={"routes": [APIRoute("/revision", revision)]})
