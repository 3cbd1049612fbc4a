"""Which metrics a gathering asks for."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from kubectl_llmdoctor.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class WantedPrometheus:
    """Which Prometheus is asked: `auto` looks for one, `off` asks none, else a URL.

    `config` is a file in the format of promtool's `--http.config.file`.
    """

    where: str = "auto"
    config: str | None = None

    def __post_init__(self) -> None:
        if self.where not in ("auto", "off") and urlsplit(self.where).scheme not in ("http", "https"):
            raise UsageError(
                f"--prometheus {self.where}: not auto, off or a URL such as https://prometheus.example.com"
            )


@dataclass(frozen=True, kw_only=True)
class WantedPorts:
    """What the engines' own ports are asked: nothing unless `metrics`.

    `sample`: seconds between two samples of the metrics, 0 for one sample. `smoke`: generate one token.
    """

    metrics: bool = True
    sample: float = 0.0
    smoke: bool = False


NO_PROMETHEUS = WantedPrometheus(where="off")
NO_PORTS = WantedPorts(metrics=False)
