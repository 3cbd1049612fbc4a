"""What inference engines, kubelets and exporters say of load: which metric of which release says what.

A row gives the name as it is exposed (a counter with its `_total`, a histogram without `_bucket`), the first release that
has it and the first that has it no more, and where that is stated. `hidden` is the release from which a name is exported
only on request (vLLM's `--show-hidden-metrics-for-version`).

Sources, by engine:
- vLLM: `vllm/engine/metrics.py` (V0) and `vllm/v1/metrics/loggers.py` (V1) of the releases 0.6 to 0.32; `http_requests_total`
  is of prometheus-fastapi-instrumentator, which its server starts;
- SGLang: `srt/metrics/collector.py`, later `srt/observability/metrics_collector.py`, of 0.4.1 to 0.5.23;
- Text Generation Inference: `router/src/server.rs` and `backends/v3/src/*.rs` of v0.9.4 to v3.3.7;
- TensorRT-LLM: `tensorrt_llm/metrics/collector.py`; Triton: `src/metrics.cc` of its core, README of its TensorRT-LLM backend;
- llama.cpp: `tools/server` (its metrics endpoint); LMDeploy: `lmdeploy/metrics/loggers.py` of v0.9.2 to v0.14.0;
- NIM for LLMs: the page "Observability" of its documentation (the program is closed);
- cAdvisor `metrics/prometheus.go`, node-exporter `collector/meminfo.go`, kube-state-metrics `docs/metrics`, dcgm-exporter
  `etc/default-counters.csv`.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import msgspec

from kubectl_llmdoctor.engines.version import at_least

Kind = Literal["gauge", "counter", "histogram"]

Role = Literal[
    # an engine's load
    "waiting", "running", "kv_usage", "kv_used", "kv_total", "preemptions", "prefix_hits", "prefix_queries",
    "prompt_tokens", "generation_tokens", "prompt_length", "generation_length", "ttft", "itl", "e2e",
    "queue_time", "grammar_queue", "arrived", "finished", "errors", "http", "aborted", "max_running", "cache_config",
    # a container, by cAdvisor
    "cpu_seconds", "cpu_periods", "cpu_throttled", "memory_working_set", "memory_rss", "memory_limit",
    "oom_events", "cpu_waiting",
    # a node, by node-exporter
    "node_available",
    # objects, by kube-state-metrics
    "replicas", "replicas_ready", "hpa_current", "hpa_desired", "hpa_minimum", "hpa_maximum", "hpa_target",
    "hpa_value", "restarts", "terminated_reason", "waiting_reason", "pod_phase", "pod_unschedulable",
    "requests",
    # a GPU
    "gpu_utilization", "gpu_active", "gpu_memory_used", "gpu_memory_free", "gpu_xid", "gpu_remap_failed",
    "gpu_power", "gpu_health",
]  # fmt: skip


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric: `where` are labels that select what it says, `scale` makes seconds, shares (0 to 1) or bytes of its unit."""

    engine: str
    role: Role
    name: str
    kind: Kind
    since: str = ""
    until: str = ""
    hidden: str = ""
    where: tuple[tuple[str, str], ...] = ()
    scale: float = 1.0

    def may_have(self, version: str | None) -> bool:
        """Whether a release may export it; an unknown version may."""
        if self.until and at_least(version, self.until):
            return False
        return not self.since or at_least(version, self.since) is not False

    def has(self, version: str | None) -> bool | None:
        """Whether a release exports it without being asked to; None where the version is not known and it matters."""
        gone = self.hidden or self.until
        born = at_least(version, self.since) if self.since else True
        over = at_least(version, gone) if gone else False
        if born is False or over:
            return False
        return None if born is None or over is None else True


#: What each engine is read as: KServe's server and Triton's vLLM backend export what vLLM exports.
_ALSO = {"huggingfaceserver": ("vllm",), "triton": ("vllm",), "nim": ("vllm",), "tensorrt-llm": ()}

#: role, name, kind, since, until, further fields.
_Row = tuple[Role, str, Kind, str, str, dict[str, object]]


def _request(kind: str) -> dict[str, object]:
    return {"where": (("request_type", kind),)}


def _block(kind: str) -> dict[str, object]:
    return {"where": (("kv_cache_block_type", kind),)}


_ROWS: dict[str, tuple[_Row, ...]] = {
    "vllm": (
        ("waiting", "vllm:num_requests_waiting", "gauge", "", "", {}),
        ("running", "vllm:num_requests_running", "gauge", "", "", {}),
        ("kv_usage", "vllm:kv_cache_usage_perc", "gauge", "0.9.2", "", {}),
        ("kv_usage", "vllm:gpu_cache_usage_perc", "gauge", "", "0.12.0", {"hidden": "0.11.0"}),
        ("preemptions", "vllm:num_preemptions_total", "counter", "", "", {}),
        ("prefix_hits", "vllm:prefix_cache_hits_total", "counter", "0.9.2", "", {}),
        ("prefix_hits", "vllm:gpu_prefix_cache_hits_total", "counter", "0.7.3", "0.12.0", {"hidden": "0.11.0"}),
        ("prefix_queries", "vllm:prefix_cache_queries_total", "counter", "0.9.2", "", {}),
        ("prefix_queries", "vllm:gpu_prefix_cache_queries_total", "counter", "0.7.3", "0.12.0", {"hidden": "0.11.0"}),
        ("prompt_tokens", "vllm:prompt_tokens_total", "counter", "", "", {}),
        ("generation_tokens", "vllm:generation_tokens_total", "counter", "", "", {}),
        ("prompt_length", "vllm:request_prompt_tokens", "histogram", "", "", {}),
        ("generation_length", "vllm:request_generation_tokens", "histogram", "", "", {}),
        ("ttft", "vllm:time_to_first_token_seconds", "histogram", "", "", {}),
        ("itl", "vllm:inter_token_latency_seconds", "histogram", "0.10.2", "", {}),
        ("itl", "vllm:time_per_output_token_seconds", "histogram", "", "0.15.0", {"hidden": "0.12.0"}),
        ("e2e", "vllm:e2e_request_latency_seconds", "histogram", "", "", {}),
        ("queue_time", "vllm:request_queue_time_seconds", "histogram", "0.6.6", "", {}),
        ("finished", "vllm:request_success_total", "counter", "", "", {}),
        ("http", "http_requests_total", "counter", "", "", {"where": (("method", "POST"),)}),
        ("cache_config", "vllm:cache_config_info", "gauge", "0.5.5", "", {}),
    ),
    "sglang": (
        ("waiting", "sglang:num_queue_reqs", "gauge", "", "", {}),
        ("running", "sglang:num_running_reqs", "gauge", "", "", {}),
        ("kv_usage", "sglang:token_usage", "gauge", "", "", {}),
        ("kv_used", "sglang:num_used_tokens", "gauge", "", "", {}),
        ("kv_total", "sglang:max_total_num_tokens", "gauge", "0.5.9", "", {}),
        ("preemptions", "sglang:num_retracted_requests_total", "counter", "0.5.9", "", {}),
        ("prefix_hits", "sglang:cached_tokens_total", "counter", "0.4.6", "", {}),
        ("prefix_queries", "sglang:prompt_tokens_total", "counter", "", "", {}),
        ("prompt_tokens", "sglang:prompt_tokens_total", "counter", "", "", {}),
        ("generation_tokens", "sglang:generation_tokens_total", "counter", "", "", {}),
        ("prompt_length", "sglang:prompt_tokens_histogram", "histogram", "0.4.10", "", {}),
        ("generation_length", "sglang:generation_tokens_histogram", "histogram", "0.4.10", "", {}),
        ("ttft", "sglang:time_to_first_token_seconds", "histogram", "", "", {}),
        ("itl", "sglang:inter_token_latency_seconds", "histogram", "0.4.6", "", {}),
        ("itl", "sglang:time_per_output_token_seconds", "histogram", "", "0.4.6", {}),
        ("e2e", "sglang:e2e_request_latency_seconds", "histogram", "", "", {}),
        ("queue_time", "sglang:queue_time_seconds", "histogram", "0.5.5", "", {}),
        ("grammar_queue", "sglang:num_grammar_queue_reqs", "gauge", "0.4.10", "", {}),
        ("finished", "sglang:num_requests_total", "counter", "0.4.6", "", {}),
        ("aborted", "sglang:num_aborted_requests_total", "counter", "0.4.10", "", {}),
    ),
    "tgi": (
        ("waiting", "tgi_queue_size", "gauge", "", "", {}),
        ("running", "tgi_batch_current_size", "gauge", "", "", {}),
        ("kv_used", "tgi_batch_current_max_tokens", "gauge", "", "", {}),
        ("kv_total", "tgi_batch_max_total_tokens", "gauge", "2.3.1", "", {}),
        ("prompt_length", "tgi_request_input_length", "histogram", "", "", {}),
        ("generation_length", "tgi_request_generated_tokens", "histogram", "", "", {}),
        ("itl", "tgi_request_mean_time_per_token_duration", "histogram", "", "", {}),
        ("e2e", "tgi_request_duration", "histogram", "", "", {}),
        ("queue_time", "tgi_request_queue_duration", "histogram", "", "", {}),
        ("arrived", "tgi_request_count", "counter", "", "", {}),
        ("finished", "tgi_request_success", "counter", "", "", {}),
        ("errors", "tgi_request_failure", "counter", "", "", {}),
    ),
    "tensorrt-llm": (
        ("waiting", "trtllm_num_requests_waiting", "gauge", "1.3", "", {}),
        ("running", "trtllm_num_requests_running", "gauge", "1.3", "", {}),
        ("max_running", "trtllm_max_num_active_requests", "gauge", "1.3", "", {}),
        ("kv_usage", "trtllm_kv_cache_utilization", "gauge", "1.2", "", {}),
        ("prompt_tokens", "trtllm_prompt_tokens_total", "counter", "1.3", "", {}),
        ("generation_tokens", "trtllm_generation_tokens_total", "counter", "1.3", "", {}),
        ("ttft", "trtllm_time_to_first_token_seconds", "histogram", "1.1", "", {}),
        ("itl", "trtllm_time_per_output_token_seconds", "histogram", "1.1", "", {}),
        ("e2e", "trtllm_e2e_request_latency_seconds", "histogram", "1.1", "", {}),
        ("queue_time", "trtllm_request_queue_time_seconds", "histogram", "1.1", "", {}),
        ("finished", "trtllm_request_success_total", "counter", "1.1", "", {}),
        ("errors", "trtllm_request_error_total", "counter", "1.3", "", {}),
    ),
    "triton": (
        ("waiting", "nv_trt_llm_request_metrics", "gauge", "", "", _request("waiting")),
        ("waiting", "nv_inference_pending_request_count", "gauge", "", "", {}),
        ("running", "nv_trt_llm_request_metrics", "gauge", "", "", _request("active")),
        ("max_running", "nv_trt_llm_request_metrics", "gauge", "", "", _request("max")),
        ("kv_used", "nv_trt_llm_kv_cache_block_metrics", "gauge", "", "", _block("used")),
        ("kv_total", "nv_trt_llm_kv_cache_block_metrics", "gauge", "", "", _block("max")),
        ("finished", "nv_inference_request_success", "counter", "", "", {}),
        ("errors", "nv_inference_request_failure", "counter", "", "", {}),
        ("gpu_utilization", "nv_gpu_utilization", "gauge", "", "", {}),
        ("gpu_memory_used", "nv_gpu_memory_used_bytes", "gauge", "", "", {}),
    ),
    "llama.cpp": (
        ("waiting", "llamacpp:requests_deferred", "gauge", "", "", {}),
        ("running", "llamacpp:requests_processing", "gauge", "", "", {}),
        ("prompt_tokens", "llamacpp:prompt_tokens_total", "counter", "", "", {}),
        ("generation_tokens", "llamacpp:tokens_predicted_total", "counter", "", "", {}),
    ),
    "lmdeploy": (
        ("waiting", "lmdeploy:num_requests_waiting", "gauge", "0.9.2", "", {}),
        ("running", "lmdeploy:num_requests_running", "gauge", "0.9.2", "", {}),
        ("kv_usage", "lmdeploy:gpu_cache_usage_perc", "gauge", "0.9.2", "", {}),
        ("prompt_tokens", "lmdeploy:prompt_tokens_total", "counter", "0.9.2", "", {}),
        ("generation_tokens", "lmdeploy:generation_tokens_total", "counter", "0.9.2", "", {}),
        ("prompt_length", "lmdeploy:request_prompt_tokens", "histogram", "0.9.2", "", {}),
        ("generation_length", "lmdeploy:request_generation_tokens", "histogram", "0.9.2", "", {}),
        ("ttft", "lmdeploy:time_to_first_token_seconds", "histogram", "0.9.2", "", {}),
        ("itl", "lmdeploy:iter_token_latency", "histogram", "0.10.0", "", {}),
        ("e2e", "lmdeploy:e2e_request_latency_seconds", "histogram", "0.9.2", "", {}),
        ("queue_time", "lmdeploy:request_queue_time_seconds", "histogram", "0.9.2", "", {}),
        ("finished", "lmdeploy:request_success_total", "counter", "0.9.2", "", {}),
    ),
    "nim": (
        ("waiting", "num_requests_waiting", "gauge", "", "", {}),
        ("running", "num_requests_running", "gauge", "", "", {}),
        ("max_running", "num_request_max", "gauge", "", "", {}),
        ("kv_usage", "gpu_cache_usage_perc", "gauge", "", "", {}),
        ("prompt_tokens", "prompt_tokens_total", "counter", "", "", {}),
        ("generation_tokens", "generation_tokens_total", "counter", "", "", {}),
        ("prompt_length", "request_prompt_tokens", "histogram", "", "", {}),
        ("generation_length", "request_generation_tokens", "histogram", "", "", {}),
        ("ttft", "time_to_first_token_seconds", "histogram", "", "", {}),
        ("itl", "time_per_output_token_seconds", "histogram", "", "", {}),
        ("e2e", "e2e_request_latency_seconds", "histogram", "", "", {}),
        ("finished", "request_success_total", "counter", "", "", {}),
        ("errors", "request_failure_total", "counter", "", "", {}),
    ),
    "cadvisor": (
        ("cpu_seconds", "container_cpu_usage_seconds_total", "counter", "", "", {}),
        ("cpu_periods", "container_cpu_cfs_periods_total", "counter", "", "", {}),
        ("cpu_throttled", "container_cpu_cfs_throttled_periods_total", "counter", "", "", {}),
        ("memory_working_set", "container_memory_working_set_bytes", "gauge", "", "", {}),
        ("memory_rss", "container_memory_rss", "gauge", "", "", {}),
        ("memory_limit", "container_spec_memory_limit_bytes", "gauge", "", "", {}),
        ("oom_events", "container_oom_events_total", "counter", "", "", {}),
        ("cpu_waiting", "container_pressure_cpu_waiting_seconds_total", "counter", "", "", {}),
    ),
    "node-exporter": (("node_available", "node_memory_MemAvailable_bytes", "gauge", "", "", {}),),
    "kube-state-metrics": (
        ("replicas", "kube_deployment_status_replicas", "gauge", "", "", {}),
        ("replicas", "kube_statefulset_status_replicas", "gauge", "", "", {}),
        ("replicas_ready", "kube_deployment_status_replicas_ready", "gauge", "", "", {}),
        ("replicas_ready", "kube_statefulset_status_replicas_ready", "gauge", "", "", {}),
        ("hpa_current", "kube_horizontalpodautoscaler_status_current_replicas", "gauge", "", "", {}),
        ("hpa_desired", "kube_horizontalpodautoscaler_status_desired_replicas", "gauge", "", "", {}),
        ("hpa_minimum", "kube_horizontalpodautoscaler_spec_min_replicas", "gauge", "", "", {}),
        ("hpa_maximum", "kube_horizontalpodautoscaler_spec_max_replicas", "gauge", "", "", {}),
        ("hpa_target", "kube_horizontalpodautoscaler_spec_target_metric", "gauge", "", "", {}),
        ("hpa_value", "kube_horizontalpodautoscaler_status_target_metric", "gauge", "", "", {}),
        ("restarts", "kube_pod_container_status_restarts_total", "counter", "", "", {}),
        ("terminated_reason", "kube_pod_container_status_last_terminated_reason", "gauge", "", "", {}),
        ("waiting_reason", "kube_pod_container_status_waiting_reason", "gauge", "", "", {}),
        ("pod_phase", "kube_pod_status_phase", "gauge", "", "", {}),
        ("pod_unschedulable", "kube_pod_status_unschedulable", "gauge", "", "", {}),
        ("requests", "kube_pod_container_resource_requests", "gauge", "", "", {}),
    ),
    "dcgm": (
        ("gpu_utilization", "DCGM_FI_DEV_GPU_UTIL", "gauge", "", "", {"scale": 0.01}),
        ("gpu_active", "DCGM_FI_PROF_GR_ENGINE_ACTIVE", "gauge", "", "", {}),
        ("gpu_memory_used", "DCGM_FI_DEV_FB_USED", "gauge", "", "", {"scale": 1024.0**2}),
        ("gpu_memory_free", "DCGM_FI_DEV_FB_FREE", "gauge", "", "", {"scale": 1024.0**2}),
        ("gpu_xid", "DCGM_FI_DEV_XID_ERRORS", "gauge", "", "", {}),
        ("gpu_remap_failed", "DCGM_FI_DEV_ROW_REMAP_FAILURE", "gauge", "", "", {}),
        ("gpu_power", "DCGM_FI_DEV_POWER_USAGE", "gauge", "", "", {}),
        # what says how well a GPU is, by facts/dcgm.py
        *(
            ("gpu_health", name, "gauge", "", "", {})
            for name in (
                "DCGM_FI_DEV_GPU_TEMP",
                "DCGM_FI_DEV_SM_CLOCK",
                "DCGM_FI_DEV_MAX_SM_CLOCK",
                "DCGM_FI_DEV_POWER_MGMT_LIMIT",
                "DCGM_FI_DEV_CLOCKS_EVENT_REASONS",
                "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS",
                "DCGM_FI_DEV_VGPU_LICENSE_STATUS",
                "DCGM_FI_DEV_ROW_REMAP_PENDING",
                "DCGM_FI_DEV_PCIE_LINK_WIDTH",
                "DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH",
                "DCGM_FI_DEV_PCIE_LINK_GEN",
                "DCGM_FI_DEV_PCIE_MAX_LINK_GEN",
                "DCGM_FI_DEV_FB_RESERVED",
            )
        ),
        *(
            ("gpu_health", name, "counter", "", "", {})
            for name in (
                "DCGM_FI_DEV_THERMAL_VIOLATION",
                "DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN_NS",
                "DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN_NS",
                "DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS",
                "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
                "DCGM_FI_DEV_RETIRED_DBE",
                "DCGM_FI_DEV_PCIE_REPLAY_COUNTER",
                "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL",
                "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL",
                "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL",
            )
        ),
    ),
}

#: Sources of metrics that are no engine, and concern every pod.
PLATFORM = ("cadvisor", "node-exporter", "kube-state-metrics", "dcgm")

#: Engines whose metrics are known.
ENGINES = tuple(engine for engine in _ROWS if engine not in PLATFORM)


@cache
def metrics_of(engine: str) -> tuple[Metric, ...]:
    """All metrics of an engine (or of one of `PLATFORM`) in any release, the newest name of a role first."""
    own = tuple(
        Metric(engine=engine, role=role, name=name, kind=kind, since=since, until=until, **more)  # type: ignore[arg-type]
        for role, name, kind, since, until, more in _ROWS.get(engine, ())
    )
    return own + tuple(metric for other in _ALSO.get(engine, ()) for metric in metrics_of(other))


def names(engine: str, version: str | None = None) -> tuple[Metric, ...]:
    """The metrics that a release may export; without a version those of any release.

    An engine that serves through another one (KServe's server, a Triton or NIM with vLLM inside) may export that one's.
    Its version says nothing about the other's.
    """
    return tuple(m for m in metrics_of(engine) if m.may_have(version if m.engine == engine else None))


def metric(engine: str, role: Role, version: str | None) -> Metric | None:
    """The metric that says `role` in this release without being asked to.

    None where it has none, or where the version is not known and releases differ.
    """
    own = [m for m in metrics_of(engine) if m.role == role and (m.engine == engine or engine == "huggingfaceserver")]
    verdicts = [(m, m.has(version if m.engine == engine else None)) for m in own]
    sure = next((m for m, has in verdicts if has), None)
    return None if sure is None or any(has is None for _, has in verdicts) else sure
