"""The page: a text, and how the model labels it. Streamlit runs this from top to bottom at every click."""

import streamlit as st
from served import HUB, MAX_CHARACTERS, MODEL, PAGE, links, plain, predict

CSS = """
.stMainBlockContainer { max-width: 800px; padding-top: 3rem; padding-bottom: 2rem; }
h1 { font-size: 1.75rem !important; padding: 0 !important; }
[data-testid="stCaptionContainer"] { color: inherit; opacity: .85; }
h1, h3, .stProgress p, [data-testid="stCaptionContainer"] { overflow-wrap: anywhere; }
"""


def ask(text: str) -> None:
    """An example was chosen: it is the text now, and is answered."""
    st.session_state["text"], st.session_state["asked"] = text, True


st.set_page_config(page_title=PAGE["title"], page_icon="🏷️")
st.html(f"<style>{CSS}</style>")
st.title(plain(PAGE["title"]), anchor=False)
st.caption(f"Write a text and see how the model labels it. [Model card]({HUB}/{MODEL})")

with st.form("question"):
    text = st.text_area("Text", key="text", placeholder="Write or paste a text …", max_chars=MAX_CHARACTERS)
    asked = st.form_submit_button("Classify", type="primary", width="stretch") or st.session_state.pop("asked", False)

if PAGE["examples"]:
    st.caption("Try one")
    with st.container(horizontal=True):
        for example in PAGE["examples"]:
            st.button(plain(example), on_click=ask, args=(example,))

if asked and not text.strip():
    st.warning("Write or paste a text first.")
elif asked:
    ranked = sorted(predict(text).items(), key=lambda item: -item[1])[:10]
    with st.container(border=True):
        st.subheader(plain(ranked[0][0]), anchor=False)
        for label, score in ranked:
            st.progress(score, f"{plain(label)} · {score:.1%}")

st.divider()
st.caption(" · ".join(f"{word} [{name}]({url})" for word, name, url in links()))
