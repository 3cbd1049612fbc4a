"""kubectl-llmdoctor explains why an LLM-serving pod is Pending, crashing, out of memory or slow."""

__version__ = "0.1.0"
