"""Headlines that name what this case is, where the line of a log alone would leave it open."""

from pathlib import Path

import pytest

from kubectl_llmdoctor.testing import diagnose_case, load_case

CASES = Path(__file__).parent.parent / "checks" / "cases"


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("request-too-long/fires_llama_refuses", "a slot of llama-server has 16384, all of -c 16384."),
        (
            "request-too-long/fires_llama_capped",
            "has 32768, which is usually what the model was trained with, as -c 131072",
        ),
        ("request-too-long/fires_llama_divided", "has 8192, as -c 32768 is divided among 4 slots."),
        ("served-model-name-mismatch/fires_other_name", "does not answer to that name, but to Qwen/Qwen3-8B."),
        ("served-model-name-mismatch/fires_client_ended", "does not answer to that name."),
        ("worker-lost/fires_killed_child", "by signal 9 (a kill, usually for memory)."),
        ("trt-engine-mismatch/fires_other_gpu", "was built for compute capability 9.0, and this GPU has 8.0"),
        ("entrypoint-missing/fires_variable_that_nobody_sets", "$(NODE_RANK) stands in the command"),
        (
            "entrypoint-missing/fires_program_like_a_variable",
            "The start script calls MODEL, and the image has no such program.",
        ),
        ("cpu-memory-insufficient/fires_cpu_taken", "1 node (gpu-1) could run it and has 4 nvidia.com/gpu free"),
    ],
)
def test_a_headline_names_this_case(case: str, said: str) -> None:
    report = diagnose_case(load_case(CASES / f"{case}.yaml"))
    assert said in report.targets[0].findings[0].summary
