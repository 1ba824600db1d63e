"""Conversations with any OpenAI-compatible server, in text."""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.shared.generation.base import Message, Reply, Sampling
from stages.shared.generation.endpoint.answers import ServerAnswer, UnreadableAnswer
from stages.shared.generation.endpoint.client import EndpointClient
from stages.shared.generation.endpoint.engine import sampling_fields


class EndpointChat:
    def __init__(self, client: EndpointClient):
        self.client = client

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling, stop: Sequence[str] = ()) -> list[list[Reply]]:
        """See ChatEngine. Reply.fault beside the client's: empty (no text), thinking (all of it spent on thoughts), filtered."""
        params = self.client.params
        fixed: dict[str, object] = {**({"stop": list(stop)} if stop else {}), **({"logprobs": True} if params.logprobs else {})}
        bodies = []
        for place, messages in enumerate(conversations):
            for sample in range(sampling.samples):
                fields = sampling_fields(sampling, place, sample)
                if "max_completion_tokens" in params.extra:  # the newer name, beside which some servers refuse the older one
                    del fields["max_tokens"]
                bodies.append({"messages": [dict(message) for message in messages], **fields, **fixed})
        replies = [_reply(answer) for answer in self.client.ask("chat/completions", bodies, _check)]
        return [replies[start : start + sampling.samples] for start in range(0, len(replies), sampling.samples)]

    def close(self) -> None:
        self.client.close()


def _check(choice: Mapping[str, Any]) -> None:
    content = choice["message"].get("content")
    if content is not None and not isinstance(content, str):
        raise UnreadableAnswer("garbage")


def _reply(answer: ServerAnswer) -> Reply:
    if answer.fault:
        return Reply("", fault=answer.fault)
    message, finish = answer.choice["message"], str(answer.choice.get("finish_reason") or "")
    text, fault = message.get("content") or "", ""
    if finish == "content_filter":
        fault = "filtered"
    elif not text.strip():
        fault = "thinking" if message.get("reasoning_content") or message.get("reasoning") else "empty"
    steps = (answer.choice.get("logprobs") or {}).get("content") or []
    logprobs = tuple(float(step["logprob"]) for step in steps)
    return Reply(text, answer.prompt_tokens, answer.completion_tokens, logprobs, fault, finish, answer.seconds)
