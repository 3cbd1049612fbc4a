"""A service link that sets one of the engine's own variables."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Cluster, Engine, Finding, Pod, check, fixes, k8s, object_evidence, pod_evidence

#: Service names that make a variable which the engine reads, and which one.
_LINKS = {"vllm": "VLLM_PORT"}


@check("k8s-env-collision", since="0.1")
def k8s_env_collision(pod: Pod, engine: Engine, cluster: Cluster) -> Iterator[Finding]:
    """A Service's name sets one of the engine's own variables.

    For every Service of the namespace Kubernetes puts `NAME_PORT=tcp://IP:PORT` into each container ("service
    links"). A Service named `vllm` so sets `VLLM_PORT`, which vLLM reads as a number: `ValueError: invalid literal
    for int() with base 10: 'tcp://…'`, or from 0.9.2 on `VLLM_PORT … appears to be a URI`. Only pods that start after
    the Service see it, so the pod that ran yesterday fails after its next restart.

    ## Fix

    Set `enableServiceLinks: false` in the pod spec, or rename the Service:

        kubectl -n NAMESPACE patch deployment/NAME -p '{"spec": {"template": {"spec": {"enableServiceLinks": false}}}}'

    ## References

    - https://docs.vllm.ai/en/latest/configuration/env_vars/
    - https://kubernetes.io/docs/tutorials/services/connect-applications-service/#accessing-the-service
    """
    if engine.name != "vllm" or not pod.spec.enable_service_links:
        return
    for name, variable in _LINKS.items():
        item = cluster.item("Service", pod.namespace, name)
        service = item.typed() if item else None
        if (
            item is None
            or not isinstance(service, k8s.Service)
            or service.spec.cluster_ip == "None"
            or variable in engine.container.env
        ):
            continue
        if pod.exists and pod.ready:
            continue
        crashed = engine.container.crashed
        port = service.spec.ports[0].port if service.spec.ports else 0
        value = f"tcp://{service.spec.cluster_ip or 'IP'}:{port}"
        yield Finding(
            role="cause" if crashed else "risk",
            confidence="possible" if crashed else "likely",
            summary=f"Service {name} sets {variable}={value} in every container of {pod.namespace}; {engine.label} reads it as a number.",
            evidence=(
                object_evidence(item, "", f"name: {name}, port: {port}"),
                pod_evidence(pod, "enableServiceLinks", "true (the default)"),
            ),
            explains=("crash-loop", "not-ready", "engine-init-failed") if crashed else (),
            fix=fixes.set_spec(pod, "/enableServiceLinks", False, "Turn service links off for this pod"),
        )
