"""Completions of token ids by a server that takes and returns them, as `vllm serve` does; so no text is tokenized twice."""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.shared.core.errors import StageError
from stages.shared.generation.base import Completion, Constraints, Places, Prompts, Sampling
from stages.shared.generation.endpoint.answers import ServerAnswer, UnreadableAnswer
from stages.shared.generation.endpoint.client import EndpointClient

# Said with every request: what is left out, the server takes from the generation_config.json of its model.
NEUTRAL = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


class EndpointEngine:
    def __init__(self, client: EndpointClient, end_id: int):
        self.client, self.end_id = client, end_id

    def generate(
        self, prompts: Prompts, sampling: Sampling, constraints: Constraints = None, places: Places = None
    ) -> list[list[Completion]]:
        """See Engine. StageError under an enforced constraint, which a server does not know."""
        if any(constraint.enforced for constraint in constraints or ()):
            raise StageError("an endpoint cannot decode under our constraint; set `constrained` to false, or the engine's kind to vllm")
        bodies = [
            {
                "prompt": list(prompt),
                **sampling_fields(sampling, place, sample),
                **NEUTRAL,
                "logprobs": 0,  # of the token drawn alone
                "stop_token_ids": [self.end_id],
                "ignore_eos": True,  # the model's config may name others
                "skip_special_tokens": False,
                "return_token_ids": True,
            }
            for prompt, place in zip(prompts, places or range(len(prompts)), strict=True)
            for sample in range(sampling.samples)
        ]
        answers = self.client.ask("completions", bodies, _check)
        completions = [_completion(answer) for answer in answers]
        self._check_lengths(completions, sampling)
        return [completions[start : start + sampling.samples] for start in range(0, len(completions), sampling.samples)]

    def close(self) -> None:
        self.client.close()

    def _check_lengths(self, completions: Sequence[Completion], sampling: Sampling) -> None:
        for one in completions:
            if not one.fault and one.finish == "length" and len(one.token_ids) < sampling.max_tokens:
                raise StageError(
                    f"{self.client.params.base_url}: the server ends completions at {len(one.token_ids)} tokens, and max_tokens is "
                    f"{sampling.max_tokens}; start it with --generation-config vllm, or with a longer --max-model-len"
                )


def sampling_fields(sampling: Sampling, place: int, sample: int) -> dict[str, object]:
    """The standard ones. A sample has the seed that it has in vLLM in this process."""
    seed = {} if sampling.temperature == 0 else {"seed": (sampling.seed * 1_000_003 + place) * sampling.samples + sample}
    return {"max_tokens": sampling.max_tokens, "temperature": sampling.temperature, "top_p": sampling.top_p, **seed}


def _check(choice: Mapping[str, Any]) -> None:
    if choice.get("token_ids") is None and isinstance(choice.get("text"), str):
        raise StageError(
            "engine.endpoint: the server returns no token ids (it is not vLLM, or one before 0.10.2); set engine.endpoint.api to chat"
        )
    ids, logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
    if not all(isinstance(token, int) for token in ids) or len(ids) != len(logprobs):
        raise UnreadableAnswer("garbage")


def _completion(answer: ServerAnswer) -> Completion:
    if answer.fault:
        return Completion([], [], fault=answer.fault)
    logprobs = [float(logprob) for logprob in answer.choice["logprobs"]["token_logprobs"]]
    finish = str(answer.choice.get("finish_reason") or "")
    return Completion(list(answer.choice["token_ids"]), logprobs, "", finish, answer.prompt_tokens, answer.seconds)
