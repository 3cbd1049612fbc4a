"""`lint` of 2,000 manifests against kube-score over the same files: medians of alternating runs from the built wheel.

`python -m tests.bench.lint`; kube-score is looked for on the PATH or in KUBE_SCORE (`go build ./cmd/kube-score` in its
source). Without it the time per manifest is printed. Beside the wall time stands the processor time of all processes,
which a machine that others use disturbs less.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.__main__ import install

COUNT = 2000
RUNS = 5
MOST_TIMES = 1.0

_SERVER = """apiVersion: apps/v1
kind: {kind}
metadata:
  name: {name}
  namespace: {namespace}
  labels: {{app: {name}}}
spec:
  replicas: {replicas}
  {service}selector:
    matchLabels: {{app: {name}}}
  template:
    metadata:
      labels: {{app: {name}}}
    spec:
      containers:
        - name: server
          image: {image}
          {command}args:
            - {model_flag}={model}
            - {length_flag}={length}
            - {parallel_flag}={gpus}
          ports:
            - {{name: http, containerPort: {port}}}
          env:
            - name: HF_TOKEN
              valueFrom:
                secretKeyRef: {{name: hf-token, key: token}}
          readinessProbe:
            httpGet: {{path: /health, port: http}}
            periodSeconds: 10
          startupProbe:
            httpGet: {{path: /health, port: http}}
            periodSeconds: 10
            failureThreshold: {budget}
          resources:
            requests: {{cpu: "{cpus}", memory: {memory}Gi, nvidia.com/gpu: {gpus}}}
            limits: {{memory: {memory}Gi, nvidia.com/gpu: {gpus}}}
          volumeMounts:
            - {{name: cache, mountPath: /root/.cache/huggingface}}
      volumes:
        - name: cache
          persistentVolumeClaim: {{claimName: {name}-cache}}
"""
_SERVICE = """apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{app: {name}}}
  ports:
    - {{name: http, port: 80, targetPort: http}}
"""
_CLAIM = """apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}-cache, namespace: {namespace}}}
spec:
  accessModes: [ReadWriteMany]
  resources: {{requests: {{storage: 200Gi}}}}
"""
_SCALER = """apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: {kind}, name: {name}}}
  minReplicas: 1
  maxReplicas: 4
  metrics:
    - type: Pods
      pods:
        metric: {{name: vllm_num_requests_waiting}}
        target: {{type: AverageValue, averageValue: "4"}}
"""


def write(folder: Path, count: int = COUNT) -> None:
    """So many manifests of model servers, four files each."""
    chance = random.Random(1)
    for number in range(count // 4):
        sglang = chance.random() < 0.3
        values = {
            "name": f"model-{number}",
            "namespace": f"team-{number % 20}",
            "kind": "StatefulSet" if sglang else "Deployment",
            "service": f"serviceName: model-{number}\n  " if sglang else "",
            "image": "lmsysorg/sglang:v0.5.3" if sglang else f"vllm/vllm-openai:v0.{chance.randint(8, 11)}.0",
            "command": "command: [python3, -m, sglang.launch_server]\n          " if sglang else "",
            "model": chance.choice(["Qwen/Qwen3-8B", "Qwen/Qwen3-32B", "mistralai/Mistral-7B-Instruct-v0.3"]),
            "model_flag": "--model-path" if sglang else "--model",
            "length_flag": "--context-length" if sglang else "--max-model-len",
            "parallel_flag": "--tp-size" if sglang else "--tensor-parallel-size",
            "port": 30000 if sglang else 8000,
            "length": chance.choice([4096, 8192, 32768]),
            "gpus": chance.choice([1, 2, 4]),
            "replicas": chance.randint(1, 3),
            "budget": chance.choice([30, 60, 180]),
            "cpus": chance.choice([2, 8, 16]),
            "memory": chance.choice([32, 64, 128]),
        }
        home = folder / f"team-{number % 20}" / str(values["name"])
        home.mkdir(parents=True)
        for file, text in {"server": _SERVER, "service": _SERVICE, "claim": _CLAIM, "scaler": _SCALER}.items():
            (home / f"{file}.yaml").write_text(text.format(**values), encoding="utf-8")


def _seconds(command: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Wall time, and user and system time, of one run."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    # both exit with 1 for what they found; kube-score says on stderr when it read nothing
    assert done.returncode in (0, 1), done.stderr
    assert b"Failed" not in done.stderr, done.stderr
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _medians(runs: list[tuple[float, float]]) -> tuple[float, float]:
    """Those of wall and processor time; the first run only warms caches."""
    walls, used = zip(*runs[1:], strict=True)
    return statistics.median(walls), statistics.median(used)


def main() -> int:
    """Print one line; 1 when the bound is broken."""
    theirs = shutil.which(os.environ.get("KUBE_SCORE", "kube-score"))
    with tempfile.TemporaryDirectory() as name:
        program, folder = install(Path(name)), Path(name, "manifests")
        env = os.environ | {"PYTHONPATH": str(Path(name, "installed"))}
        write(folder)
        files = sorted(map(str, folder.rglob("*.yaml")))
        other, ours = [], []
        for _ in range(RUNS + 1):
            if theirs:
                other.append(_seconds([theirs, "score", *files], env))
            ours.append(_seconds([*program, "lint", str(folder)], env))
    mine, used = _medians(ours)
    each = 1000 / len(files)
    said = f"lint: {len(files)} manifests in {mine:.2f} s ({used:.2f} s of processors), {mine * each:.2f} ms each"
    if not theirs:
        print(f"{said}; no kube-score to compare with")
        return 0
    base, burnt = _medians(other)
    good = mine <= MOST_TIMES * base
    print(
        f"{said} = {mine / base:.2f} x kube-score ({base:.2f} s; {burnt:.2f} s of processors), "
        f"at most {MOST_TIMES:g} x: {'ok' if good else 'BROKEN'}"
    )
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
