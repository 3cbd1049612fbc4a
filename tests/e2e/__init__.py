"""End-to-end tests: the installed program, real kubectl, a real control plane. See ``run.py``."""
