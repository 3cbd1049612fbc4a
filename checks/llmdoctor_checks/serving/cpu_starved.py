"""Too little CPU to feed the GPUs."""

import math
import re
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    Container,
    Device,
    Engine,
    Evidence,
    Finding,
    Fix,
    Hardware,
    Line,
    Log,
    Logs,
    Metrics,
    Pod,
    Span,
    check,
    dig,
    expression,
    fixes,
    log_evidence,
    milli,
    pod_evidence,
    say_cores,
    say_seconds,
)
from llmdoctor_checks._consequences import CRASHED
from llmdoctor_checks._load import last_load, recent_load, works
from llmdoctor_checks._offloaded import BUFFER, on_the_cpu
from llmdoctor_checks.serving._front_end import before_the_engine
from llmdoctor_checks.serving._processes import busy
from llmdoctor_checks.serving._saturation import SUSTAINED_SECONDS, load_of

#: A container that waited for its CPU quota in more than this share of periods is starved.
_THROTTLED = 0.25
#: In more than this share of periods it stands still longer than it runs on.
_MOSTLY = 0.5
#: In more than this share nearly all of its time is waiting.
_NEARLY_ALWAYS = 0.8

#: A share at the end of the window so many times that of the whole is how it is now.
_OF_LATE = 1.25

#: A container some task of which waited for a CPU in more than this share of the last five minutes, percent, while it
#: has no limit that makes it wait: the node's cores are taken by others.
_PRESSED = 50

#: A container that hardly waits for a CPU now, in percent of the last five minutes, and started within the hour, was
#: throttled while it loaded: what it counts since its start says nothing of how it serves.
_CALM, _YOUNG_SECONDS = 10, 3600

#: Proxies of meshes and of Knative, KServe and llm-d, by the names that injectors and charts give them.
_PROXIES = frozenset({"istio-proxy", "linkerd-proxy", "queue-proxy", "envoy", "routing-proxy"})

#: vLLM's executor of several processes (`set_multiprocessing_worker_envs`) leaves each one thread. On a CPU it computes with
#: that, up to 0.8: its workers then bind threads of their own only where VLLM_CPU_OMP_THREADS_BIND asks for it, later always.
_REDUCED, _BOUND = "Reducing Torch parallelism from", "OMP threads binding of Process"
_ON_CPU = "Automatically detected platform cpu"

#: vLLM's engine loop up to 0.8 (`async_llm_engine.py`): a step took longer than VLLM_ENGINE_ITERATION_TIMEOUT_S, 60 s by default, and the
#: engine is dead. What it prints on a CPU, besides.
_LATE_STEP, _STEP_SECONDS, _STEP_VARIABLE = "Engine iteration timed out.", 60, "VLLM_ENGINE_ITERATION_TIMEOUT_S"
_BY_CPU = (_ON_CPU, "device_config=cpu", "cpu_executor.py:")

#: A model that is computed on so few cores, of which each request gets less than one token a second, waits for them.
_FEW_CORES, _CRAWLS, _STATEMENTS = 8000, 1.0, 5

#: llama-server's and Ollama's: with how many threads a model is computed, and how fast an answer came, of the last ones.
_THREADS, _COUNTED = ("n_threads = ", " --threads "), expression(r"\bn_threads = (\d{1,5})\b| --threads (\d{1,5})\b")
_ANSWERED = "eval time ="
_PACE = expression(
    r"(?<!prompt )\beval time = {1,12}\d{1,12}(?:\.\d{1,6})? ms / {1,12}(\d{1,9}) (?:tokens|runs) "
    r".{0,80}? (\d{1,9}(?:\.\d{1,6})?) tokens per second"
)
#: What is printed of a model that lies on a GPU.
_ON_GPU = (
    "library=cuda", "library=rocm", "library=CUDA", "library=ROCm", "CUDA devices", "ROCm devices", "Vulkan devices",
    "SYCL devices",
)  # fmt: skip
#: With so many times the threads that it has cores most of them wait at each step; slower than somebody reads is slow then, and
#: half of that where it is a single answer.
_CROWDED, _READS, _ALONE = 2, 5.0, 2.5
#: So many answers, each of so many tokens or more; or a single one of many tokens, each of which reads all weights.
_ANSWERS, _TOKENS, _LATEST, _LONG_ANSWER = 2, 10, 10, 32

#: Ollama's access log tells how long it took for an answer; so long each is slow, where it does not print how fast it generates.
_POSTED = 'POST     "/'
_TOOK = expression(
    r"\| 200 \| {1,16}(?:(\d{1,3})h)?(?:(\d{1,2})m)?(?:(\d{1,2})(?:\.\d{1,9})?s)?(?:[\d.]{1,12}(?:ms|µs|ns))? \|"
    r".{0,80}\"/(?:api/(?:chat|generate)|v1/(?:chat/)?completions)\""
)
_SLOW_SECONDS, _SLOW_ANSWERS = 60, 3

#: A container that takes so many times the cores that it requests, and so many millicores more, lives on what others leave.
_TIMES, _BEYOND = 2, 2000

#: Fewer periods (of 0.1 s) say nothing.
_FEWEST_PERIODS = 100

#: A GPU that is less busy than this while requests wait, or run in this share of the samples, waits for something itself.
_IDLE, _ALL_THE_TIME = 0.5, 0.95


@check(
    "cpu-starved",
    since="0.1",
    severity="warning",
    literals=(_REDUCED, _BOUND, _LATE_STEP, *_BY_CPU, *_THREADS, _ANSWERED, _POSTED, *_ON_GPU, BUFFER),
)
def cpu_starved(
    pod: Pod, engine: Engine, metrics: Metrics | None, hardware: Hardware | None, logs: Logs | None
) -> Iterator[Finding]:
    """Too little CPU for the API server, the tokenizer and the GPU workers.

    HTTP, tokenizing, scheduling and each GPU worker's own loop run on the CPU. vLLM with tensor parallelism keeps one
    busy process per GPU besides the engine core and the API server, SGLang one per GPU besides the process that
    tokenizes. With fewer cores than busy processes they wait for each other, and the GPU waits for them: latency grows
    while GPU utilisation falls.

    The kernel counts the periods in which a container had used up its limit (`container_cpu_cfs_throttled_periods_total`).
    Where that happens often, requests wait, and the GPUs are less than half busy, it is the CPU that they wait for; so it is where
    that happens in most periods, and requests run all the time.

    Where the node agent runs, it says whether that happens: in how many of the periods of 100 ms the container used up its
    quota, and, by the kernel's pressure figures, in what share of the time one of its tasks waited for a core. The kubelet
    exports the latter, too, since Kubernetes 1.34 (`container_pressure_cpu_waiting_seconds_total`).

    A container without a limit may take more cores than it requests while nobody else wants them. When somebody does, the
    kernel shares them out by the requests, so that it falls back to what it requested: a risk where its tasks wait for cores
    already, a note where they do not.

    The process that takes requests in may be what all wait for, however many cores there are: it fills in templates, tokenizes, and
    makes tensors of images, one request after the other. The scheduler has no queue then and the GPU little to do, while first tokens
    come late: by Little's law more requests are on the way to their first token than wait and run together.

    So it is with a proxy in the pod: each request and each token goes through it, and the small limit that its injector gives
    it is soon used up.

    An engine that computes on the CPU needs many cores, and threads on them. llama.cpp and Ollama start a thread for each core of
    the node, whatever the limit allows: they wait for each other at every step, and while one has used up the quota all stand
    still. Where the kernel says that this is so in most periods, it is the cause. vLLM's builds for CPUs up to 0.8 leave themselves
    one thread where nothing sets `OMP_NUM_THREADS` or `VLLM_CPU_OMP_THREADS_BIND`, and say so. Their engine loop waits 60 s for a step
    (`VLLM_ENGINE_ITERATION_TIMEOUT_S`) and is dead after a longer one. Where its limit is eight cores or fewer
    and each request gets less than one token a second all the time, too few cores are the cause. So they are where llama.cpp or Ollama
    on a CPU generates less than that, with more threads than its limit has cores, or with few cores; and less than five with twice
    as many threads, or half of that where there is one answer of many tokens alone. Where Ollama does not print how fast it
    generates, as many threads and answers that took a minute or more each make it likely enough to try.

    ## Fix

    Give at least one core per GPU worker and two for the API server and the engine core. Raise or remove the CPU
    *limit* first: a limit throttles even when the node is idle. Where a single process takes requests in, give it others
    beside it (`--api-server-count`, SGLang's `--tokenizer-worker-num`).

    ## References

    - https://docs.vllm.ai/en/latest/configuration/optimization/
    - https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#how-pods-with-resource-limits-are-run
    """
    measured = _by_quota(pod, engine, metrics, hardware, logs) or _by_waiting(pod, engine, metrics, hardware, logs)
    if measured is not None:
        yield measured
        return
    if logs is not None and (late := _late_step(pod, engine, logs)) is not None:
        yield late
        return
    if (
        logs is not None
        and (pod.ready or pod.log_only)
        and (found := _one_thread(pod, engine, logs) or _crawls(engine, logs) or _threads(engine, logs))
    ):
        yield found
        return
    if (beside := _proxy_beside(pod, engine, metrics, hardware, logs)) is not None:
        yield beside
        return
    if metrics is not None and (late := before_the_engine(pod, engine, metrics)) is not None:
        yield late
        return
    yield from _above_request(pod, engine.container, metrics)
    yield from _too_few_cores(pod, engine)


#: From this release on vLLM's worker serves with one thread of PyTorch, whatever the cores of the node (pull request 49919).
_CLAMPS = "0.28.0"
#: Engines that compute by PyTorch on a CPU, and the variable that its threads are told by.
_COUNTS_CORES, _OMP = ("triton", "huggingfaceserver"), "OMP_NUM_THREADS"


def _log_on_cpu(engine: Engine, logs: Logs) -> Log | None:
    """The log of a vLLM that computes on the CPU."""
    log = logs.current(engine.container.name)
    computes = engine.name == "vllm" and log is not None and not engine.container.accelerators and log.holds(_ON_CPU)
    return log if computes else None


def _one_thread(pod: Pod, engine: Engine, logs: Logs) -> Finding | None:
    """vLLM computes on the CPU, with one thread."""
    container, log = engine.container, _log_on_cpu(engine, logs)
    reduced = next(log.find(_REDUCED), None) if log is not None else None
    said = re.search(r"parallelism from (\d{1,6}) threads to 1 ", reduced.text) if reduced else None
    if log is None or reduced is None or said is None or log.holds(_BOUND):
        return None
    cores = container.limit("cpu") or container.request("cpu")
    threads = str(max(math.floor(cores / 1000), 1) if cores else int(said[1]))
    return Finding(
        summary=f"{engine.at} computes on the CPU with one thread of {said[1]}, as nothing sets OMP_NUM_THREADS.",
        evidence=(log_evidence(reduced),),
        fix=fixes.advice(f"Set OMP_NUM_THREADS to the cores that it has ({threads} at most)")
        if pod.log_only
        else fixes.set_env(container, "OMP_NUM_THREADS", threads, f"Use {threads} threads"),
        order=reduced.order,
    )


def _late_step(pod: Pod, engine: Engine, logs: Logs) -> Finding | None:
    """vLLM computes on the CPU, and one step took longer than its engine loop waits for one."""
    container = engine.container
    line = next((x for x in logs.find(_LATE_STEP) if x.log.container == container.name), None)
    if engine.name != "vllm" or line is None or container.accelerators or not any(map(line.log.holds, _BY_CPU)):
        return None
    if line.log.previous and not pod.failing:
        return None
    told = container.env.get(_STEP_VARIABLE)
    value = (told.value or "") if told is not None else ""
    waits = int(value) if value.isdecimal() else _STEP_SECONDS
    return Finding(
        summary=f"{engine.at} computes on the CPU, and a step took longer than the {waits} s that its engine loop waits for one: the "
        "engine is dead since.",
        evidence=(log_evidence(line), *_spec(container)),
        fixes=(
            fixes.set_env(
                container, _STEP_VARIABLE, str(waits * 10), f"Let a step take {waits * 10} s ({_STEP_VARIABLE})"
            ),
            *_fixes(container, engine, container.limit("cpu")),
        ),
        explains=("engine-dead", "http-5xx", *CRASHED),
        order=line.order,
    )


def _crawls(engine: Engine, logs: Logs) -> Finding | None:
    """vLLM computes on the CPU, within a limit of few cores, and each request gets less than a token a second, all the time."""
    container, limit = engine.container, engine.container.limit("cpu")
    said = last_load(container, logs) if _log_on_cpu(engine, logs) is not None else []
    if limit is None or limit > _FEW_CORES or len(said) < _STATEMENTS:
        return None
    if not all(one.running and (one.tokens or 0) < _CRAWLS * one.running for one in said):
        return None
    pace = max((one.tokens or 0) / one.running for one in said)
    if not pace:
        return None  # it stands still
    return Finding(
        summary=f"{engine.at} computes on the CPU, where its limit is {say_cores(limit)} cores: a request gets "
        f"{pace:.1f} tokens a second at most.",
        evidence=(log_evidence(said[-1].line), *_spec(container)),
        fixes=_fixes(container, engine, limit),
        order=said[-1].line.order,
    )


class _Pace(msgspec.Struct, frozen=True):
    """How the last answers of llama.cpp came: tokens a second by its own count, else the seconds that Ollama's access log has."""

    paces: list[tuple[Line, float]]
    slow: list[tuple[Line, int]]

    @property
    def last(self) -> Line:
        return (self.slow or self.paces)[-1][0]

    @property
    def text(self) -> str:
        """`its last 3 answers came at 0.8 tokens a second at most`."""
        times = len(self.slow or self.paces)
        answers = "answer" if times == 1 else f"{times} answers"
        if self.slow:
            return f"its last {answers} took {say_seconds(min(seconds for _, seconds in self.slow))} or more each"
        return f"its last {answers} came at {max(pace for _, pace in self.paces):.1f} tokens a second at most"


def _crawl(log: Log, *, crowded: bool) -> _Pace | None:
    """The last answers where all of them crawl; more is slow where the threads crowd the cores."""
    answers = [(line, said) for line, said in log.matching(_PACE, _ANSWERED, most=1000)]
    latest = answers[-_LATEST:]
    paces = [(line, float(said[2])) for line, said in latest if int(said[1]) >= _TOKENS]
    slow = _slow_answers(log) if not answers else []
    enough = 1 if crowded and any(int(said[1]) >= _LONG_ANSWER for _, said in latest) else _ANSWERS
    if len(paces) < enough and not slow:
        return None
    # a single one may have waited for its weights, or shared the cores with others
    bound = _ALONE if len(paces) < _ANSWERS else _READS
    fastest = max((pace for _, pace in paces), default=0.0)
    if (slow and not crowded) or fastest >= (bound if crowded else _CRAWLS):
        return None
    return _Pace(paces, slow)


def _threads(engine: Engine, logs: Logs) -> Finding | None:
    """llama.cpp on the CPU, itself or in Ollama, within a limit of few cores, or of fewer than it has threads: answers crawl."""
    container, limit = engine.container, engine.container.limit("cpu")
    log = logs.current(container.name)
    if engine.name not in ("ollama", "llama.cpp") or log is None or limit is None or container.accelerators:
        return None
    line, threads = _counted(log) or (None, 0)
    more = threads * 1000 > limit
    found = _crawl(log, crowded=threads * 1000 >= _CROWDED * limit)
    if found is None or (not more and limit > _FEW_CORES):
        return None
    # what a GPU or another machine holds no thread computes, wherever it comes from
    if any(log.find(*_ON_GPU)) or any(on_the_cpu(x) is False for x in log.find(BUFFER)):
        return None
    with_threads = f" with {threads} threads" if more else ""
    return Finding(
        confidence="possible" if found.slow else "likely",
        summary=f"{engine.at} computes on the CPU{with_threads}, where its limit is {say_cores(limit)} cores: {found.text}.",
        evidence=(
            *((log_evidence(line),) if line is not None and more else ()),
            log_evidence(found.last),
            *_spec(container),
        ),
        fixes=(*((_fewer_threads(engine, limit),) if more else ()), *_fixes(container, engine, limit)),
        order=found.last.order,
    )


def _fewer_threads(engine: Engine, limit: int) -> Fix:
    threads = max(math.floor(limit / 1000), 1)
    summary = f"Use {threads} threads, as many as its limit has cores"
    if engine.name == "ollama":
        return fixes.advice(f"{summary} (num_thread, in the request or the Modelfile)")
    return fixes.set_flag(engine, "threads", "--threads", str(threads), summary)


def _threads_of_the_node(engine: Engine, limit: int, share: float) -> Fix | None:
    """As many threads as the limit has cores, for libraries that count those of the node, of which there are many more."""
    container = engine.container
    node = container.pod.cluster.item("Node", "", container.pod.spec.node_name)
    cores = milli(dig(node.raw, "status.capacity.cpu")) if node else None
    # vLLM limits the threads of several workers itself, and since _CLAMPS those of a single one
    alone = engine.name == "vllm" and engine.workers == 1 and limit >= _FEW_CORES // 2 and share > _MOSTLY
    alone = alone and engine.at_least(_CLAMPS) is not True
    counts = alone or (engine.name in _COUNTS_CORES and not container.gpus)
    many = 2 * _CROWDED if alone else _CROWDED
    if not counts or cores is None or cores < many * limit or _OMP in container.env:
        return None
    threads = max(math.floor(limit / 1000), 1)
    summary = f"Let it compute with {threads} threads, as many as its limit has cores: OpenMP, by which PyTorch computes, starts one for "
    return fixes.set_env(container, _OMP, str(threads), f"{summary}each of the node's {say_cores(cores)} cores")


def _own_threads(engine: Engine, limit: int | None, share: float) -> tuple[Fix, ...]:
    fix = _threads_of_the_node(engine, limit, share) if limit else None
    return () if fix is None else (fix,)


def _counted(log: Log | None) -> tuple[Line, int] | None:
    """With how many threads llama.cpp says that it computes a model, last."""
    lines = log.find(*_THREADS) if log is not None else ()
    said = [(line, int(m[1] or m[2])) for line in lines if (m := _COUNTED.search(line.text[:4000]))]
    return max(said, key=lambda one: one[0].number, default=None)


def _slow_answers(log: Log) -> list[tuple[Line, int]]:
    """The last answers by Ollama's access log and how many seconds each took, where all of them took long."""
    found = [(line, said) for line, said in log.matching(_TOOK, _POSTED, most=400)]
    took = [
        (line, int(said[1] or 0) * 3600 + int(said[2] or 0) * 60 + int(said[3] or 0)) for line, said in found[-_LATEST:]
    ]
    return took if len(took) >= _SLOW_ANSWERS and min(seconds for _, seconds in took) >= _SLOW_SECONDS else []


def _by_quota(
    pod: Pod, engine: Engine, metrics: Metrics | None, hardware: Hardware | None, logs: Logs | None
) -> Finding | None:
    """It uses up its limit in many periods; a cause where its GPUs wait for that."""
    container, limit = engine.container, engine.container.limit("cpu")
    quota = f" of {say_cores(limit)} cores" if limit else ""
    throttled = _throttled_over_time(metrics) if metrics else None
    if metrics and throttled and throttled[0] > _THROTTLED and (idle := _idle_gpu(metrics, throttled[0])) is not None:
        load = load_of(metrics)
        share, evidence = throttled
        number = (load.waiting if load.queues else load.running) if load else None
        waiting = f" while {number.last:.0f} requests {'wait' if load and load.queues else 'run'}" if number else ""
        return Finding(
            summary=f"Container {container.name} waited for its CPU quota{quota} in {share:.0%} of periods, and its busiest GPU is "
            f"{idle.mean:.0%} busy{waiting}.",
            evidence=(evidence, idle.evidence(lambda n: f"{n:.0%}"), *((number.evidence(),) if number else ())),
            explains=("queue-growing",),
            fixes=(*_own_threads(engine, limit, share), *_fixes(container, engine, limit)),
        )
    throttled = throttled or (_throttling(container, hardware) if hardware else None)
    if throttled is None or throttled[0] <= _THROTTLED:
        return None
    share, evidence = throttled
    starves = _gpus_wait(engine, hardware, logs, share) if hardware and logs and share > _MOSTLY and pod.ready else None
    starves = starves or (_far_too_few(pod, engine, share, logs) if logs else None)
    crowd: tuple[Fix, ...] = ()
    if starves is None and _computes_there(pod, engine, throttled[0]):
        starves = "the model is computed on the CPU, so that all its threads stand still meanwhile", ()
        counted = _counted(container.own_log(logs)) if engine.name in ("ollama", "llama.cpp") else None
        if counted and limit and counted[1] * 1000 > limit:
            meanwhile = f"the model is computed there with {counted[1]} threads, each of which waits for all others at every step"
            starves, crowd = (meanwhile, (log_evidence(counted[0]),)), (_fewer_threads(engine, limit),)
    crowd = crowd or _own_threads(engine, limit, share)
    works = f", and {starves[0]}" if starves else ""
    return Finding(
        role="cause" if starves else "risk",
        confidence="likely" if starves else "certain",
        summary=f"Container {container.name} waited for its CPU quota{quota} in {share:.0%} of periods{works}.",
        evidence=(evidence, *(starves[1] if starves else ()), *_spec(container)),
        explains=("queue-growing",) if starves else (),
        # with a model on the GPU it may as well be grammars, tokenizing or images that take the cores: more of them help in any case
        fixes=(*_fixes(container, engine, limit), *crowd)
        if container.gpus
        else (*crowd, *_fixes(container, engine, limit)),
    )


def _proxy_beside(
    pod: Pod, engine: Engine, metrics: Metrics | None, hardware: Hardware | None, logs: Logs | None
) -> Finding | None:
    """A proxy in the pod, through which all requests and answers go, that uses up its own limit in most periods."""
    for container in pod.containers:
        if container.name not in _PROXIES:
            continue
        own = _throttled_over_time(metrics.of(container)) if metrics else None
        share, evidence = own or (_throttling(container, hardware) if hardware else None) or (0.0, None)
        if share <= _MOSTLY or evidence is None:
            continue
        limit = container.limit("cpu")
        said = last_load(engine.container, logs)
        busy_now = bool(share > _NEARLY_ALWAYS and pod.ready and said and said[-1].running and works(pod, said))
        runs = f", while {said[-1].running} requests run in {engine.container.name}" if busy_now else ""
        more = str(max(math.ceil(4 * limit / 1000), 1)) if limit else "1"
        return Finding(
            role="cause" if busy_now else "risk",
            confidence="likely" if busy_now else "certain",
            summary=f"Container {container.name}, through which requests and tokens go, waited for its CPU quota"
            f"{f' of {say_cores(limit)} cores' if limit else ''} in {share:.0%} of periods{runs}.",
            evidence=(evidence, *_spec(container), *((log_evidence(said[-1].line),) if busy_now else ())),
            explains=("gateway-timeout",),
            fix=_more_for(container, more),
        )
    return None


def _more_for(container: Container, cores: str) -> Fix:
    """More CPU for a proxy: what injects it reads annotations of the pod."""
    if container.name == "istio-proxy":
        return fixes.advice(
            f"Give istio-proxy {cores} CPU: the annotation sidecar.istio.io/proxyCPULimit of the pod template, with proxyCPU no more"
        )
    if container.name == "linkerd-proxy":
        return fixes.advice(
            f"Give linkerd-proxy {cores} CPU: the annotation config.linkerd.io/proxy-cpu-limit of the pod template"
        )
    return fixes.set_resource(container, "limits", "cpu", cores, f"Give {container.name} {cores} CPU")


def _far_too_few(pod: Pod, engine: Engine, share: float, logs: Logs) -> tuple[str, tuple[Evidence, ...]] | None:
    """Less than half of the cores that the processes of the engine keep busy, nearly always used up, while requests run."""
    processes, limit = busy(engine), engine.container.limit("cpu")
    said = last_load(engine.container, logs)
    if (
        not pod.ready
        or share < _NEARLY_ALWAYS
        or processes is None
        or limit is None
        or not said
        or not said[-1].running
    ):
        return None
    if limit * 2 > processes.total * 1000:
        return None
    text = f"{engine.title} keeps {processes.total} processes busy ({processes.text}) while {said[-1].running} requests run"
    return text, (log_evidence(said[-1].line),)


def _computes_there(pod: Pod, engine: Engine, throttled: float) -> bool:
    """Whether a server that computes its model on the CPU stands still most of the time."""
    return pod.ready and throttled > _MOSTLY and not engine.container.accelerators and not pod.lent


def _by_waiting(
    pod: Pod, engine: Engine, metrics: Metrics | None, hardware: Hardware | None, logs: Logs | None
) -> Finding | None:
    """It has no limit, and its tasks wait for cores that others use; a cause where its GPUs wait for that."""
    container = engine.container
    limit, request = container.limit("cpu"), container.request("cpu")
    if limit is not None:
        return None
    pressed = (_pressure(container, hardware) if hardware else None) or (_waiting(metrics) if metrics else None)
    if not pressed:
        return None
    share, evidence = pressed
    beyond = _beyond(container, metrics) if metrics and request else None
    asks = f"requests {say_cores(request)}" if request else "requests none"
    takes = f"takes {beyond.mean:.1f} cores and " if beyond else ""
    starves = _gpus_wait(engine, hardware, logs, share / 100) if hardware and logs and pod.ready else None
    return Finding(
        role="cause" if starves else "risk",
        summary=f"Some task of container {container.name} waited for a CPU in {share:.3g}% of the last five minutes, and it has "
        f"no CPU limit: others use the cores of {pod.spec.node_name}; it {takes}{asks}{f', and {starves[0]}' if starves else ''}.",
        evidence=(
            evidence,
            *((_cores(beyond),) if beyond else ()),
            *(starves[1] if starves else ()),
            *_spec(container),
        ),
        fixes=_request(container, beyond, limit) if beyond else _fixes(container, engine, request),
    )


def _above_request(pod: Pod, container: Container, metrics: Metrics | None) -> Iterator[Finding]:
    """It takes far more cores than it requests, which others may want."""
    request = container.request("cpu")
    beyond = _beyond(container, metrics) if metrics and request else None
    if not beyond or not request:
        return
    yield Finding(
        role="note",
        summary=f"Container {container.name} takes {beyond.mean:.1f} cores and requests {say_cores(request)}: where others of "
        f"{pod.spec.node_name or 'the node'} want theirs, it falls back to its share.",
        evidence=(_cores(beyond), *_spec(container)),
        fixes=_request(container, beyond, container.limit("cpu")),
    )


def _too_few_cores(pod: Pod, engine: Engine) -> Iterator[Finding]:
    """It is given fewer cores than the engine keeps processes busy."""
    container = engine.container
    if not container.gpus or pod.lent:
        return  # on CPU the model itself computes there: another matter
    processes, limit = busy(engine), container.limit("cpu")
    amount = container.request("cpu") if limit is None else limit
    if processes is None or amount is None or amount >= processes.total * 1000:
        return
    hard = limit is not None
    if not hard and pod.ready:
        return  # it takes what is free, and where tasks of it wait for a core the kernel's figures say so
    yield Finding(
        role="risk" if hard else "note",
        confidence="likely" if hard else "possible",
        summary=f"{engine.label} keeps {processes.total} processes busy ({processes.text}), the CPU "
        f"{'limit' if hard else 'request'} is {say_cores(amount)}.",
        evidence=_spec(container),
        fixes=_fixes(container, engine, amount),
    )


def _throttled_over_time(metrics: Metrics) -> tuple[float, Evidence] | None:
    """The same over the window, as cAdvisor counted it."""
    periods, throttled = metrics.increase("cpu_periods"), metrics.increase("cpu_throttled")
    if periods is None or throttled is None or periods.lifetime or periods.amount < _FEWEST_PERIODS:
        return None
    name, over = metrics.name_of("cpu_throttled"), say_seconds(periods.seconds)
    share = min(throttled.amount / periods.amount, 1.0)
    text = f"{name}: +{throttled.amount:.0f} of {periods.amount:.0f} periods in {over}"
    if (lately := _throttled_lately(metrics)) is not None and lately[0] >= _OF_LATE * share:
        share, over = lately
        text = f"{name}: {share:.0%} of the periods in the last {over}, +{throttled.amount:.0f} of {periods.amount:.0f} in the whole window"
    return share, Evidence(source="metric", ref=metrics.source, text=text)


def _throttled_lately(metrics: Metrics) -> tuple[float, str] | None:
    """The same at the end of the window, where it has been so all through that: what began ten minutes ago is little of an hour."""
    rates = [metrics.rates(role) for role in ("cpu_periods", "cpu_throttled")]
    periods, throttled = (span.tail(SUSTAINED_SECONDS) if span else None for span in rates)
    if periods is None or throttled is None or periods.seconds < SUSTAINED_SECONDS * 0.9:
        return None
    if periods.mean * periods.seconds < _FEWEST_PERIODS or len(periods.points) != len(throttled.points):
        return None
    thirds = [throttled.third(n) / periods.third(n) if periods.third(n) else 0.0 for n in range(3)]
    if min(thirds) <= _MOSTLY:
        return None
    return min(throttled.mean / periods.mean, 1.0), say_seconds(periods.seconds)


def _idle_gpu(metrics: Metrics, throttled: float) -> Span | None:
    """The busiest GPU of the pod, where even that one has been idle for long while requests waited.

    Some that ran without a break will do where the container stood still longer than it ran on.
    """
    load = load_of(metrics)
    spans = [gpu.utilization.tail(SUSTAINED_SECONDS) for gpu in metrics.gpus if gpu.utilization is not None]
    if load is None or not spans:
        return None
    if not load.queues and not (throttled > _MOSTLY and load.recent.running.share(lambda n: n >= 1) >= _ALL_THE_TIME):
        return None
    busiest = max(spans, key=lambda span: span.mean)
    return busiest if busiest.mean < _IDLE and busiest.seconds >= SUSTAINED_SECONDS * 0.9 else None


def _gpus_wait(
    engine: Engine, hardware: Hardware, logs: Logs, throttled: float
) -> tuple[str, tuple[Evidence, ...]] | None:
    """GPUs that are mostly idle although requests have been running all the time: words, and the quotations."""
    # where it nearly always waits, whatever of its statements is there is enough
    said = (last_load if throttled >= _NEARLY_ALWAYS else recent_load)(engine.container, logs)
    busiest = max(hardware.mine, key=_utilization, default=None)
    if not said or not works(engine.pod, said) or min(load.running for load in said) < 1 or busiest is None:
        return None
    percent = busiest.utilization_percent
    if percent is None or percent >= _IDLE * 100:
        return None
    text = f"its busiest GPU is {percent:g}% busy while {said[-1].running} requests run"
    return text, (hardware.evidence(busiest, "utilizationPercent", f"{percent:g}"), log_evidence(said[-1].line))


def _utilization(device: Device) -> float:
    return device.utilization_percent if device.utilization_percent is not None else 100.0


def _throttling(container: Container, hardware: Hardware) -> tuple[float, Evidence] | None:
    """Share of CPU periods in which the container was throttled."""
    use = hardware.use_of(container)
    if use is None or use.cpu.nr_throttled is None or (use.cpu.nr_periods or 0) < _FEWEST_PERIODS:
        return None
    if use.cpu.pressure300 is not None and use.cpu.pressure300 < _CALM and _young(container):
        return None
    text = f"nrThrottled: {use.cpu.nr_throttled} of nrPeriods: {use.cpu.nr_periods}"
    if use.cpu.throttled_usec:
        text += f", {say_seconds(use.cpu.throttled_usec / 1e6)} in all"
    if use.cpu.pressure300 is not None:
        text += f"; pressure300: {use.cpu.pressure300:g}"
    return use.cpu.nr_throttled / (use.cpu.nr_periods or 1), hardware.use_evidence(use, "cpu", text)


def _young(container: Container) -> bool:
    """Whether it started within the hour."""
    ran = container.pod.cluster.seconds_since(container.started)
    return ran is not None and ran < _YOUNG_SECONDS


def _pressure(container: Container, hardware: Hardware) -> tuple[float, Evidence] | None:
    """Share of the last five minutes, percent, in which a task of the container waited for a CPU."""
    use = hardware.use_of(container)
    share = use.cpu.pressure300 if use else None
    if use is None or share is None or share < _PRESSED or use.cpu.quota_cores is not None:
        return None
    return share, hardware.use_evidence(use, "cpu", f"pressure300: {share:g}, pressure10: {use.cpu.pressure10}")


def _waiting(metrics: Metrics) -> tuple[float, Evidence] | None:
    """The same as the kubelet exports it."""
    rates = metrics.rates("cpu_waiting")
    recent = rates.tail(300) if rates else None
    if recent is None or recent.seconds < 200 or recent.mean * 100 < _PRESSED:
        return None
    text = f"rate of {metrics.name_of('cpu_waiting')}: {recent.mean:.2f} in {say_seconds(recent.seconds)}"
    return recent.mean * 100, Evidence(source="metric", ref=recent.source, text=text)


def _beyond(container: Container, metrics: Metrics) -> Span | None:
    """The cores that a container has taken of late, where that is far more than it requests and no short peak.

    By thirds, since a counter that is scraped more seldom than it is asked about stands still between.
    """
    rates, request = metrics.rates("cpu_seconds"), container.request("cpu")
    recent = rates.tail(SUSTAINED_SECONDS) if rates else None
    if recent is None or request is None or recent.seconds < SUSTAINED_SECONDS * 0.9:
        return None
    least = max(_TIMES * request, request + _BEYOND) / 1000
    return recent if all(recent.third(n) >= least for n in range(3)) else None


def _cores(span: Span) -> Evidence:
    """The means of its thirds: single points say how often it was scraped."""
    means = ", ".join(f"{span.third(n):.1f}" for n in range(3))
    text = f"{span.metric}: {means} cores, by thirds of {say_seconds(span.seconds)}"
    return Evidence(source="metric", ref=span.source, text=text)


def _request(container: Container, taken: Span, limit: int | None) -> tuple[Fix, ...]:
    """The request that covers what it takes; no more than its limit, which would be refused."""
    cores = math.ceil(taken.mean)
    value = str(cores) if limit is None or cores * 1000 <= limit else str(container.spec.resources.limits["cpu"])
    return (
        fixes.set_resource(
            container, "requests", "cpu", value, f"Request the cores that {container.name} takes: {value}"
        ),
    )


def _spec(container: Container) -> tuple[Evidence, ...]:
    resources = container.spec.resources
    found = []
    for kind, values in (("limits", resources.limits), ("requests", resources.requests)):
        if "cpu" in values:
            found.append(pod_evidence(container, f"resources.{kind}.cpu", str(values["cpu"])))
    return tuple(found)


def _fixes(container: Container, engine: Engine, amount: int | None) -> tuple[Fix, ...]:
    processes = busy(engine)
    wanted = max(4, processes.total if processes else 0)
    kind = "limits" if container.limit("cpu") is not None else "requests"
    if amount is not None and amount >= wanted * 1000:
        wanted = 2 * amount // 1000
    summary = f"Give {container.name} {wanted} cores"
    return (fixes.set_resource(container, kind, "cpu", str(wanted), summary),)
