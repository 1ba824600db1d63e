"""The messages between orchestrator and node: they survive the way there and back, and a wrong one gives a clear error."""

import pytest

from flows.nodes.messages import Heartbeat, NodeFacts, NodeProgress, StageRequest, StageResult, read_message
from tasks.system.errors import ProjectError

REQUEST = StageRequest(ref="refs/gr2/run", commit="c" * 40, key="k" * 64, pool="nodes", lease_s=60)


def test_both_messages_survive_the_way_there_and_back() -> None:
    facts, progress = NodeFacts(host="gpu1", pool="nodes"), NodeProgress(done=3, total=6, part="training")
    heartbeat = Heartbeat(count=3, line="half", progress=progress, node=facts, result=StageResult(ran=True, seconds=1.5))
    assert read_message(StageRequest, REQUEST.model_dump(), "the request") == REQUEST
    assert read_message(Heartbeat, heartbeat.model_dump_json(), "the heartbeat") == heartbeat


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"gpu": 1}, "gpu: Extra inputs are not permitted"),
        ({"version": 1}, "version: Input should be 2"),
        ({"rank": "first"}, "rank: Input should be a valid integer"),
        ({"lease_s": 0}, "lease_s: Input should be greater than 0"),
    ],
)
def test_a_wrong_request_names_the_key_and_the_remedy(change: dict[str, object], problem: str) -> None:
    with pytest.raises(ProjectError) as raised:
        read_message(StageRequest, REQUEST.model_dump() | change, "the request that this node got")
    text = str(raised.value)
    assert "the request that this node got is not one of this version of gr2" in text
    assert problem in text and "use one version on all machines" in text


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ProjectError, match="commit: Field required"):
        read_message(StageRequest, {key: value for key, value in REQUEST.model_dump().items() if key != "commit"}, "the request")
