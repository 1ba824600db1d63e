from stages.embed.embed import embed
from stages.embed.params import EmbedParams
from stages.shared.core.run import run_stage

if __name__ == "__main__":
    run_stage("embed", EmbedParams, embed)
