"""Kinds of objects: what people call them, where the API has them, and how they lead to each other."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.platforms.labels import KUEUE_QUEUE, OWNERS
from kubectl_llmdoctor.snapshot import Json
from kubectl_llmdoctor.tree import dig


class Kind(msgspec.Struct, frozen=True):
    """One kind of object. `versions` in the order of preference; the first one that the server has is used."""

    kind: str
    plural: str
    group: str = ""
    versions: tuple[str, ...] = ("v1",)
    namespaced: bool = True
    short: tuple[str, ...] = ()

    @property
    def resource(self) -> str:
        """`pods`, `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """`v1`, `apps/v1`: of the preferred version."""
        return f"{self.group}/{self.versions[0]}" if self.group else self.versions[0]

    @property
    def key(self) -> tuple[str, str]:
        """Group and kind: what tells one kind from another, whatever its version."""
        return self.group, self.kind

    def paths(self, namespace: str, name: str = "") -> Iterator[str]:
        """The paths of the list, or of one object, for each version; an empty namespace means all of them."""
        for version in self.versions:
            root = f"/apis/{self.group}/{version}" if self.group else f"/api/{version}"
            middle = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
            yield f"{root}{middle}/{self.plural}" + (f"/{name}" if name else "")

    def at(self, version: str) -> Kind:
        """The same kind in one version."""
        return self if self.versions == (version,) else msgspec.structs.replace(self, versions=(version,))


def _rows() -> Iterator[Kind]:
    yield Kind("Pod", "pods", short=("po",))
    yield Kind("Service", "services", short=("svc",))
    yield Kind("Event", "events", short=("ev",))
    yield Kind("ConfigMap", "configmaps", short=("cm",))
    yield Kind("Secret", "secrets")
    yield Kind("PersistentVolumeClaim", "persistentvolumeclaims", short=("pvc",))
    yield Kind("PersistentVolume", "persistentvolumes", namespaced=False, short=("pv",))
    yield Kind("Node", "nodes", namespaced=False, short=("no",))
    yield Kind("Namespace", "namespaces", namespaced=False, short=("ns",))
    yield Kind("ResourceQuota", "resourcequotas", short=("quota",))
    yield Kind("LimitRange", "limitranges", short=("limits",))
    yield Kind("ReplicationController", "replicationcontrollers", short=("rc",))
    yield Kind("Deployment", "deployments", "apps", short=("deploy",))
    yield Kind("ReplicaSet", "replicasets", "apps", short=("rs",))
    yield Kind("StatefulSet", "statefulsets", "apps", short=("sts",))
    yield Kind("DaemonSet", "daemonsets", "apps", short=("ds",))
    yield Kind("ControllerRevision", "controllerrevisions", "apps")
    yield Kind("Job", "jobs", "batch")
    yield Kind("CronJob", "cronjobs", "batch", short=("cj",))
    yield Kind("HorizontalPodAutoscaler", "horizontalpodautoscalers", "autoscaling", ("v2",), short=("hpa",))
    yield Kind("PodDisruptionBudget", "poddisruptionbudgets", "policy", short=("pdb",))
    yield Kind("NetworkPolicy", "networkpolicies", "networking.k8s.io", short=("netpol",))
    yield Kind("Ingress", "ingresses", "networking.k8s.io", short=("ing",))
    yield Kind("HTTPRoute", "httproutes", "gateway.networking.k8s.io")
    yield Kind("EndpointSlice", "endpointslices", "discovery.k8s.io")
    yield Kind("StorageClass", "storageclasses", "storage.k8s.io", namespaced=False, short=("sc",))
    yield Kind("CSINode", "csinodes", "storage.k8s.io", namespaced=False)
    yield Kind("CSIDriver", "csidrivers", "storage.k8s.io", namespaced=False)
    yield Kind("CSIStorageCapacity", "csistoragecapacities", "storage.k8s.io")
    yield Kind("VolumeAttachment", "volumeattachments", "storage.k8s.io", namespaced=False)
    yield Kind("PriorityClass", "priorityclasses", "scheduling.k8s.io", namespaced=False, short=("pc",))
    yield Kind("RuntimeClass", "runtimeclasses", "node.k8s.io", namespaced=False)
    dra = ("v1", "v1beta2", "v1beta1")
    yield Kind("ResourceClaim", "resourceclaims", "resource.k8s.io", dra)
    yield Kind("ResourceClaimTemplate", "resourceclaimtemplates", "resource.k8s.io", dra)
    yield Kind("ResourceSlice", "resourceslices", "resource.k8s.io", dra, namespaced=False)
    yield Kind("DeviceClass", "deviceclasses", "resource.k8s.io", dra, namespaced=False)
    # Custom resources.
    yield Kind("LeaderWorkerSet", "leaderworkersets", "leaderworkerset.x-k8s.io", short=("lws",))
    yield Kind("InferenceService", "inferenceservices", "serving.kserve.io", ("v1beta1",), short=("isvc",))
    yield Kind(
        "LLMInferenceService", "llminferenceservices", "serving.kserve.io", ("v1alpha2", "v1alpha1"), short=("llmisvc",)
    )
    yield Kind("RayCluster", "rayclusters", "ray.io", ("v1", "v1alpha1"))
    yield Kind("RayService", "rayservices", "ray.io", ("v1", "v1alpha1"))
    yield Kind("RayJob", "rayjobs", "ray.io", ("v1", "v1alpha1"))
    yield Kind("Service", "services", "serving.knative.dev", short=("ksvc", "kservice"))
    yield Kind("Configuration", "configurations", "serving.knative.dev", short=("config", "cfg"))
    yield Kind("Revision", "revisions", "serving.knative.dev", short=("rev",))
    yield Kind("DynamoGraphDeployment", "dynamographdeployments", "nvidia.com", ("v1beta1", "v1alpha1"), short=("dgd",))
    yield Kind(
        "DynamoComponentDeployment", "dynamocomponentdeployments", "nvidia.com", ("v1beta1", "v1alpha1"), short=("dcd",)
    )
    yield Kind("NIMService", "nimservices", "apps.nvidia.com", ("v1alpha1",))
    yield Kind("ServingRuntime", "servingruntimes", "serving.kserve.io", ("v1alpha1",))
    yield Kind("ClusterServingRuntime", "clusterservingruntimes", "serving.kserve.io", ("v1alpha1",), namespaced=False)
    yield Kind("LLMInferenceServiceConfig", "llminferenceserviceconfigs", "serving.kserve.io", ("v1alpha2", "v1alpha1"))
    yield Kind("StormService", "stormservices", "orchestration.aibrix.ai", ("v1alpha1",))
    yield Kind("RoleSet", "rolesets", "orchestration.aibrix.ai", ("v1alpha1",))
    yield Kind("PodSet", "podsets", "orchestration.aibrix.ai", ("v1alpha1",))
    yield Kind("RayClusterFleet", "rayclusterfleets", "orchestration.aibrix.ai", ("v1alpha1",))
    yield Kind("RayClusterReplicaSet", "rayclusterreplicasets", "orchestration.aibrix.ai", ("v1alpha1",))
    yield Kind("VLLMRuntime", "vllmruntimes", "production-stack.vllm.ai", ("v1alpha1",))
    yield Kind("ModelServing", "modelservings", "workload.serving.volcano.sh", ("v1alpha1",))
    yield Kind("ModelBooster", "modelboosters", "workload.serving.volcano.sh", ("v1alpha1",))
    yield Kind("RoleBasedGroup", "rolebasedgroups", "workloads.x-k8s.io", ("v1alpha2", "v1alpha1"), short=("rbg",))
    yield Kind("InferenceService", "inferenceservices", "inference.llmkube.dev", ("v1alpha1",))
    yield Kind("Model", "models", "kubeai.org")
    yield Kind("NIMCache", "nimcaches", "apps.nvidia.com", ("v1alpha1",))
    yield Kind("Rollout", "rollouts", "argoproj.io", ("v1alpha1",), short=("ro",))
    yield Kind("ScaledObject", "scaledobjects", "keda.sh", ("v1alpha1",), short=("so",))
    yield Kind("HTTPScaledObject", "httpscaledobjects", "http.keda.sh", ("v1alpha1",), short=("httpso",))
    yield Kind("ServiceMonitor", "servicemonitors", "monitoring.coreos.com", short=("smon",))
    yield Kind("PodMonitor", "podmonitors", "monitoring.coreos.com", short=("pmon",))
    yield Kind("Prometheus", "prometheuses", "monitoring.coreos.com")
    yield Kind("ThanosRuler", "thanosrulers", "monitoring.coreos.com")
    yield Kind("VMSingle", "vmsingles", "operator.victoriametrics.com", ("v1beta1",))
    yield Kind("VMCluster", "vmclusters", "operator.victoriametrics.com", ("v1beta1",))
    yield Kind("VirtualService", "virtualservices", "networking.istio.io", ("v1", "v1beta1", "v1alpha3"), short=("vs",))
    yield Kind(
        "DestinationRule", "destinationrules", "networking.istio.io", ("v1", "v1beta1", "v1alpha3"), short=("dr",)
    )
    yield Kind("PeerAuthentication", "peerauthentications", "security.istio.io", ("v1", "v1beta1"), short=("pa",))
    yield Kind("AuthorizationPolicy", "authorizationpolicies", "security.istio.io", ("v1", "v1beta1"), short=("ap",))
    yield Kind("BackendTrafficPolicy", "backendtrafficpolicies", "gateway.envoyproxy.io", ("v1alpha1",), short=("btp",))
    yield Kind("EnvoyExtensionPolicy", "envoyextensionpolicies", "gateway.envoyproxy.io", ("v1alpha1",), short=("eep",))
    yield Kind("GCPBackendPolicy", "gcpbackendpolicies", "networking.gke.io")
    yield Kind(
        "BackendTLSPolicy", "backendtlspolicies", "gateway.networking.k8s.io", ("v1", "v1alpha3"), short=("btlspolicy",)
    )
    yield Kind("HTTPProxy", "httpproxies", "projectcontour.io")
    yield Kind("IngressRoute", "ingressroutes", "traefik.io", ("v1alpha1",))
    yield Kind("AIGatewayRoute", "aigatewayroutes", "aigateway.envoyproxy.io", ("v1beta1", "v1alpha1"))
    yield Kind("AIServiceBackend", "aiservicebackends", "aigateway.envoyproxy.io", ("v1beta1", "v1alpha1"))
    yield Kind("Backend", "backends", "gateway.envoyproxy.io", ("v1alpha1",))
    yield Kind("Route", "routes", "route.openshift.io")
    yield Kind("InferencePool", "inferencepools", "inference.networking.k8s.io")
    yield Kind("InferencePool", "inferencepools", "inference.networking.x-k8s.io", ("v1alpha2",))
    yield Kind("CiliumNetworkPolicy", "ciliumnetworkpolicies", "cilium.io", ("v2",), short=("cnp",))
    yield Kind(
        "CiliumClusterwideNetworkPolicy",
        "ciliumclusterwidenetworkpolicies",
        "cilium.io",
        ("v2",),
        namespaced=False,
        short=("ccnp",),
    )
    yield Kind("PodCliqueSet", "podcliquesets", "grove.io", ("v1alpha1",), short=("pcs",))
    yield Kind("PodCliqueScalingGroup", "podcliquescalinggroups", "grove.io", ("v1alpha1",), short=("pcsg",))
    yield Kind("PodClique", "podcliques", "grove.io", ("v1alpha1",), short=("pclq",))
    yield Kind("JobSet", "jobsets", "jobset.x-k8s.io", ("v1alpha2",))
    yield Kind("Workload", "workloads", "kueue.x-k8s.io", ("v1beta2", "v1beta1"), short=("wl",))
    yield Kind("LocalQueue", "localqueues", "kueue.x-k8s.io", ("v1beta2", "v1beta1"), short=("queue", "lq"))
    yield Kind("ClusterPolicy", "clusterpolicies", "nvidia.com", namespaced=False)
    yield Kind("NodeClaim", "nodeclaims", "karpenter.sh", ("v1", "v1beta1"), namespaced=False)
    yield Kind("NodePool", "nodepools", "karpenter.sh", ("v1", "v1beta1"), namespaced=False)
    yield Kind("Machine", "machines", "machine.openshift.io", ("v1beta1",))
    yield Kind("Machine", "machines", "cluster.k8s.io", ("v1alpha1",))
    yield Kind("PodGroup", "podgroups", "scheduling.run.ai", ("v2alpha2",))
    yield Kind("PodGroup", "podgroups", "scheduling.volcano.sh", ("v1beta1",), short=("pg",))


KINDS = tuple(_rows())
_BY_TYPE = {kind.key: kind for kind in KINDS}


def core(kind: str, group: str = "") -> Kind:
    """A kind of the table."""
    return _BY_TYPE[group, kind]


POD = core("Pod")


def by_type(api_version: str, kind: str) -> Kind | None:
    """The kind that an ownerReference names, in the version that it names; None when the table does not have it."""
    group, _, version = api_version.rpartition("/")
    found = _BY_TYPE.get((group, kind))
    return found.at(version) if found and version else found


def by_name(text: str) -> Kind | None:
    """What kubectl understands: kind, plural or short name, optionally `.group` or `.version.group`."""
    name, _, rest = text.lower().partition(".")
    for kind in KINDS:
        if name not in (kind.kind.lower(), kind.plural, *kind.short):
            continue
        if not rest or rest == kind.group:
            return kind
        version, _, group = rest.partition(".")
        if group == kind.group and group:
            return kind.at(version)
    return None


def kind_named(text: str) -> str:
    """The API's name of what the user calls `text`: `deploy` -> `Deployment`; an unknown one as it stands."""
    found = by_name(text)
    return found.kind if found else text.partition(".")[0]


def of(obj: Json) -> Kind | None:
    """The kind of an object that was read."""
    return by_type(str(obj.get("apiVersion") or ""), str(obj.get("kind") or ""))


class LabelOwner(msgspec.Struct, frozen=True):
    """A label or annotation of a pod whose value names an object that has a say about it."""

    key: str
    owner: Kind
    #: further labels that must have these values
    only: tuple[tuple[str, str], ...] = ()


LABEL_OWNERS = (
    *(LabelOwner(row.key, core(row.kind, row.group), row.only) for row in OWNERS),
    LabelOwner(KUEUE_QUEUE, core("LocalQueue", "kueue.x-k8s.io")),
    LabelOwner("kueue.x-k8s.io/pod-group-name", core("Workload", "kueue.x-k8s.io")),
    LabelOwner("pod-group-name", core("PodGroup", "scheduling.run.ai")),
    LabelOwner("scheduling.k8s.io/group-name", core("PodGroup", "scheduling.volcano.sh")),
)

#: Selectors of a workload's pods where its spec has none; `{}` stands for its name.
_POD_LABELS = {
    ("serving.kserve.io", "InferenceService"): "serving.kserve.io/inferenceservice={}",
    (
        "serving.kserve.io",
        "LLMInferenceService",
    ): "app.kubernetes.io/part-of=llminferenceservice,app.kubernetes.io/name={}",
    ("leaderworkerset.x-k8s.io", "LeaderWorkerSet"): "leaderworkerset.sigs.k8s.io/name={}",
    ("ray.io", "RayCluster"): "ray.io/cluster={}",
    ("ray.io", "RayService"): "ray.io/originated-from-crd=RayService,ray.io/originated-from-cr-name={}",
    ("ray.io", "RayJob"): "ray.io/originated-from-crd=RayJob,ray.io/originated-from-cr-name={}",
    ("serving.knative.dev", "Service"): "serving.knative.dev/service={}",
    ("serving.knative.dev", "Configuration"): "serving.knative.dev/configuration={}",
    ("serving.knative.dev", "Revision"): "serving.knative.dev/revision={}",
    ("nvidia.com", "DynamoGraphDeployment"): "nvidia.com/dynamo-graph-deployment-name={}",
    ("apps.nvidia.com", "NIMService"): "app.kubernetes.io/part-of=nim-service,app.kubernetes.io/name={}",
    ("jobset.x-k8s.io", "JobSet"): "jobset.sigs.k8s.io/jobset-name={}",
    ("orchestration.aibrix.ai", "StormService"): "storm-service-name={}",
    ("workload.serving.volcano.sh", "ModelServing"): "modelserving.volcano.sh/name={}",
    ("workloads.x-k8s.io", "RoleBasedGroup"): "rbg.workloads.x-k8s.io/group-name={}",
    ("grove.io", "PodCliqueSet"): "app.kubernetes.io/managed-by=grove-operator,app.kubernetes.io/part-of={}",
    ("grove.io", "PodClique"): "grove.io/podclique={}",
    ("inference.llmkube.dev", "InferenceService"): "inference.llmkube.dev/service={}",
    ("kubeai.org", "Model"): "app.kubernetes.io/managed-by=kubeai,model={}",
}

#: Workloads whose pods are replicas of each other; a pod's siblings are asked for through these only.
REPLICATORS = frozenset(
    [
        ("apps", "Deployment"),
        ("apps", "StatefulSet"),
        ("apps", "ReplicaSet"),
        ("apps", "DaemonSet"),
        ("batch", "Job"),
        ("", "ReplicationController"),
        ("argoproj.io", "Rollout"),
        ("leaderworkerset.x-k8s.io", "LeaderWorkerSet"),
        ("ray.io", "RayCluster"),
        ("jobset.x-k8s.io", "JobSet"),
        ("grove.io", "PodClique"),
    ]
)

#: Kinds that a workload creates between itself and its pods, found by the selector of its pods.
CHILDREN = {
    ("serving.kserve.io", "InferenceService"): (core("Deployment", "apps"), core("Revision", "serving.knative.dev")),
    ("serving.kserve.io", "LLMInferenceService"): (
        core("Deployment", "apps"),
        core("LeaderWorkerSet", "leaderworkerset.x-k8s.io"),
    ),
    ("leaderworkerset.x-k8s.io", "LeaderWorkerSet"): (core("StatefulSet", "apps"),),
    ("ray.io", "RayService"): (core("RayCluster", "ray.io"),),
    ("ray.io", "RayJob"): (core("RayCluster", "ray.io"), core("Job", "batch")),
    ("serving.knative.dev", "Service"): (core("Revision", "serving.knative.dev"),),
    ("serving.knative.dev", "Revision"): (core("Deployment", "apps"),),
    ("nvidia.com", "DynamoGraphDeployment"): (core("Deployment", "apps"),),
    ("apps.nvidia.com", "NIMService"): (core("Deployment", "apps"), core("StatefulSet", "apps")),
    ("jobset.x-k8s.io", "JobSet"): (core("Job", "batch"),),
    ("grove.io", "PodCliqueSet"): (core("PodClique", "grove.io"),),
    ("orchestration.aibrix.ai", "StormService"): (core("RoleSet", "orchestration.aibrix.ai"),),
}


def leads(kind: Kind) -> bool:
    """Whether its objects have pods: what `diagnose TYPE/NAME` is asked about."""
    return kind.key in REPLICATORS or kind.key in _POD_LABELS


def pod_selector(obj: Json, kind: Kind) -> str:
    """The label selector of a workload's pods; empty when it is not known."""
    name = str(obj.get("metadata", {}).get("name") or "")
    if kind.key in _POD_LABELS:
        return _POD_LABELS[kind.key].format(name)
    selector = dig(obj, "spec.selector")
    if not isinstance(selector, dict):
        return ""
    if "matchLabels" in selector or "matchExpressions" in selector:
        return ",".join(_terms(selector))
    # Service and ReplicationController have plain labels.
    return ",".join(f"{key}={value}" for key, value in sorted(selector.items()) if isinstance(value, str))


def _terms(selector: Json) -> Iterator[str]:
    for key, value in sorted((selector.get("matchLabels") or {}).items()):
        yield f"{key}={value}"
    for term in selector.get("matchExpressions") or ():
        key, values = term.get("key", ""), ",".join(term.get("values") or ())
        match term.get("operator"):
            case "In":
                yield f"{key} in ({values})"
            case "NotIn":
                yield f"{key} notin ({values})"
            case "Exists":
                yield key
            case "DoesNotExist":
                yield f"!{key}"
