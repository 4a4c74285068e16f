"""The server of this Space: Streamlit's own, with the two routes that say what is served. The page is page.py."""

import streamlit as st
from served import loading, predict, revision
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def served(_request: Request) -> JSONResponse:
    """The model, its revision, and the commit of this Space."""
    return JSONResponse(revision())


async def answer(request: Request) -> JSONResponse:
    """The score of every label for {"text": …}."""
    try:
        text = (await request.json())["text"]
    except (ValueError, KeyError, TypeError):
        text = None
    if not isinstance(text, str):
        return JSONResponse({"error": 'send {"text": "…"}'}, status_code=422)
    return JSONResponse(await run_in_threadpool(predict, text))


loading.result()  # a model that can't be loaded ends the app here, with its reason in the log
app = st.App("page.py", routes=[Route("/revision", served), Route("/predict", answer, methods=["POST"])])
