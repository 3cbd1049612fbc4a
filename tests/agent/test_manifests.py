"""The objects that run the agent: what they ask of a cluster, and that all ways to have them give the same."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from llmdoctor_agent import __main__ as agent

from kubectl_llmdoctor import agent_manifests
from kubectl_llmdoctor.agent_manifests import OPTIONAL, Choice, manifests
from kubectl_llmdoctor.cli import cli
from kubectl_llmdoctor.errors import UsageError
from kubectl_llmdoctor.gather import agents

DEPLOY = Path(__file__).parents[2] / "agent" / "deploy"
KUBECTL = Path(sys.executable).with_name("kubectl")

Json = dict[str, Any]

CHOICES = [
    Choice(profile=profile, extra=extra)
    for profile in ("minimal", "default")
    for count in range(len(OPTIONAL) + 1)
    for extra in itertools.combinations(OPTIONAL, count)
]


def called(choice: Choice) -> str:
    return "+".join((choice.profile, *choice.extra))


def by_kind(objects: list[Json]) -> dict[str, Json]:
    return {item["kind"]: item for item in objects}


def pod_of(choice: Choice) -> Json:
    spec: Json = by_kind(manifests(choice))["DaemonSet"]["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("choice", CHOICES, ids=called)
def test_what_holds_for_every_profile(choice: Choice) -> None:
    pod = pod_of(choice)
    (container,) = pod["containers"]
    security = container["securityContext"]

    assert not {"hostPID", "hostNetwork", "hostIPC", "serviceAccountName", "priorityClassName"} & set(pod)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["runtimeClassName"] == "nvidia"
    assert security["readOnlyRootFilesystem"]
    assert not security["allowPrivilegeEscalation"]
    assert "privileged" not in security
    assert security["capabilities"]["drop"] == ["ALL"]
    assert set(security["capabilities"].get("add", ())) <= {"SYSLOG"}
    assert all(mount["readOnly"] for mount in container.get("volumeMounts", ()))
    # no GPU, no CPU limit
    assert container["resources"] == {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}}
    environment = {item["name"]: item.get("value") for item in container["env"]}
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert environment["NVIDIA_DRIVER_CAPABILITIES"] == "utility"


@pytest.mark.parametrize("choice", CHOICES, ids=called)
def test_the_program_understands_its_arguments_and_finds_what_is_mounted(choice: Choice) -> None:
    container = pod_of(choice)["containers"][0]
    given = agent._parser().parse_args(container["args"])

    sources = agent._sources(given)

    assert sources.profile == ("nvml", *choice.parts)
    mounts = {mount["mountPath"] for mount in container.get("volumeMounts", ())}
    if "pod-resources" in choice.parts:
        assert str(given.pod_resources.parent) in mounts
    if "processes" in choice.parts:
        assert str(given.proc) in mounts
    if "cgroup" in choice.parts:
        assert str(given.cgroup) in mounts
    assert container["ports"][0]["containerPort"] == given.port


def test_only_what_is_needed_is_asked_for() -> None:
    minimal, default = pod_of(Choice(profile="minimal")), pod_of(Choice())

    assert minimal["securityContext"]["runAsNonRoot"]
    assert "volumes" not in minimal
    assert (
        by_kind(manifests(Choice(profile="minimal")))["Namespace"]["metadata"]["labels"][
            "pod-security.kubernetes.io/enforce"
        ]
        == "restricted"
    )
    assert default["securityContext"]["runAsUser"] == 0
    assert [volume["hostPath"]["path"] for volume in default["volumes"]] == ["/var/lib/kubelet/pod-resources"]
    assert "add" not in default["containers"][0]["securityContext"]["capabilities"]
    # a container's cgroup is found by its processes
    assert Choice(extra=("cgroup",)).parts == ("pod-resources", "processes", "cgroup")


def test_every_gpu_node_is_chosen_unless_it_is_paused() -> None:
    """By the rules of node affinity: one of the terms, all expressions of it."""

    def chosen(labels: dict[str, str], choice: Choice | None = None) -> bool:
        terms = pod_of(choice or Choice())["affinity"]["nodeAffinity"]
        (required,) = terms.values()
        return any(all(fits(labels, row) for row in term["matchExpressions"]) for term in required["nodeSelectorTerms"])

    def fits(labels: dict[str, str], row: Json) -> bool:
        value = labels.get(row["key"])
        match row["operator"]:
            case "In":
                return value in row["values"]
            case "NotIn":
                return value not in row["values"]
            case "Exists":
                return value is not None
        raise AssertionError(row)

    gke = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert chosen(gke)
    assert chosen({"nvidia.com/gpu.present": "true"})
    assert chosen({"kubernetes.azure.com/accelerator": "nvidia"})
    assert chosen({"karpenter.k8s.aws/instance-gpu-manufacturer": "nvidia"})
    assert chosen({"llmdoctor-agent": "true"})
    assert not chosen({})
    assert not chosen({"kubernetes.azure.com/accelerator": "amd"})
    assert chosen({}, Choice(all_nodes=True))
    paused = {"nvidia.com/gpu.deploy.device-plugin": "paused-for-driver-upgrade"}
    assert not chosen(gke | paused)
    assert not chosen(paused, Choice(all_nodes=True))


def test_who_may_reach_it() -> None:
    objects = by_kind(manifests(Choice(allow_from=("10.1.0.0/16", "fd00::/64"), allow_namespaces=("monitoring",))))

    spec = objects["NetworkPolicy"]["spec"]
    (rule,) = spec["ingress"]
    assert (spec["policyTypes"], spec["egress"]) == (["Ingress", "Egress"], [])
    assert rule["ports"] == [{"port": 9479, "protocol": "TCP"}]
    assert [peer["ipBlock"]["cidr"] for peer in rule["from"] if "ipBlock" in peer] == ["10.1.0.0/16", "fd00::/64"]
    konnectivity = [peer["podSelector"]["matchLabels"] for peer in rule["from"] if "podSelector" in peer]
    assert konnectivity == [{"k8s-app": "konnectivity-agent"}, {"app": "konnectivity-agent"}]
    assert objects["Role"]["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["pods/proxy"], "verbs": ["get"]},
    ]
    assert "Binding" not in json.dumps(list(objects))


@pytest.mark.parametrize(
    "wrong",
    [Choice(namespace="kube-system"), Choice(namespace="default"), Choice(allow_from=("10.0.0.1/8",))],
    ids=["kube-system", "default", "no network"],
)
def test_what_cannot_be_is_refused(wrong: Choice) -> None:
    with pytest.raises(UsageError):
        manifests(wrong)


def test_both_sides_mean_the_same_agent() -> None:
    assert agents.NAMESPACE == agent_manifests.NAMESPACE
    assert agents.READER == agent_manifests.READER
    assert f"app.kubernetes.io/name={agent_manifests.NAME}" == agents.SELECTOR
    assert agents._PORT == agent_manifests.PORT == agent.PORT


# -- every way to have them -------------------------------------------------------------------------------------------


def sorted_(objects: list[Json]) -> list[Json]:
    return sorted(objects, key=lambda item: str(item["kind"]))


@pytest.mark.parametrize("choice", CHOICES, ids=called)
def test_the_command_prints_them(choice: Choice) -> None:
    words = [
        "agent",
        "manifests",
        "--profile",
        choice.profile,
        *(["--with", ",".join(choice.extra)] if choice.extra else []),
    ]

    result = CliRunner().invoke(cli, words)

    assert result.exit_code == 0
    assert list(yaml.safe_load_all(result.stdout)) == manifests(choice)


@pytest.mark.parametrize(
    ("folder", "choice"),
    [
        ("base", Choice()),
        ("minimal", Choice(profile="minimal")),
        *((f"overlays/{part}", Choice(extra=(part,))) for part in OPTIONAL),
    ],
)
def test_kustomize_builds_them(folder: str, choice: Choice) -> None:
    built = subprocess.run(
        [KUBECTL, "kustomize", DEPLOY / "kustomize" / folder], capture_output=True, text=True, check=True
    ).stdout

    assert sorted_(list(yaml.safe_load_all(built))) == sorted_(manifests(choice))


def test_components_can_be_combined(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY / "kustomize", tmp_path / "agent")
    components = [f"agent/components/{part}" for part in ("processes", "cgroup", "kernel-log")]
    (tmp_path / "kustomization.yaml").write_text(json.dumps({"resources": ["agent/base"], "components": components}))

    built = subprocess.run([KUBECTL, "kustomize", tmp_path], capture_output=True, text=True, check=True).stdout

    assert sorted_(list(yaml.safe_load_all(built))) == sorted_(manifests(Choice(extra=OPTIONAL)))


def without_nothing(tree: Any) -> Any:
    """An object without keys that have no value, which an API server does not keep."""
    if isinstance(tree, dict):
        return {key: without_nothing(value) for key, value in tree.items() if value is not None}
    return [without_nothing(value) for value in tree] if isinstance(tree, list) else tree


@pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not installed")
@pytest.mark.parametrize("choice", CHOICES, ids=called)
def test_helm_renders_them(choice: Choice) -> None:
    """All but the namespace, which Helm makes or finds."""

    def rendered(**values: Any) -> list[Json]:
        sets = [word for key, value in values.items() for word in ("--set-json", f"{key}={json.dumps(value)}")]
        line = ["helm", "template", "agent", str(DEPLOY / "helm"), "--namespace", "llmdoctor", *sets]
        text = subprocess.run(line, capture_output=True, text=True, check=True).stdout
        return sorted_([without_nothing(item) for item in yaml.safe_load_all(text)])

    plain = rendered(profile=choice.profile, **{"with": list(choice.extra)})
    changed = rendered(
        profile=choice.profile,
        **{"with": list(choice.extra)},
        allowFrom=["10.0.0.0/8"],
        allowNamespaces=["monitoring"],
        runtimeClassName="",
        allNodes=True,
        image="registry/agent@sha256:0",
    )

    other = Choice(
        profile=choice.profile,
        extra=choice.extra,
        allow_from=("10.0.0.0/8",),
        allow_namespaces=("monitoring",),
        runtime_class="",
        all_nodes=True,
        image="registry/agent@sha256:0",
    )
    assert plain == sorted_(manifests(choice)[1:])
    assert changed == sorted_(manifests(other)[1:])


def test_every_part_of_the_program_can_be_deployed() -> None:
    assert set(agent_manifests.PARTS) == set(agent.PARTS)
