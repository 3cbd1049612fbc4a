"""YAML signatures: lines that prove a cause, as data, and what they say of a pod."""
