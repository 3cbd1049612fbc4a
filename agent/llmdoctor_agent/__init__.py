"""The node agent: reads one node's GPUs, and which pod and container stands behind each; it changes nothing."""

__version__ = "0.1.0"
