"""End-to-end tests: the installed program, real kubectl, a real control plane. Started by ``python -m tests.e2e.run``."""
