"""Memory that hospitals share: a worker's part of a GPU, and what is said when memory runs out."""

import gc

OUT_OF_GPU_MEMORY = (
    "out of GPU memory; set runtime.gpus_per_hospital (of a class: gpus) to a larger share, so that fewer hospitals "
    "share a GPU, or task.image_size or task.width to less"
)
OUT_OF_MEMORY = (
    "out of memory; set runtime.workers (of a class: workers) to fewer or cpus_per_hospital to more, so that fewer "
    "hospitals run side by side, or task.image_size or task.width to less"
)

# Beside what PyTorch allocates every process keeps a CUDA context and its libraries' kernels on the GPU, and no cap
# counts them: some hundred MB, measured by others at 300 to 800.
CONTEXT = 600_000_000
LEAST = 0.5  # of a worker's share stays for PyTorch, however small the GPU


def cap_gpu_memory(share: float) -> float | None:
    """Keep this process within its share of the GPU's memory.

    Ray's shares are for scheduling only: without a cap one hospital can take what its neighbours were promised. The
    cap is below the share, since the process's CUDA context lies beside what PyTorch allocates.

    Args:
        share: of one GPU; 1 and more (whole GPUs) and 0 are not capped.

    Returns:
        The fraction of the GPU's memory that PyTorch may allocate; None where nothing is capped.
    """
    import torch

    if not 0 < share < 1 or not torch.cuda.is_available():
        return None
    whole = torch.cuda.get_device_properties(0).total_memory
    cap = max(share - CONTEXT / whole, share * LEAST)
    torch.cuda.set_per_process_memory_fraction(cap, 0)
    return cap


def memory_words(error: BaseException) -> str | None:
    """Return what to say where an error means that memory ran out, None for any other error.

    Guarantee: the words are constant. An error's own text holds sizes, which may tell how many records were drawn.
    """
    import torch

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, torch.OutOfMemoryError):
            return OUT_OF_GPU_MEMORY
        # torch's allocator for the CPU raises no class of its own
        if isinstance(seen, MemoryError) or (isinstance(seen, RuntimeError) and "can't allocate memory" in str(seen)):
            return OUT_OF_MEMORY
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return None


def free_memory() -> None:
    """Give back what this process keeps for later; call it when the error is gone, whose frames hold tensors."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
