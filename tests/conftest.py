"""Settings of all tests: CI draws the same examples every time, so that it never fails by chance; a developer's do not."""

import os

from hypothesis import settings

# The same examples on every run, so that a test fails for its change and not by chance;
# LLMDOCTOR_RANDOM=1 searches for new ones. How long an example takes says more of the machine than of it.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None)
settings.load_profile("random" if os.environ.get("LLMDOCTOR_RANDOM") else "repeatable")
