"""Recorded responses of a real run: a trainer learned, the worker's recorder shipped, and the API shows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sqlalchemy import func, update

from api.simulation import Thresholds, quantile, simulate
from api.store import leases
from api.store.recordings import index_recording, read_compact
from api.store.tables import Rollout
from stapo_core.build import build
from stapo_core.spool import Spool
from stapo_core.train import train
from tests.api.conftest import Service
from tests.stapo_core.tiny import make_run_folder, read_config
from worker.recorder import Attempt, Recorder

SCOPES = ("candidates", "all_tokens")
SEARCHES = {
    "QUICK fox": [1, 2],
    '"brown fox"': [1],
    "fox -brown": [2],
    "brown or grey": [1, 2],
    "wolf": [],
}


@pytest.fixture(scope="module", params=SCOPES)
def run_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    algorithm = {"kind": "stapo", "tau_p": 0.02, "entropy_scope": request.param}
    folder = make_run_folder(tmp_path_factory.mktemp("run") / "job", algorithm=algorithm, num_steps=2, evaluation={})
    spool = Spool(folder / "events.jsonl")
    parts = build(read_config(folder), folder, spool=spool, should_stop=lambda: False)
    train(parts)
    parts.grading.close()
    spool.close()
    return folder


class Shipped:
    """The job of that run, as its tenant and a stranger reach it."""

    def __init__(self, service: Service, run_dir: Path) -> None:
        self.service = service
        config = read_config(run_dir).train.model_dump(mode="json")
        job = service.create_job(reinforcement={"config": config})
        self.path = f"/v1/fine_tuning/jobs/{job['id']}"
        self.folder = run_dir / "rollouts"
        self.table = pq.read_table(self.folder / "step-000002.parquet").to_pydict()
        with service.database.transaction() as session:
            claimed = leases.claim_job(session, worker="w", lease_s=60.0)
            assert claimed is not None
            attempt = Attempt(claimed.id, claimed.fence, run_dir, service.settings.artifacts_dir, keep_checkpoints=2)
        Recorder(service.database, attempt).ship()

    def get(self, path: str, **query: Any) -> Any:
        answer = self.service.client.get(self.path + path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def rewrite(self, place: int, *, text: str) -> None:
        """Gives one response other words to be found by."""
        with self.service.database.transaction() as session:
            words = func.to_tsvector("simple", text)
            session.execute(update(Rollout).where(Rollout.step == 2, Rollout.place == place).values(words=words))

    def masked(self) -> set[tuple[int, int]]:
        """(response, position) of each silenced token, read from the trainer's file alone."""
        response, found = -1, set()
        for position, is_masked in zip(self.table["position"], self.table["masked"], strict=True):
            response += position == 0
            if is_masked:
                found.add((response, position))
        return found


@pytest.fixture
def shipped(service: Service, run_dir: Path) -> Shipped:
    return Shipped(service, run_dir)


def test_every_response_of_the_step_is_listed_once_page_by_page(shipped: Shipped) -> None:
    seen: list[dict[str, Any]] = []
    page = shipped.get("/rollouts", step=2, limit=5, sort="-reward")
    seen += page["data"]
    while page["has_more"]:
        page = shipped.get("/rollouts", step=2, limit=5, sort="-reward", after=page["last_id"])
        seen += page["data"]
    assert sorted(row["place"] for row in seen) == list(range(16))
    assert [row["reward"] for row in seen] == sorted((row["reward"] for row in seen), reverse=True)
    assert sum(row["length"] for row in seen) == len(shipped.table["token"])
    assert sum(row["num_masked"] for row in seen) == len(shipped.masked()) > 0


def test_responses_are_filtered_by_reward_mask_and_step(shipped: Shipped) -> None:
    rows = shipped.get("/rollouts", step=2, limit=100)["data"]
    touched = {response for response, _ in shipped.masked()}
    masked = shipped.get("/rollouts", step=2, limit=100, masked=True)["data"]
    assert {row["place"] for row in masked} == touched
    best = max(row["reward"] for row in rows)
    chosen = shipped.get("/rollouts", step=2, limit=100, min_reward=best, max_reward=best)["data"]
    assert {row["id"] for row in chosen} == {row["id"] for row in rows if row["reward"] == best}
    assert {row["step"] for row in shipped.get("/rollouts", limit=100)["data"]} == {1, 2}
    assert shipped.get("/rollouts", step=3)["data"] == []


def test_a_response_is_read_token_by_token(shipped: Shipped) -> None:
    row = shipped.get("/rollouts", step=2, limit=100, sort="-length")["data"][0]
    detail = shipped.get(f"/rollouts/{row['id']}")
    firsts = [place for place, position in enumerate(shipped.table["position"]) if position == 0]
    first = firsts[row["place"]]
    rows = range(first, first + row["length"])
    assert [token["id"] for token in detail["tokens"]] == [shipped.table["token_id"][place] for place in rows]
    assert [token["text"] for token in detail["tokens"]] == [shipped.table["token"][place] for place in rows]
    for token, place in zip(detail["tokens"], rows, strict=True):
        assert token["p"] == pytest.approx(np.exp(token["logprob"]), rel=1e-5)
        assert token["masked"] == (token["positive_advantage"] and token["low_p"] and token["low_h"])
        assert token["entropy"] == shipped.table["entropy"][place]
    assert detail["is_complete"]
    assert detail["prompt_text"] == shipped.table["prompt"][first]
    assert detail["response_text"] == shipped.table["response"][first]


def test_tokens_are_counted_by_probability_and_entropy_in_the_quadrants_of_their_thresholds(shipped: Shipped) -> None:
    planes = shipped.get("/quadrants")
    table = shipped.table
    for sign, plane in ((1, planes["positive"]), (-1, planes["negative"])):
        rows = [row for row, advantage in enumerate(table["advantage"]) if advantage * sign > 0]
        sides = Counter((table["low_p"][row], table["low_h"][row]) for row in rows)
        assert plane["num_tokens"] == len(rows) == sum(cell["count"] for cell in plane["cells"]) > 0
        assert plane["quadrants"] == {
            "low_p_low_h": sides[True, True],
            "low_p_high_h": sides[True, False],
            "high_p_low_h": sides[False, True],
            "high_p_high_h": sides[False, False],
        }
        likely = [row for row in rows if table["p"][row] >= 0.1]
        assert sum(cell["count"] for cell in plane["cells"] if cell["p"] > 0.1) == len(likely)
        norms = sum(table["grad_norm"][row] for row in rows)
        assert sum(cell["count"] * cell["grad_norm"] for cell in plane["cells"]) == pytest.approx(norms, rel=1e-5)
    assert len(planes["positive"]["masked"]) == len(shipped.masked())
    assert planes["negative"]["masked"] == []
    assert planes["tau_p"] == [pytest.approx(0.02)]
    assert planes["tau_h"] == [pytest.approx(value) for value in sorted({*table["tau_h"]} - {None})]


def test_silenced_tokens_are_ranked_and_stand_in_their_context(shipped: Shipped) -> None:
    answer = shipped.get("/masked-tokens", limit=100)
    places = {row["id"]: row["place"] for row in shipped.get("/rollouts", step=2, limit=100)["data"]}
    assert {(places[token["rollout_id"]], token["position"]) for token in answer["data"]} == shipped.masked()
    norms = [token["grad_norm"] for token in answer["data"]]
    assert norms == sorted(norms, reverse=True)
    counted = Counter(
        token for token, masked in zip(shipped.table["token"], shipped.table["masked"], strict=True) if masked
    )
    assert answer["most_frequent"][0]["count"] == max(counted.values())
    assert {each["token"]: each["count"] for each in answer["most_frequent"]}.items() <= counted.items()
    first = answer["data"][0]
    whole = "".join(token["text"] for token in shipped.get(f"/rollouts/{first['rollout_id']}")["tokens"])
    assert first["before"] + first["token"] + first["after"] in whole


def test_at_its_own_thresholds_the_simulation_is_the_runs_own_mask(shipped: Shipped) -> None:
    own = shipped.get("/mask-simulation")
    assert own["is_exact"]
    assert own["simulated"] == own["actual"]
    assert own["actual"]["num_masked"] == len(shipped.masked())
    assert (own["entering"]["count"], own["leaving"]["count"]) == (0, 0)
    assert own["funnel"]["low_p_low_h"] == own["simulated"]["num_masked"]
    assert len(own["minibatches"]) == 2
    named = shipped.get("/mask-simulation", tau_p=0.02)
    assert (named["is_exact"], named["note"], named["simulated"]) == (True, None, own["simulated"])
    assert named["thresholds"]["tau_p"] == 0.02


def test_a_stricter_threshold_frees_tokens_and_a_laxer_one_silences_more(shipped: Shipped) -> None:
    none = shipped.get("/mask-simulation", tau_p=1e-9)
    assert none["simulated"]["num_masked"] == none["entering"]["count"] == 0
    assert none["leaving"]["count"] == len(shipped.masked())
    assert not none["is_exact"]  # two updates: the second would have met other weights
    more = shipped.get("/mask-simulation", tau_p=0.5, entropy_quantile=0.99)
    assert more["simulated"]["num_masked"] == len(shipped.masked()) + more["entering"]["count"]
    assert more["entering"]["count"] > 0


def test_the_simulation_follows_the_rule_worked_by_hand() -> None:
    columns = {
        "position": np.array([0, 1, 2, 0, 1, 0, 0]),
        "p": np.array([0.001, 0.001, 0.9, 0.001, 0.001, 0.001, 0.001], dtype=np.float32),
        "entropy": np.array([1.0, 3.0, 0.1, 2.0, 0.5, 0.1, 0.2], dtype=np.float32),
        "advantage": np.array([1, 1, 1, -1, -1, 1, 1], dtype=np.float32),
        "tau_p": np.full(7, 0.002, dtype=np.float32),
    }
    by_candidates = Thresholds(tau_p=None, entropy_quantile=0.5, entropy_scope="candidates")
    simulated = simulate(columns, by_candidates, num_minibatches=2, group_size=2)
    # first mini-batch: candidates have H 1 and 3, median 2; second: H 0.1 and 0.2, median 0.15
    assert [each.tau_h for each in simulated.minibatches] == pytest.approx([2.0, 0.15])
    assert simulated.is_masked.tolist() == [True, False, False, False, False, True, False]
    by_all = Thresholds(tau_p=None, entropy_quantile=0.75, entropy_scope="all_tokens")
    # H of the first mini-batch in order: 0.1 0.5 1 2 3, of which the third quartile is 2
    assert simulate(columns, by_all, num_minibatches=2, group_size=2).minibatches[0].tau_h == 2.0


def test_the_quantile_is_the_interpolated_one() -> None:
    values = np.random.default_rng(0).random(1001, dtype=np.float32)
    for share in (0.0, 0.1, 0.5, 0.8, 0.999):
        assert quantile(values, share) == pytest.approx(np.quantile(values, share), rel=1e-6)
    assert quantile(values[:0], 0.5) is None
    assert quantile(values[:1], 0.5) == values[0]


def test_a_step_that_was_not_recorded_is_named(shipped: Shipped) -> None:
    answer = shipped.service.client.get(f"{shipped.path}/mask-simulation", params={"step": 3})
    assert (answer.status_code, answer.json()["code"], answer.json()["param"]) == (404, "step_not_recorded", "step")
    assert shipped.service.client.get(f"{shipped.path}/rollouts/rollout-0").status_code == 404


def test_a_step_between_the_full_records_tells_its_own_mask_exactly(shipped: Shipped) -> None:
    table = pq.read_table(shipped.folder / "step-000001.parquet").to_pydict()
    own = shipped.get("/mask-simulation", step=1)
    assert own["is_exact"]
    assert own["simulated"] == own["actual"]
    assert own["actual"]["num_masked"] == sum(table["masked"])
    assert {(part["error"], part["undecided"]) for part in own["minibatches"]} == {(0.0, 0)}
    assert shipped.get("/masked-tokens", step=1)["num_masked"] == sum(table["masked"])


def test_a_step_between_the_full_records_states_how_well_it_knows_the_threshold(shipped: Shipped) -> None:
    other = shipped.get("/mask-simulation", step=1, tau_p=0.05, entropy_quantile=0.5, entropy_scope="all_tokens")
    assert all(0 < part["error"] < 1e-3 for part in other["minibatches"])
    assert sum(part["num_population"] for part in other["minibatches"]) <= other["funnel"]["tokens"]


@pytest.mark.parametrize(
    ("query", "param"), [("mask-simulation?step=1&tau_p=0.051", "tau_p"), ("quadrants?step=1", "step")]
)
def test_what_a_step_between_the_full_records_cannot_tell_is_refused_with_the_limit(
    shipped: Shipped, query: str, param: str
) -> None:
    answer = shipped.service.client.get(f"{shipped.path}/{query}")
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["param"]) == (422, "step_recorded_compactly", param)
    assert "record_rollouts_every" in problem["detail"]


def test_a_response_between_the_full_records_is_whole_and_says_whether_its_figures_are(shipped: Shipped) -> None:
    seen = set()
    for row in shipped.get("/rollouts", step=1, limit=100)["data"]:
        detail = shipped.get(f"/rollouts/{row['id']}")
        assert len(detail["tokens"]) == row["length"]
        assert row["num_masked"] == sum(token["masked"] for token in detail["tokens"])
        assert detail["is_complete"] or row["num_masked"] == 0
        assert detail["is_complete"] == all(token["p"] is not None for token in detail["tokens"])
        known = [token["p"] for token in detail["tokens"] if token["p"] is not None]
        assert row["min_p"] <= min(known, default=1.0)
        seen.add(detail["is_complete"])
    assert False in seen


def test_files_written_before_compact_steps_are_read_as_ever(tmp_path: Path, run_dir: Path) -> None:
    table = pq.read_table(run_dir / "rollouts" / "step-000002.parquet")
    old = tmp_path / "step-000002.parquet"
    pq.write_table(table.drop_columns(["min_p", "mean_entropy"]), old)
    now = index_recording(run_dir / "rollouts" / "step-000002.parquet")
    for before, after in zip(index_recording(old), now, strict=True):
        assert before["mean_entropy"] == pytest.approx(after["mean_entropy"], rel=1e-5)
        assert before | {"mean_entropy": None} == after | {"mean_entropy": None}
    assert read_compact(old) is None


def test_a_stranger_sees_no_response(shipped: Shipped) -> None:
    rollout_id = shipped.get("/rollouts")["data"][0]["id"]
    for suffix in ("/rollouts", f"/rollouts/{rollout_id}", "/masked-tokens", "/mask-simulation"):
        assert shipped.service.stranger.get(shipped.path + suffix).status_code == 404, suffix


def test_responses_are_found_by_the_words_of_prompt_and_response(shipped: Shipped) -> None:
    shipped.rewrite(1, text="the quick brown fox")
    shipped.rewrite(2, text="a quick grey fox")
    found = {text: shipped.get("/rollouts", text=text)["data"] for text in SEARCHES}
    assert {text: sorted(row["place"] for row in rows) for text, rows in found.items()} == SEARCHES


def test_a_prompt_is_found_by_its_own_words_as_the_trainer_wrote_them(shipped: Shipped) -> None:
    wanted = next(prompt for prompt in shipped.table["prompt"] if len(set(prompt[:3:2])) == 2)
    found = shipped.get("/rollouts", text=f'"{wanted}"', limit=100)["data"]
    assert {row["prompt"] for row in found} == {wanted}


@pytest.mark.parametrize("text", ["'", '"', "a & | !", "\\", "-", "%_", "(((", "a:*b"])
def test_no_search_is_an_error(shipped: Shipped, text: str) -> None:
    shipped.get("/rollouts", text=text)


def test_a_response_is_pinned_by_its_tenant_alone(shipped: Shipped) -> None:
    (row,) = shipped.get("/rollouts", limit=1)["data"]
    assert row["pinned"] is False
    path = f"{shipped.path}/rollouts/{row['id']}"
    assert shipped.service.stranger.patch(path, json={"pinned": True}).status_code == 404
    assert shipped.service.client.patch(path, json={"pinned": True}).json() == row | {"pinned": True}
    assert shipped.get("/rollouts", limit=1)["data"] == [row | {"pinned": True}]
