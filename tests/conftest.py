"""Settings of all tests: CI draws the same examples every time, so that it never fails by chance; a developer's do not."""

import os

from hypothesis import settings

# The same examples on every run, so that a test fails for its change and not by chance;
# LLMDOCTOR_RANDOM=1 searches for new ones.
settings.register_profile("repeatable", derandomize=True)
if not os.environ.get("LLMDOCTOR_RANDOM"):
    settings.load_profile("repeatable")
