"""What a shard of embed or of traces takes (docs/scale.md): of a machine as any stage does, and of the disk what it writes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.embed.model import model_folder
from stages.embed.params import PACKAGED
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import DATA, read_json
from stages.tools.check_params import Params
from stages.tools.memory.formulas import WIDTH
from stages.tools.memory.shapes import shape_of
from stages.tools.memory.stage import CONTEXT, GB, LIBRARIES, StageMemory

TEXT_TOKENS = 512  # of an item's text, at most, where embed.max_tokens sets no limit: title, brand, categories
BYTES_A_TOKEN = 4  # of a reply


@dataclass(frozen=True)
class DataSize:
    """Of data/ingest, once it is there. training: slates that a teacher may be asked about, at most."""

    items: int
    training: int


@dataclass(frozen=True)
class Encoder:
    """parameters: numbers; hidden is the dimension of a vector; longest: tokens of a text that it reads."""

    parameters: float
    hidden: int
    intermediate: int
    longest: int = TEXT_TOKENS


def data_size() -> DataSize | None:
    path = DATA / "ingest/metrics.json"
    if not path.exists():
        return None
    metrics = read_json(path)
    return DataSize(metrics["items"], metrics["by_split"].get("train", 0))


def encoder_of(model: str) -> Encoder | None:
    """Of embed.model; None where neither folder nor published shape is known."""
    try:
        folder = model_folder(model)
    except StageError:
        shape = shape_of(Path(model)) if model != PACKAGED else None
        return Encoder(shape.parameters, shape.hidden, shape.intermediate) if shape else None
    config = next((path for path in (folder / "config.json", folder / "0_Transformer/config.json") if path.exists()), None)
    if config is None:
        return None
    values = read_json(config)
    stored = 4 if (values.get("dtype") or values.get("torch_dtype") or "float32") == "float32" else 2
    size = sum(path.stat().st_size for path in config.parent.glob("*.safetensors"))
    lengths = config.parent / "sentence_bert_config.json"
    longest = (read_json(lengths).get("max_seq_length") if lengths.exists() else None) or TEXT_TOKENS
    return Encoder(size / stored, values["hidden_size"], values["intermediate_size"], min(longest, TEXT_TOKENS))


def embed_shard_memory(memory: StageMemory, encoder: Encoder, params: Params, data: DataSize | None) -> None:
    """No gradients: of a batch one layer's inputs, its hidden ones and its attention are held at a time."""
    embed = params.embed
    on_gpu = memory.gpus > 0 and embed.device != "cpu"
    width = WIDTH[embed.dtype] if embed.dtype != "auto" else WIDTH["bfloat16" if on_gpu else "float32"]
    batch = embed.batch_size * (embed.max_tokens or encoder.longest) * (6 * encoder.hidden + 2 * encoder.intermediate)
    parts = {"weights": width * encoder.parameters / GB, "a batch": width * batch / GB}
    vectors = 4 * encoder.hidden * data.items / memory.shards / GB if data else 0.0
    if on_gpu:
        memory.gpu = parts | {"context": CONTEXT / GB}
        parts = {"model as it is read": parts["weights"]}
    elif memory.gpus:
        memory.faults.append(
            f"embed.device is {embed.device}: the GPUs of resources.{memory.stage} would idle; set it to cuda, or gpus to 0"
        )
    memory.host = parts | {"vectors": 2 * vectors, "libraries": LIBRARIES / GB}
    memory.disk = vectors


def reply_gb(params: Params, shards: int, data: DataSize | None) -> float:
    """What a shard of traces writes: a reply for every try of its slates, at most."""
    if data is None:
        return 0.0
    return data.training / shards * params.traces.attempts * params.traces.language_model.max_tokens * BYTES_A_TOKEN / GB


def shard_counts(params: Params) -> dict[str, int]:
    """Stage of the shards, as resources calls it -> how many there are; 0 = none."""
    return {"embed_shard": len(params.embed.shards), "traces_shard": len(params.traces.shards)}


def written_gb(stages: list[StageMemory]) -> float:
    """By all shards, and by embed, which puts the vectors together."""
    return sum((2 if stage.stage == "embed_shard" else 1) * stage.shards * stage.disk for stage in stages)


def unknown_encoder(params: Params) -> Iterator[str]:
    if params.embed.shards and encoder_of(params.embed.model) is None:
        yield f"embed.model: {params.embed.model}"
