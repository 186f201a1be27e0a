"""llama.cpp behind Python, with errors instead of aborts, and which of the CPU's kernels run."""
