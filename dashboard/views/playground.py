"""One prompt, several models side by side: the base model, fine-tuned ones, checkpoints of a run.

Run, models, prompt and how to draw are named in the URL; an answer is drawn only when the reader asks.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import streamlit as st

from client.http import ApiError, ApiUnreachable
from client.objects import CompletionObject
from dashboard import formats, notices, playground, service, step_choice
from dashboard.components.tokens import sampled_answer
from dashboard.playground import Question

JsonObject = dict[str, Any]
Reply = CompletionObject | ApiError | ApiUnreachable
_LIMIT = 100


def page() -> None:
    """Draws the question, and below it the last answers."""
    st.title("Playground")
    try:
        names, usual = _choices()
    except (ApiUnreachable, ApiError) as error:
        notices.no_answer(error, since=None)
        st.button("Try again", icon=":material/refresh:")
        return
    if not names:
        st.info("The platform has no model yet. Put one, in Hugging Face layout, into the folder `models` of its home.")
        return
    named = [name for name in st.query_params.get_all("models") if name in names]
    models = st.multiselect(
        "Models",
        list(names),
        default=named[: playground.MAX_MODELS] or usual,
        format_func=lambda name: names[name],
        max_selections=playground.MAX_MODELS,
        key=f"models-{st.query_params.get('run')}",
    )
    if models != named:
        st.query_params["models"] = models
    question = _question()
    is_ready = bool(models and question.prompt)
    if st.button("Ask", type="primary", icon=":material/send:", disabled=not is_ready, key="ask"):
        with st.spinner("Drawing answers; a model that was not asked for a while is loaded first."):
            st.session_state["answers"] = question, _ask(models, question)
    asked, replies = st.session_state.get("answers", (None, {}))
    if asked is None:
        st.caption("Choose models, write a prompt, ask. The first answer of a model takes seconds longer.")
        return
    if asked != question or list(replies) != models:
        st.caption(":material/history: These answers are to what was asked before the last change.")
    _answers(replies, names)


# --- the question -------------------------------------------------------------------------------------------------


def _choices() -> tuple[dict[str, str], list[str]]:
    """What can be asked, by name, and what is chosen when the address names nothing."""
    with service.api() as client:
        models = client.list_models()["data"]
    jobs = {job["id"]: job for job in service.find_jobs(at_most=_LIMIT)[0]}
    ids = list(jobs)
    named = st.query_params.get("run")
    job_id = st.selectbox(
        "Checkpoints of",
        ids,
        index=ids.index(named) if named in ids else None,
        format_func=lambda job_id: formats.run_label(jobs[job_id]),
        placeholder="no run: models alone",
        key="of_run",
        on_change=lambda: step_choice.go(run=st.session_state["of_run"], models=None),
        width=320,
    )
    job = jobs.get(job_id or "")
    saved = service.checkpoints(job) if job else []
    names = playground.model_names(models, job, saved, st.query_params.get_all("models"))
    return names, playground.usual_models(names, job, saved)


def _question() -> Question:
    prompt = st.text_area("Prompt", key="prompt", bind="query-params", height=110, placeholder="123+456=")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        temperature = st.slider(
            "Temperature", 0.0, 2.0, 1.0, step=0.1, key="temperature", bind="query-params", width=200
        )
        max_tokens = st.number_input("Most tokens", 1, 4096, 64, key="max_tokens", bind="query-params", width=130)
        num_answers = st.number_input("Answers each", 1, 8, 1, key="n", bind="query-params", width=130)
        seed = st.number_input("Seed", 0, 2**31 - 1, 0, key="seed", bind="query-params", width=130)
        wants = st.toggle("Probability of each token", value=True, key="probabilities", bind="query-params")
    return Question(prompt, temperature, max_tokens, num_answers, seed, wants)


def _ask(models: list[str], question: Question) -> dict[str, Reply]:
    with ThreadPoolExecutor(playground.MAX_MODELS) as pool:
        return dict(zip(models, pool.map(lambda model: _reply(question.body(model)), models), strict=True))


def _reply(body: JsonObject) -> Reply:
    try:
        with service.api() as client:
            return client.complete(body)
    except (ApiError, ApiUnreachable) as error:
        return error


# --- the answers --------------------------------------------------------------------------------------------------


def _answers(replies: dict[str, Reply], names: dict[str, str]) -> None:
    with st.grid(len(replies), min_column_width=300, gap="small"):
        for model, reply in replies.items():
            with st.container(border=True):
                st.markdown(f"**{formats.plain(names.get(model, model))}**")
                if not isinstance(reply, dict):
                    notices.no_answer(reply, since=None)
                    continue
                for choice in reply["choices"]:
                    st.caption(formats.plain(playground.words(choice)))
                    sampled_answer(playground.answer(choice), key=f"answer-{model}-{choice['index']}")


page()
