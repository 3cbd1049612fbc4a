"""Weights that are read so slowly that a start takes tens of minutes."""

import re
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    Container,
    Engine,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Pod,
    Sizing,
    answered,
    check,
    dig,
    expression,
    fixes,
    k8s,
    log_evidence,
    phase_of,
    pod_evidence,
    say_bytes,
    say_seconds,
    seconds_between,
    written_ago,
)
from llmdoctor_checks._xet import without_xet

#: A load that takes so long, by what is done so far, is slow: from a local disk hundreds of gigabytes take minutes.
_SLOW_SECONDS = 1200

#: So long does one shard (5 to 10 GB) take then, at least: more shards than usual take longer together.
_SHARD_SECONDS = 20.0

#: A disk of whatever kind reads a file of weights faster than this; known for so long, it is the pace and no hesitation.
_SLOW_BYTES, _PACE_SECONDS = 50e6, 180

#: What a load that is over took, when the next one deserves a word; and what is long whatever there is to read.
_TOOK_SECONDS, _LONG_SECONDS = 900, 1800

#: The driver of Cloud Storage FUSE on GKE, and the option by which it reads a file in several pieces at once (of its file cache).
_GCSFUSE, _PARALLEL = "gcsfuse.csi.storage.gke.io", "enable-parallel-downloads"

#: What takes long where the disk, the network or the hub is slow.
_ON_THE_WAY = ("downloading the model", "loading weights")

#: Engines that download with huggingface_hub, as those in other languages (TEI, llama.cpp, Ollama) do not; releases of vLLM before this
#: have no Xet in their images.
_BY_THE_HUB, _XET_SINCE = frozenset({"vllm", "sglang", "tgi", "tensorrt-llm", "lmdeploy"}), "0.8.0"

#: A repository of the hub, as engines are told one.
_REPOSITORY = expression(r"[\w][\w.-]{0,95}/[\w.-]{1,96}")

#: The bars of vLLM and SGLang ("Multi-thread loading shards"): shards that are done, all of them, the time so far.
_BAR = r"(?:checkpoint|loading) shards:\s+\d+% Completed \| (\d{1,9})/(\d{1,9}) \[((?:\d{1,9}:)?\d{1,9}:\d\d)<"
_SHARDS = " shards:"

#: The bar of huggingface_hub for a file of weights: its name, the share that is there, the time so far, what is left, the pace.
_FETCH = (
    r"([\w.-]{1,100}\.(?:safetensors|gguf|bin|pth?)): +(\d{1,3})%\|[^|\]]{0,200}\| [^ \[]{1,20} "
    r"\[((?:\d{1,9}:)?\d{1,9}:\d\d)<((?:\d{1,9}:)?\d{1,9}:\d\d), +([\d.]{1,9} ?[kMG]?i?B/s)\]"
)
_PACE = "B/s]"

#: A file whose pace is known for so long does not get faster by itself.
_KNOWN_SECONDS = 300

#: What vLLM says when the weights are read, and SGLang from 0.5.10 on; before, two lines of SGLang with a time each.
_TOOK = (
    r"(?:Loading weights took|(?:Model loading|Loading model weights) took [\d.]+ Gi?B(?: memory)? and) (\d{1,9}(?:\.\d+)?) seconds"
    r"|Load weight end\. elapsed=(\d{1,9}(?:\.\d+)?) s"
)
_TAKEN = ("Loading weights took", "Model loading took", "Loading model weights took")
_TAKEN_V0 = _TAKEN[-1]
#: What vLLM counts with the loading of a model though no disk is slow for it: the download, of a draft model as well.
_DOWNLOADED, _DOWNLOAD = (
    "Time spent downloading weights",
    r"Time spent downloading weights for (\S{1,200}): (\d{1,9}(?:\.\d+)?) seconds",
)
_BEGIN, _END = "Load weight begin", "Load weight end"

#: Ollama's, with OLLAMA_DEBUG: which share of a model is loaded, and that it is; such a load is slow when it takes so long in all
#: and is known for so long. Its clients wait meanwhile, most of them not for ten minutes.
_PROGRESS, _LOADED = "model load progress ", "llama runner started in"
_SHARE = r"model load progress (0\.\d\d|1\.00)"
_OLLAMA_SECONDS, _OLLAMA_KNOWN = 600, 180
#: A load given up longer ago says nothing of a server that has answered since.
_OLLAMA_PAST = 3600

#: A line that seems to be later than the one after it (two processes print) would be of last year.
_DAY = 86400

#: Lines without a time, of a bar that moves, between two lines with one.
_BARS = 500


class Bar(msgspec.Struct, frozen=True):
    """How far a load has come: `seconds` for `done` of `shards`."""

    line: Line
    done: int
    shards: int
    seconds: int

    @property
    def whole(self) -> float:
        """How long it takes in all, at the pace so far."""
        return self.seconds / self.done * self.shards


#: How an engine is told to read files whole, in place of mapping them, and since which release it can.
_IN_ONE_PIECE = {
    "sglang": ("--weight-loader-disable-mmap", ""),
    "vllm": ("--safetensors-load-strategy eager", "0.10.2"),
}


@check("slow-load", since="0.1", literals=(_SHARDS, _PACE, *_TAKEN, _DOWNLOADED, _BEGIN, _END, _PROGRESS, _LOADED))
def slow_load(pod: Pod, engine: Engine, sizing: Sizing, logs: Logs | None) -> Iterator[Finding]:
    """The weights are read slowly, or not within the time that the engine gives itself.

    A checkpoint is tens to hundreds of gigabytes. From a local NVMe disk it is read in a minute or a few; from a network file
    system or an object store that is mounted as one, the small reads of memory-mapped safetensors files take tens of times as
    long, above all the first time on a node and where every rank reads all of it. The engine prints how far it is.

    vLLM with several API servers (`--api-server-count`, or data parallel ranks) waits 600 seconds for its engine core. Weights of
    hundreds of gigabytes from a cold network volume, or kernels that are compiled at the first start, take longer; the
    server ends although nothing is broken. With one API server vLLM waits forever, and a probe is what ends a slow start.

    Ollama gives up when a load makes no progress for `OLLAMA_LOAD_TIMEOUT`. Its pod stays ready, and its requests are
    answered with errors. (That a client went away before its model was loaded is no fault of the server, and is not
    reported, unless `OLLAMA_DEBUG` shows the pace of the load: ten minutes and more in all are slow.)

    A download from the Hugging Face Hub shows its pace for each file.

    Where the size of the checkpoint is known, so is the pace: less than 50 MB in a second is slow for however small a model.

    Where nothing says how far it is, a first start that has been at it for half an hour is told of as possible: a download may
    also stand still (the hub's Xet storage without a word, above all), and so may a file system.

    A server that took long to load is a risk even when it is up: each restart, rollout and scale-up lacks a replica for as long.

    ## Fix

    Shorten the load: a fast local or cached volume instead of a network file system, files read in one piece
    (`--safetensors-load-strategy eager` of vLLM, `--weight-loader-disable-mmap` of SGLang) or by a streaming loader
    (`--load-format runai_streamer`), enough CPU, compiled kernels kept on a volume (`VLLM_CACHE_ROOT`). Raise the limit above the
    load time (`VLLM_ENGINE_READY_TIMEOUT_S`, `OLLAMA_LOAD_TIMEOUT`, the startup probe).

    ## References

    - https://docs.vllm.ai/en/latest/configuration/env_vars/
    - https://docs.vllm.ai/en/latest/models/extensions/runai_model_streamer/
    - https://docs.ollama.com/faq
    - https://docs.cloud.google.com/kubernetes-engine/docs/how-to/cloud-storage-fuse-csi-driver-perf
    """
    log = engine.container.own_log(logs)
    if log is None or engine.container.restarts:
        return  # what ended the starts before counts first
    if engine.name == "ollama" and (found := _ollama(pod, engine, log)) is not None:
        yield found
        return
    bar = _bar(log)
    if bar is not None and bar.done < bar.shards and not pod.ready:
        slow = bar.whole >= _SLOW_SECONDS and bar.seconds / bar.done >= _SHARD_SECONDS
        pace = _pace(sizing, bar)
        if (slow or bar.whole >= _LONG_SECONDS or pace) and _last(bar.line):
            yield _loading(pod, engine, bar, pace)
        return
    if not pod.ready and (found := _fetching(pod, engine, log, bar)) is not None:
        yield found
        return
    if (found := _long_on_the_way(pod, engine, log, bar)) is not None:
        yield found
        return
    took = _took(log)
    if took is not None and took[0] >= (_TOOK_SECONDS if pod.ready or pod.log_only else _LONG_SECONDS):
        seconds, line = took
        shown = not pod.ready and seconds >= _LONG_SECONDS
        yield Finding(
            role="cause" if shown else "risk",
            severity="warning",
            confidence="possible" if shown else "likely",
            summary=f"{engine.at} took {say_seconds(seconds)} to read its weights{_where(engine)}: "
            "each restart and each further replica takes as long.",
            evidence=(log_evidence(line),),
            explains=("not-ready", "rollout-stuck") if shown else (),
            fix=_fix(pod, engine),
        )


def _ollama(pod: Pod, engine: Engine, log: Log) -> Finding | None:
    """A model that Ollama loads slowly, by the shares that it says are loaded; the last load, which is not over or was given up."""
    shares = [(line, float(said[1])) for line, said in log.matching(_SHARE, _PROGRESS, most=400)]
    if not shares or any(line.number > shares[-1][0].number for line in log.find(_LOADED)):
        return None
    run = shares[-1:]
    for one in reversed(shares[:-1]):
        if one[1] > run[-1][1]:
            break  # of the load before
        run.append(one)
    (last, share), (first, begun) = run[0], run[-1]
    seconds = seconds_between(first, last)
    if share >= 1 or share <= begun or seconds is None or not _OLLAMA_KNOWN <= seconds < _DAY:
        return None
    if (written_ago(last, pod.cluster.now) or 0) > _OLLAMA_PAST and answered(log, after=last.number):
        return None
    # what began slowly may have gone well since
    half, so_far = max((one for one in run if one[1] <= (begun + share) / 2), key=lambda one: one[0].number)
    whole = seconds / (share - begun)
    ahead = (seconds_between(half, last) or 0) / (share - so_far) * (1 - share)
    if whole < _OLLAMA_SECONDS or seconds + ahead < _OLLAMA_SECONDS:
        return None
    volume = next((f", from {name}" for path, name in _mounts(engine.container) if "ollama" in path), "")
    return Finding(
        role="risk" if pod.log_only else "cause",
        severity="warning",
        summary=f"Ollama had loaded {share:.0%} of a model, and {begun:.0%} of it {say_seconds(seconds)} before{volume}: at that pace all "
        f"of it takes {say_seconds(whole)}, and the client waits for it.",
        evidence=(log_evidence(last), log_evidence(first)),
        fix=fixes.advice(
            f"Keep Ollama's models on a fast local or block volume (not a network file system), in {fixes.edited(pod)}; until then let "
            "clients wait longer, and keep the model loaded (OLLAMA_KEEP_ALIVE=-1)"
        ),
        order=last.order,
    )


def _pace(sizing: Sizing, bar: Bar) -> float | None:
    """The bytes that are read in a second, where that is slow; shards are as large as each other but for the last."""
    size = sizing.file_bytes
    if size is None or bar.seconds < _PACE_SECONDS:
        return None
    pace = size * bar.done / bar.shards / bar.seconds
    return pace if pace < _SLOW_BYTES else None


def _loading(pod: Pod, engine: Engine, bar: Bar, pace: float | None) -> Finding:
    each = f", {say_bytes(round(pace))} in a second" if pace else ""
    return Finding(
        # a log alone does not say for how long anybody waits
        role="risk" if pod.log_only else "cause",
        severity="warning",
        summary=f"{engine.at} has read {bar.done} of {bar.shards} shards of its weights in "
        f"{say_seconds(bar.seconds)}{each}{_where(engine)}: at that pace all of them take {say_seconds(bar.whole)}.",
        evidence=(log_evidence(bar.line),),
        explains=("not-ready", "rollout-stuck"),
        fix=_fix(pod, engine),
        order=bar.line.order,
    )


def _fetching(pod: Pod, engine: Engine, log: Log, bar: Bar | None) -> Finding | None:
    """A file of the weights that is fetched so slowly that it alone takes tens of minutes."""
    found = [(line, said) for line in log.find(_PACE) for said in re.finditer(_FETCH, line.text)]
    if not found or (bar is not None and bar.line.number > found[-1][0].number):
        return None
    line, said = found[-1]
    passed, left = _clock(said[3]), _clock(said[4])
    if passed < _KNOWN_SECONDS or passed + left < _SLOW_SECONDS or not _last(line):
        return None
    return Finding(
        role="risk" if pod.log_only else "cause",
        severity="warning",
        summary=f"{engine.at} downloads its weights at {said[5]}: {said[1]} is {said[2]}% there after {say_seconds(passed)}, and takes "
        f"{say_seconds(left)} more.",
        evidence=(log_evidence(line),),
        explains=("not-ready", "rollout-stuck"),
        fix=fixes.advice(
            "Keep the model on a volume that outlives the pod, or take it from a mirror that is nearer (HF_ENDPOINT), in "
            f"{fixes.edited(pod)}; see what holds the way to the hub back (a proxy, a limit of the node's bandwidth, many pods at once)"
        ),
        order=line.order,
    )


def _long_on_the_way(pod: Pod, engine: Engine, log: Log, bar: Bar | None) -> Finding | None:
    """A first start that has downloaded or loaded for half an hour, and prints no bar that says how far it is."""
    trouble = engine.container.trouble("not-ready")
    phase, seconds = phase_of(log), pod.cluster.seconds_since(trouble.since) if trouble else None
    if trouble is None or seconds is None or phase is None or phase.name not in _ON_THE_WAY:
        return None
    if bar is not None and bar.line.number > phase.line.number:
        return None  # all shards are read
    if seconds < _LONG_SECONDS or not _last(phase.line):
        return None
    return Finding(
        severity="warning",
        # it may as well stand still
        confidence="possible",
        summary=f"{engine.at} runs for {say_seconds(seconds)} and is still {phase.doing}{_where(engine)}.",
        evidence=(
            log_evidence(phase.line),
            pod_evidence(engine.container, "state.running.startedAt", f"{trouble.since:%Y-%m-%dT%H:%M:%SZ}"),
        ),
        explains=("not-ready", "rollout-stuck"),
        fixes=_of_the_way(pod, engine, downloads=phase.name == _ON_THE_WAY[0]),
        order=phase.line.order,
    )


def _of_the_way(pod: Pod, engine: Engine, *, downloads: bool) -> tuple[Fix, ...]:
    """What gets a start on that stands still: of a download from the hub, plain HTTP in the place of Xet."""
    container, model = engine.container, str(engine.value("model", ""))
    look = fixes.advice(
        f"See whether it reads or downloads anything, then shorten that, in {fixes.edited(pod)}",
        f"kubectl -n {pod.namespace} exec {pod.name} -c {container.name} -- cat /proc/1/io",
    )
    by_hub = engine.name in _BY_THE_HUB and not (engine.name == "vllm" and engine.at_least(_XET_SINCE) is False)
    plainly = without_xet(container, model) if by_hub and _REPOSITORY.fullmatch(model) else ()
    # what a claim keeps from a start before is only read
    kept = not downloads and any(what.startswith("claim ") for _, what in _mounts(container))
    return (look, *plainly) if kept else (*plainly, look)


def _bar(log: Log) -> Bar | None:
    """The last state of the bar, once two shards are done or one took minutes: the first one may wait for much else."""
    found = None
    for line in log.find(_SHARDS):
        for said in re.finditer(_BAR, line.text):
            done, shards, seconds = int(said[1]), int(said[2]), _clock(said[3])
            if 0 < done <= shards and seconds and (done > 1 or seconds >= _PACE_SECONDS):
                found = Bar(line, done, shards, seconds)
    return found


def _clock(text: str) -> int:
    """`1:02:03` in seconds."""
    total = 0
    for part in text.split(":"):
        total = total * 60 + int(part)
    return total


def _last(line: Line) -> bool:
    """Whether nothing else follows but the same bar of other ranks, and what the start prints beside it."""
    return not any("Traceback (most recent call last)" in other.text for other in line.log.lines(line.number + 1))


def _took(log: Log) -> tuple[float, Line] | None:
    """How long the slowest rank read, by what it says itself or by the times of two lines."""
    found = [
        (_read_alone(float(said[1] or said[2]), line), line)
        for text in (*_TAKEN, _END)
        for line, said in log.matching(_TOOK, text)
    ]
    if not found:
        begins, ends = list(log.find(_BEGIN)), list(log.find(_END))
        seconds = seconds_between(begins[0], ends[-1]) if begins and ends else None
        found = [(seconds, ends[-1])] if seconds is not None else []
    return max((*found, *_since_the_line_before(log)), key=lambda one: one[0], default=None)


def _read_alone(took: float, line: Line) -> float:
    """The time that the line tells, less the downloads within it: each rank tells how long it waited for the same one."""
    if "Model loading took" not in line.text:
        return took
    longest: dict[str, float] = {}
    for other, said in line.log.matching(_DOWNLOAD, _DOWNLOADED):
        since = seconds_between(other, line) if other.number < line.number else None
        if since is not None and since <= took:
            longest[said[1]] = max(float(said[2]), longest.get(said[1], 0))
    return max(0, took - sum(longest.values()))


def _since_the_line_before(log: Log) -> Iterator[tuple[float, Line]]:
    """vLLM before 0.7 says only that a rank has read its weights: how long after the last line with a time it does."""
    for line in log.find(_TAKEN_V0):
        if re.search(_TOOK, line.text):
            continue
        before = reversed([*log.lines(line.number - _BARS, line.number - 1)])
        seconds = next((one for other in before if (one := seconds_between(other, line)) is not None), None)
        if seconds is not None and seconds < _DAY:
            yield seconds, line


def _where(engine: Engine) -> str:
    """The volume that the model lies on: `, from claim models`; empty where it is not known."""
    volume = _volume(engine)
    if volume is None:
        return ""
    claim = volume.persistent_volume_claim
    return f", from {f'claim {claim.claim_name}' if claim else f'volume {volume.name}'}"


def _mounts(container: Container) -> Iterator[tuple[str, str]]:
    volumes = {volume.name: volume for volume in container.pod.spec.volumes}
    for mount in container.spec.volume_mounts:
        volume = volumes.get(mount.name)
        claim = volume.persistent_volume_claim if volume else None
        yield mount.mount_path, f"claim {claim.claim_name}" if claim else f"volume {mount.name}"


def _volume(engine: Engine) -> k8s.Volume | None:
    """The volume on which the model lies, or the folder to which it is downloaded."""
    container = engine.container
    for setting in (engine.explicit("model"), engine.explicit("download_dir")):
        path = f"{setting.value}/" if setting is not None else ""
        mounts = [m for m in container.spec.volume_mounts if path.startswith(f"{m.mount_path.rstrip('/')}/")]
        if path.startswith("/") and mounts:
            return container.pod.volume(max(mounts, key=lambda m: len(m.mount_path)).name)
    return None


def _bucket(pod: Pod, volume: k8s.Volume) -> tuple[str, str] | None:
    """Of a bucket that Cloud Storage FUSE mounts: its mount options, and where they are stated."""
    claim = volume.persistent_volume_claim
    if claim is None:
        csi, listed, where = (
            volume.csi or {},
            [],
            f"csi.volumeAttributes of volume {volume.name} in {fixes.edited(pod)}",
        )
    else:
        name = pod.cluster.field("PersistentVolumeClaim", pod.namespace, claim.claim_name, "spec.volumeName")
        item = pod.cluster.item("PersistentVolume", "", str(name or ""))
        csi, listed = (dig(item.raw, f"spec.{key}") for key in ("csi", "mountOptions")) if item else ({}, [])
        where = f"spec of PersistentVolume {name}"
    if not isinstance(csi, dict) or csi.get("driver") != _GCSFUSE:
        return None
    stated = [str(dig(csi, "volumeAttributes.mountOptions") or ""), *(listed if isinstance(listed, list) else ())]
    return ",".join(map(str, stated)), where


def _fix(pod: Pod, engine: Engine) -> Fix:
    volume = _where(engine).removeprefix(", from ")
    keep = (
        f"Keep the model on a faster volume than {volume}"
        if volume
        else "Keep the model on a fast local or cached volume"
    )
    on = _volume(engine)
    bucket = _bucket(pod, on) if on is not None else None
    if bucket is not None and _PARALLEL not in bucket[0]:
        return fixes.advice(
            "Have Cloud Storage FUSE read each file in parallel into its cache, which has to hold the model: "
            f"file-cache:max-size-mb:-1 and file-cache:{_PARALLEL}:true in mountOptions, {bucket[1]}; else keep the model on a faster "
            "volume"
        )
    flag, since = _IN_ONE_PIECE.get(engine.name, ("", ""))
    new = engine.at_least(since) if since else True
    whole = (
        f", or read its files in one piece ({flag}{'' if new else f', from {since} on'})"
        if flag and new is not False
        else ""
    )
    return fixes.advice(f"{keep}{whole}, in {fixes.edited(pod)}")
