"""What an engine takes that generates from a model on disk."""

from stages.shared.generation.params import EngineParams, TeacherEngineParams
from stages.tools.memory.formulas import WIDTH, generation
from stages.tools.memory.shapes import Shape
from stages.tools.memory.stage import CONTEXT, GB, LIBRARIES, StageMemory

VLLM_SHARE = 0.9  # of a GPU that vLLM takes (gpu_memory_utilization, its default)


def engine_memory(memory: StageMemory, shape: Shape, params: EngineParams | TeacherEngineParams, length: int, beside: int) -> None:
    engines, split = params.data_parallel * beside, params.tensor_parallel
    parts = generation(shape, params.dtype, params.batch_size, length)
    if not memory.gpus:
        if params.kind == "vllm":
            parts["key-value cache"] = params.kv_cache_gb * GB
        memory.host = {name: engines * part / GB for name, part in {**parts, "libraries": LIBRARIES}.items()}
        return
    memory.gpu = {name: part / split / GB for name, part in parts.items()} | {"context": CONTEXT / GB}
    # vLLM reads a shard at a time into its GPU; transformers the whole model onto the host.
    read = engines * WIDTH[params.dtype] if params.kind == "transformers" else WIDTH["bfloat16"]
    memory.host = {"libraries": engines * split * 2 * LIBRARIES / GB, "models as they are read": read * shape.parameters / GB}
    if params.kind == "vllm":
        # It fills its share with cache, and lets requests wait for room: only one request must fit.
        room = VLLM_SHARE * memory.gpu_limit - memory.gpu["weights"] - memory.gpu["context"]
        one = params.max_model_len * shape.kv_bytes(WIDTH[params.dtype]) / split / GB
        memory.gpu["key-value cache"] = min(memory.gpu["key-value cache"], max(room, one))
    if engines * split > memory.gpus:
        memory.faults.append(f"{memory.stage}: {engines} engines of {split} GPUs for {memory.gpus} GPUs (resources.{memory.stage}.gpus)")
