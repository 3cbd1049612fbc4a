"""The model, and the hub or store that it is from."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import get_args

from kubectl_llmdoctor.advice.declared import Condition, OfHub
from kubectl_llmdoctor.advice.occurrence import Topic
from kubectl_llmdoctor.advice.templates import NO_MODEL, Value
from kubectl_llmdoctor.catalog.families import made_for_chats
from kubectl_llmdoctor.catalog.models import misspelt, with_owner
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts import model_store
from kubectl_llmdoctor.template_values import template_value

#: A model of a hub, as no folder is named.
_HUB_ID = expression(r"[\w.-]+/[\w.-]+")

#: Hugging Face's own.
_HUB = "https://huggingface.co"

#: An address of Hugging Face's own, which a mirror may send to as well.
_HUB_HOST = expression(r"(?:^|[./])(?:huggingface\.co|hf\.co)(?:[/:]|$)")


#: So many seconds a download may pause, where huggingface_hub waits ten.
_PATIENCE = 120


class Hub(Topic):
    """What the model is called, and where it is asked for."""

    decides = get_args(OfHub)

    def values(self) -> dict[str, Value]:
        return super().values() | {
            "hub_model": lambda: self._repository or NO_MODEL,
            "cached": lambda: f"models--{self._repository.replace('/', '--')}" if self._repository else "its files",
            "patience": lambda: str(_PATIENCE) if (self._waits("HF_HUB_DOWNLOAD_TIMEOUT") or 0) < _PATIENCE else "",
            "patience_for_answers": lambda: str(max(_PATIENCE // 2, self._waits("HF_HUB_ETAG_TIMEOUT") or 0)),
            "hub_variable": lambda: self._asked[1],
            "hub_url": lambda: self.hub or _HUB,
            "hub_host": lambda: self.captured.get("host") or (self.hub or _HUB).partition("://")[2],
            "store_uri": lambda: (
                (model_store.address(self.container) if self.container else "") or "the model's address"
            ),
            "store": lambda: (model_store.endpoint(self.container) if self.container else "") or "the store",
        }

    def _waits(self, name: str) -> int | None:
        """The seconds that a variable of huggingface_hub is set to, which reads whole numbers."""
        told = self.container.env.get(name) if self.container else None
        value = str(told.value or "").strip()[:9] if told else ""
        return int(value) if value.isascii() and value.isdecimal() else None

    def _holds(self) -> Iterator[Condition]:
        asked = self.captured.get("host") or self.captured.get("url") or ""
        other = self.hub and not _HUB_HOST.search(self.hub) and not _HUB_HOST.search(asked)
        yield "other hub" if other else "usual hub"
        yield "model named" if self.search else "no model named"
        yield model_store.answer_of(self.captured.values())

    @property
    def _hub_variables(self) -> tuple[str, ...]:
        """What may name another hub; llama.cpp looks at its own variable first."""
        llama = self.engine is not None and self.engine.name == "llama.cpp"
        return ("MODEL_ENDPOINT", "HF_ENDPOINT") if llama else ("HF_ENDPOINT",)

    @cached_property
    def _asked(self) -> tuple[str, str]:
        """Where the container asks for models instead of Hugging Face's hub, and the variable that says so."""
        for name in self._hub_variables if self.container else ():
            variable = self.container.env.get(name) if self.container else None
            if variable is not None and variable.value:
                return variable.value.rstrip("/"), name
        return "", "HF_ENDPOINT"

    @template_value
    def hub(self) -> str:
        return self._asked[0]

    @template_value
    def way(self) -> str:
        """By what the container would reach the outside: the proxy that it is told of, or none."""
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
            variable = self.container.env.get(name) if self.container else None
            if variable is not None:
                return f"the proxy {variable.value or variable.origin} that {name} names must let them pass"
        return "the container is told of no proxy, so where the network has one set HTTPS_PROXY, with the cluster's own names in NO_PROXY"

    @cached_property
    def _model(self) -> str:
        """The model that the line names, else the engine's."""
        model = self.captured.get("model") or (self.engine.value("model") if self.engine else None)
        return model if isinstance(model, str) else ""

    @property
    def _repository(self) -> str:
        """The model, where it is named as on a hub."""
        return self._model if _HUB_ID.fullmatch(self._model) else ""

    @template_value
    def with_owner(self) -> str:
        """The repository that a name without an owner may mean, or a folder that is called like what the server serves it as."""
        if "/" not in self._model:
            return with_owner(self._model) if self._model else ""
        served = self.engine.explicit("served_model_name") if self.engine else None
        names = (served.value if isinstance(served.value, list | tuple) else [served.value]) if served else []
        folder = f"/{self._model.strip('/')}".lower() if self._model.startswith("/") else ""
        return next((n for n in map(str, names) if _HUB_ID.fullmatch(n) and folder.endswith(f"/{n.lower()}")), "")

    @template_value
    def meant_model(self) -> str:
        """The repository that is meant where the name is one but for a slip of the pen; a gated one is there by its name."""
        return "" if self.captured.get("gated") else misspelt(self._repository)

    @template_value
    def search(self) -> str:
        """What to search the hub for; empty where the model is a folder."""
        return "" if self._model.startswith("/") else self._model.rpartition("/")[2]

    @template_value
    def chat_model(self) -> str:
        """The copy of a model, where its name says that it was made for chats."""
        return self._model if made_for_chats(self._model) and not self._repository else ""

    @template_value
    def chat_repository(self) -> str:
        """The repository of the model, where its name says that it was made for chats."""
        return self._repository if made_for_chats(self._repository) else ""

    @template_value
    def licence(self) -> str:
        """The licence of the model, as a fix names it."""
        model = self._repository
        return f"the licence of {model} at {_HUB}/{model}" if model else "the model's licence"

    @template_value
    def store_keys(self) -> str:
        """What the storage initializer gets its keys for the model's store from."""
        secret = model_store.secret(self.container) if self.container else ""
        uri = model_store.address(self.container) if self.container else ""
        if not secret and uri.startswith(("http://", "https://")) and ".blob.core.windows.net/" not in uri:
            return "a Secret that its secrets name, with https-host and headers (JSON)"
        return f"Secret {secret}" if secret else "a Secret that its secrets name, or a role"
