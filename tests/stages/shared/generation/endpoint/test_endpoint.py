"""Against a stub server: what is tried again, what is counted, what is refused, and that the key stays out of sight."""

import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from stages.shared.core.errors import StageError
from stages.shared.core.params import validate_section
from stages.shared.generation.base import Sampling
from stages.shared.generation.endpoint.chat import EndpointChat
from stages.shared.generation.endpoint.client import GIVE_UP, EndpointClient
from stages.shared.generation.endpoint.engine import EndpointEngine
from stages.shared.generation.journal import AnswerJournal
from stages.shared.generation.params import EndpointParams
from stages.shared.slates.constraint import LayoutTokenIds, PermutationConstraint
from tests.support.openai_stub import Canned, Stub, completion, openai_stub, reply

GREEDY = Sampling(max_tokens=4)
OK = Canned(completion([5, 6, 1]))


def client(stub: Stub, journal: AnswerJournal | None = None, skip_failed: bool = False, **changes: object) -> EndpointClient:
    values = {"base_url": stub.base_url, "model": "m", "first_wait_s": 0.002, "retries": 3, "timeout_s": 60.0, **changes}
    return EndpointClient(EndpointParams.model_validate(values), journal, skip_failed)


def engine(stub: Stub, **changes: object) -> EndpointEngine:
    return EndpointEngine(client(stub, **changes), end_id=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Canned({"error": {"message": "slow down"}}, 429), "busy"),
        (Canned(b"<html>bad gateway</html>", 502), "server_error"),
        (Canned(drop=True), "connection"),
        (Canned(OK.body, seconds=0.5), "timeout"),
        (Canned(b'{"choices": [{"tok'), "garbage"),
        (Canned(b"\xff\xfe"), "garbage"),
        (Canned(["no", "object"]), "garbage"),
        (Canned({"choices": []}), "empty"),
        (Canned({"choices": [{"text": "", "token_ids": [5], "logprobs": {"token_logprobs": []}}]}), "garbage"),
    ],
)
def test_a_passing_fault_is_tried_again_and_counted(fault: Canned, kind: str) -> None:
    with openai_stub([fault, fault, OK]) as stub:
        one = engine(stub, timeout_s=0.2 if kind == "timeout" else 60.0, retries=20)
        [[result]] = one.generate([[7, 8, 9]], GREEDY)
        assert result.token_ids == [5, 6, 1] and result.logprobs == [-0.5] * 3 and (result.finish, result.prompt_tokens) == ("stop", 3)
        retried = one.client.usage.retried
        assert set(retried) == {kind} and not one.client.usage.failed
        assert retried[kind] == 2 or kind == "timeout", "on a busy machine the good answer may take too long, too"


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_kept_by_all(as_date: bool) -> None:
    after = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True) if as_date else "0.3"
    with openai_stub([Canned({}, 429, {"Retry-After": after}), OK]) as stub:
        begin = time.monotonic()
        engine(stub, concurrency=1).generate([[7], [8]], GREEDY)
        assert time.monotonic() - begin > 0.25 and len(stub.requests) == 3


def test_waits_grow_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    with openai_stub([Canned({}, 500)]) as stub:
        one = client(stub, skip_failed=True, first_wait_s=1.0, longest_wait_s=4.0, retries=5)
        monkeypatch.setattr(one, "_pause", lambda seconds: waits.append(seconds) if seconds > 0 else None)
        EndpointEngine(one, 1).generate([[7]], GREEDY)
    for wait, mean in zip(waits, [1, 2, 4, 4, 4], strict=True):
        assert mean / 2 <= wait <= mean * 1.5
    assert len(set(waits)) == 5


def test_what_keeps_failing_is_skipped_or_stops(tmp_path: Path) -> None:
    with openai_stub([Canned({"error": {"message": "broken"}}, 500)]) as stub:
        with pytest.raises(StageError, match=r"a request failed .*server_error, 500: broken; 2 tries more"):
            engine(stub, retries=2).generate([[7]], GREEDY)
        skipping = engine(stub, retries=0, skip_failed=True)
        result = [one for (one,) in skipping.generate([[7], [8]], GREEDY)]
        assert [one.fault for one in result] == ["server_error"] * 2 and skipping.client.metrics()["failed"] == {"server_error": 2}
        with pytest.raises(StageError, match=f"{GIVE_UP} requests one after the other failed"):
            skipping.generate([[place] for place in range(3 * GIVE_UP)], GREEDY)
    with pytest.raises(StageError, match="connection"):
        engine(stub, retries=1).generate([[7]], GREEDY)  # the server is gone


def test_a_refused_prompt_is_not_tried_again() -> None:
    with openai_stub([Canned({"message": "too long"}, 400)]) as stub:
        one = engine(stub, skip_failed=True)
        assert one.generate([[7]], GREEDY)[0][0].fault == "refused" and len(stub.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_every_request_would_get_stops_at_once_without_the_key(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_API_KEY", "sk-planted")
    with openai_stub([Canned({"error": {"message": "Incorrect key sk-planted"}}, status)]) as stub:
        with pytest.raises(StageError) as caught:
            engine(stub, key_variable="TEACHER_API_KEY", skip_failed=True).generate([[7]], GREEDY)
        assert str(status) in str(caught.value) and "sk-planted" not in str(caught.value)
        assert stub.keys == ["Bearer sk-planted"] and "sk-planted" not in json.dumps(stub.requests)


def test_the_key_is_named_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEACHER_API_KEY", raising=False)
    with openai_stub([OK]) as stub:
        with pytest.raises(StageError, match="TEACHER_API_KEY is not set"):
            client(stub, key_variable="TEACHER_API_KEY")
        with pytest.raises(StageError, match="API_KEY, ACCESS_KEY"):
            client(stub, key_variable="MINE")
    with pytest.raises(StageError, match="key_variable") as caught:
        validate_section("endpoint", EndpointParams, {"key_variable": "sk-planted"}, "params.yaml")
    assert "sk-planted" not in str(caught.value)


def test_requests_are_open_side_by_side_up_to_the_limit() -> None:
    with openai_stub([Canned(OK.body, seconds=0.05)]) as stub:
        engine(stub, concurrency=3).generate([[place] for place in range(9)], GREEDY)
        assert stub.most_open == 3


def test_the_order_is_that_of_the_prompts_and_seeds_are_those_of_their_places() -> None:
    with openai_stub([OK]) as stub:
        drawn = Sampling(4, temperature=0.5, top_p=0.9, samples=2, seed=3)
        one = engine(stub, concurrency=1)
        assert len(one.generate([[7], [8]], drawn, places=[4, 9])) == 2
        assert [request["seed"] for request in stub.requests] == [2 * (3_000_009 + place) + sample for place in (4, 9) for sample in (0, 1)]
        first = stub.requests[0]
        assert (first["prompt"], first["temperature"], first["top_p"], first["max_tokens"]) == ([7], 0.5, 0.9, 4)
        assert (first["stop_token_ids"], first["ignore_eos"], first["logprobs"], first["top_k"]) == ([1], True, 0, 0)
        one.generate([[7]], GREEDY)
        assert "seed" not in stub.requests[-1] and stub.paths[-1] == "/v1/completions"


def test_a_journal_spares_what_was_answered(tmp_path: Path) -> None:
    with openai_stub([OK, Canned({}, 500), OK]) as stub:
        first = engine(stub, journal=AnswerJournal("traces", tmp_path), skip_failed=True, retries=0, concurrency=1)
        assert [one.fault for (one,) in first.generate([[7], [8]], GREEDY)] == ["", "server_error"]
        again = engine(stub, journal=AnswerJournal("traces", tmp_path), skip_failed=True, retries=0)
        assert [one.token_ids for (one,) in again.generate([[7], [8]], GREEDY)] == [[5, 6, 1]] * 2
        assert [request["prompt"] for request in stub.requests] == [[7], [8], [8]]
        assert again.client.metrics() == {"answers": 2, "failed": {}, "prompt_tokens": 6, "completion_tokens": 6, "cost": 0.0}
        other = engine(stub, journal=AnswerJournal("traces", tmp_path), extra={"top_k": 5})
        other.generate([[7]], GREEDY)
        assert len(stub.requests) == 4 and stub.requests[-1]["top_k"] == 5


def test_tokens_and_cost() -> None:
    with openai_stub([OK]) as stub:
        one = engine(stub, input_price=2.0, output_price=10.0)
        one.generate([[7], [8]], GREEDY)
        assert one.client.metrics()["cost"] == pytest.approx((6 * 2 + 6 * 10) / 1e6)


def test_what_a_server_cannot_do_is_said() -> None:
    rule = PermutationConstraint(LayoutTokenIds(1, 2, [], []), [[3]], False, [], [], 0)
    with openai_stub([Canned({"choices": [{"text": "x", "token_ids": None}]})]) as stub:
        with pytest.raises(StageError, match="cannot decode under our constraint"):
            engine(stub).generate([[7]], GREEDY, [rule])
        with pytest.raises(StageError, match="api to chat"):
            engine(stub).generate([[7]], GREEDY)
    with openai_stub([Canned(completion([5, 6], "length"))]) as stub, pytest.raises(StageError, match="--generation-config vllm"):
        engine(stub).generate([[7]], GREEDY)
    with openai_stub([OK]) as stub, pytest.raises(StageError, match="base_url and model are needed"):
        client(stub, base_url="")


def test_chat_replies_and_their_faults() -> None:
    answers = [reply("yes"), reply(None), reply("", reasoning_content="hm"), reply("no", "content_filter"), reply("cut", "length")]
    with openai_stub([Canned(answer) for answer in answers]) as stub:
        one = EndpointChat(client(stub, concurrency=1, logprobs=True))
        messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
        replies = [result for (result,) in one.chat([messages] * 5, Sampling(9, temperature=0.7, seed=1), stop=["<|end|>"])]
        assert [result.fault for result in replies] == ["", "empty", "thinking", "filtered", ""]
        assert [result.text for result in replies][::4] == ["yes", "cut"] and replies[4].finish == "length"
        assert (replies[0].prompt_tokens, replies[0].completion_tokens) == (10, 4)
        first = stub.requests[0]
        assert first["messages"] == messages and first["stop"] == ["<|end|>"] and first["logprobs"] is True and first["max_tokens"] == 9
        assert stub.paths[0] == "/v1/chat/completions" and len({request["seed"] for request in stub.requests}) == 5
    with openai_stub([Canned(reply("x"))]) as stub:
        EndpointChat(client(stub, extra={"max_completion_tokens": 5})).chat([messages], GREEDY)
        assert "max_tokens" not in stub.requests[0] and stub.requests[0]["max_completion_tokens"] == 5
