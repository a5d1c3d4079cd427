"""One prompt, several models side by side: the base model, fine-tuned ones, checkpoints of a run.

Run, models, prompt and how to draw are named in the URL; an answer is drawn only when the reader asks, and is seen to
grow.
"""

from __future__ import annotations

import streamlit as st

from client.http import ApiError, ApiUnreachable
from dashboard import formats, notices, playground, service, step_choice
from dashboard.components.tokens import sampled_answer
from dashboard.drawing import Drawing, Reply
from dashboard.playground import Question

_LIMIT = 100
_PACE_S = 0.25
_SOON_S = 1.0
_WAITING = "waiting: the model is being loaded, or is busy"


def page() -> None:
    """Draws the question, and below it the last answers."""
    st.title("Playground")
    try:
        names, usual = _choices()
    except (ApiUnreachable, ApiError) as error:
        notices.no_answer(error)
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
    drawing = _asked(question, models)
    if drawing is None:
        st.caption("Choose models, write a prompt, ask. The first answer of a model takes seconds longer.")
        return
    notice = st.empty()
    if drawing.question != question or list(drawing.replies) != models:
        notice.caption(":material/history: These answers are to what was asked before the last change.")
    is_live = drawing.look()
    st.fragment(_answers, run_every=_PACE_S if is_live else None)(drawing, names, is_live=is_live)


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
        max_tokens = st.number_input("Max tokens", 1, 4096, 64, key="max_tokens", bind="query-params", width=130)
        num_answers = st.number_input("Answers per model", 1, 8, 1, key="n", bind="query-params", width=150)
        seed = st.number_input("Seed", 0, 2**31 - 1, 0, key="seed", bind="query-params", width=130)
        wants = st.toggle("Probability of each token", value=True, key="probabilities", bind="query-params")
    return Question(prompt, temperature, max_tokens, num_answers, seed, wants)


def _asked(question: Question, models: list[str]) -> Drawing | None:
    """The answers that were asked for last: now, where the reader has just asked."""
    drawing: Drawing | None = st.session_state.get("drawing")
    is_ready = bool(models and question.prompt)
    with st.container(horizontal=True):
        if st.button("Ask", type="primary", icon=":material/send:", disabled=not is_ready, key="ask"):
            if drawing is not None:
                drawing.stop()
            drawing = st.session_state["drawing"] = Drawing(question, models)
        is_live = drawing is not None and drawing.look()
        if st.button("Stop", icon=":material/stop:", disabled=not is_live, key="stop") and drawing is not None:
            drawing.stop()
    return drawing


# --- the answers --------------------------------------------------------------------------------------------------


def _answers(drawing: Drawing, names: dict[str, str], *, is_live: bool) -> None:
    """The answers as far as they have come; after the last look at a live drawing the page is drawn anew, at rest."""
    has_ended = is_live and not drawing.look()
    with st.grid(len(drawing.replies), min_column_width=300, gap="small"):
        for model, reply in drawing.replies.items():
            with st.container(border=True):
                st.markdown(f"**{formats.plain(names.get(model, model))}**")
                is_growing = is_live and not has_ended and not reply.is_over
                is_waiting = is_growing and drawing.age_s > _SOON_S and not reply.has_begun
                _reply(model, reply, is_growing=is_growing, is_waiting=is_waiting)
    if has_ended:  # not before: what a fragment has not drawn leaves the page
        st.rerun()


def _reply(model: str, reply: Reply, *, is_growing: bool, is_waiting: bool) -> None:
    for choice in reply.choices if reply.error is None or reply.has_begun else ():
        words = _WAITING if is_waiting else playground.words(choice, is_growing=is_growing)
        st.caption(formats.plain(words))
        if is_growing or choice["text"] or choice["finish_reason"]:
            answer = playground.answer(choice, is_growing=is_growing)
            sampled_answer(answer, key=f"answer-{model}-{choice['index']}")
    if isinstance(reply.error, ApiUnreachable):
        st.warning("The API does not answer, or broke off. Ask again.", icon=":material/cloud_off:")
    elif reply.error is not None:
        notices.no_answer(reply.error)


page()
