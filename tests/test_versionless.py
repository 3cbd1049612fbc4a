"""An image that states no version: what holds for some versions only is never said of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.gather.files import load
from kubectl_llmdoctor.packs import installed

CASES = Path(__file__).resolve().parent.parent / "checks" / "cases"

#: Cases of faults that one release has and another has not, or whose evidence is a tag.
BOUND = (
    "cpu-only-image/fires_llama_manifest",
    "engine-args-invalid/fires_removed_flag",
    "engine-args-invalid/fires_risk_sglang_underscore",
    "engine-args-invalid/fires_risk_tgi_variable",
    "gpu-arch-unsupported/fires_blackwell_on_old_image",
    "gpu-arch-unsupported/fires_fp8_on_turing",
    "hpa-wrong-metric/fires_keda_old_name",
    "hpa-wrong-metric/fires_later_name",
    "model-unsupported/fires_risk_older_engine",
    "model-unsupported/fires_risk_sglang",
    "model-unsupported/fires_risk_tgi",
    "quantization-mismatch/fires_bfloat16_awq",
    "quantization-mismatch/fires_gguf_gone",
    "setting-without-effect/fires_positional_model",
    "version-vulnerable/fires_mooncake",
    "version-vulnerable/fires_ollama_public",
    "version-vulnerable/fires_tool_parser",
    "version-vulnerable/fires_video_model",
)

IMAGE = re.compile(
    r"(?P<before>image: *['\"]?)(?P<name>[^\s'\",}\]:]+(?::\d+/[^\s'\",}\]:]+)?)(?P<tag>:[^\s'\",}\]]+)?"
)

#: The same image: by a moving tag, without any, by a digest alone, as a mirror of one's own calls it.
NAMED = {
    "latest": r"\g<before>\g<name>:latest",
    "no tag": r"\g<before>\g<name>",
    "digest": r"\g<before>\g<name>@sha256:" + "ab" * 32,
    "retag": r"\g<before>\g<name>:prod-7",
    "date": r"\g<before>\g<name>:2026-10-01",
}


@pytest.mark.parametrize("named", NAMED)
@pytest.mark.parametrize("case", BOUND)
def test_nothing_is_said_that_depends_on_the_version(case: str, named: str, tmp_path: Path) -> None:
    text = (CASES / f"{case}.yaml").read_text(encoding="utf-8")
    assert _risks(tmp_path, text) >= {case.partition("/")[0]}

    assert case.partition("/")[0] not in _risks(tmp_path, IMAGE.sub(NAMED[named], text))


@pytest.mark.parametrize("image", ["kserve/huggingfaceserver@sha256:" + "ab" * 32, "kserve/huggingfaceserver:v0.14.1"])
def test_an_image_before_the_split_of_its_builds_is_no_cpu_build(image: str, tmp_path: Path) -> None:
    text = (CASES / "cpu-only-image" / "fires_kserve.yaml").read_text(encoding="utf-8")

    assert "cpu-only-image" not in _risks(tmp_path, IMAGE.sub(rf"\g<before>{image}", text))


def _risks(folder: Path, text: str) -> set[str]:
    """What would be reported as a risk or a cause of a file with this text."""
    path = folder / "case.yaml"
    path.write_text(text, encoding="utf-8")
    report = diagnose(load(str(path)), installed())
    return {f.id for target in report.targets for f in target.findings if f.role in ("risk", "cause")}
