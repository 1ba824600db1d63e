from stages.embed.params import EmbedParams
from stages.shared.core.run import Compute, run_process


def load() -> Compute[EmbedParams]:
    from stages.embed.embed import embed

    return embed


if __name__ == "__main__":
    run_process("embed", EmbedParams, load)
