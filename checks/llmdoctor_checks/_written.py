"""When a line of a log was written, for the checks that ask for it."""

from kubectl_llmdoctor.api import MOMENT, seconds_ago, seconds_between, written_ago

__all__ = ["MOMENT", "seconds_ago", "seconds_between", "written_ago"]
