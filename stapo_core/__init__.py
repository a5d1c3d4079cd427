"""The trainer: config in, events and files out. It knows no job, tenant, queue, database or HTTP."""

import os

# Read when torch loads OpenMP. Threads that spin at a barrier take the cores from whoever could end the wait: beside
# other busy processes on two cores a training step took thirty times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Read when vLLM loads, where it is installed: it reports its use to nobody, and says in the log what went wrong.
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
