"""Tokens and keys that the container's variables hold, and whom the pod acts as."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import get_args

from kubectl_llmdoctor.advice.declared import Condition, OfCredentials
from kubectl_llmdoctor.advice.occurrence import Topic
from kubectl_llmdoctor.advice.templates import Value
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.fixes import maker
from kubectl_llmdoctor.template_values import template_value
from kubectl_llmdoctor.tree import rows

#: What a variable is called that is to hold a token for Hugging Face's hub.
_TOKEN = expression(r"(?:HF|HUGGING_?FACE(?:_?HUB)?)_(?!HUB_DISABLE)(?:[A-Z]+_)*(?:TOKEN|KEY)")

#: Those that are read: by huggingface_hub and hf-hub, and the one that Text Embeddings Inference reads besides.
_TOKENS_READ = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN"})

#: The variables that NIM reads its key from, the first that is there.
_NGC_KEYS = ("NIM_NGC_API_KEY", "NGC_API_KEY")

#: The releases since which images read HF_TOKEN; those before read HUGGING_FACE_HUB_TOKEN alone, and Text Embeddings Inference
#: HF_API_TOKEN, which its later releases read as well.
_KNOW_HF_TOKEN = {"vllm": "0.2.1", "tgi": "1.2.0", "tei": "1.6.1"}

#: The library by itself: an image for downloads, named by its release, or as pip installs it.
_LIBRARY = expression(
    r"(?:\bhuggingface/downloader:v?|\bhuggingface[-_]hub(?:\[[\w,-]{1,40}\])?==)0\.(?P<minor>\d{1,3})(?:\.\d{1,3})?(?![\w.])"
)
#: Its first release, 0.19, that reads HF_TOKEN.
_LIBRARY_KNOWS = 19

#: What a variable is called that is to hold one of the two keys for an object store.
_KEY = expression(r"(?:AWS|S3|MINIO)_(?:[A-Z]+_)*(?:ACC?ESS?|SECRETS?)_?KEY(?:_?ID)?")

#: By which a token or keys come from somewhere else, so that no variable need hold them.
_TOKEN_ELSEWHERE = ("HF_TOKEN_PATH",)
_KEYS_ELSEWHERE = (
    *("AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_PROFILE"),
    *("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
)


def _words(container: Container) -> str:
    """The command with its arguments: a script in it may hand on what has another name."""
    return " ".join(container.spec.argv)


class Credentials(Topic):
    """The token for the hub, the keys for an object store, the account."""

    decides = get_args(OfCredentials)

    def values(self) -> dict[str, Value]:
        return super().values() | {
            "token_variable": lambda: self._misnamed_token,
            "token_at": lambda: self._index_of(self._misnamed_token),
            "token_meant": lambda: self._token_meant,
            "token_secret": lambda: self._token_of[0],
            "token_key": lambda: self._token_of[1],
            "lent_secret": lambda: self._lent_secret,
            "ngc_secret": lambda: self._ngc_key_of[0],
            "ngc_key": lambda: self._ngc_key_of[1],
            "key_variable": lambda: self._misnamed_key[0],
            "key_meant": lambda: self._misnamed_key[1],
            "key_at": lambda: self._index_of(self._misnamed_key[0]),
            "aws_role": lambda: self._aws_role or "the role that it names in eks.amazonaws.com/role-arn",
            "aws_role_name": lambda: self._aws_role.rpartition("/")[2] or "ROLE",
        }

    def _holds(self) -> Iterator[Condition]:
        yield "token misnamed" if self._misnamed_token else "no token misnamed"
        yield "key misnamed" if self._misnamed_key[0] else "no key misnamed"
        yield self._token_given
        yield "NGC key in a Secret" if all(self._ngc_key_of) else "no NGC key in a Secret"
        yield "variables of a Secret not known" if self._unread_variables else "all variables known"

    @property
    def _unread_variables(self) -> bool:
        """Whether the container takes all the keys of a Secret for variables, of which nothing is known."""
        container = self.container
        names = [s.secret_ref.name for s in container.spec.env_from if s.secret_ref] if container else []
        return any(self.subject.cluster.item("Secret", self.subject.namespace, name) is None for name in names)

    @cached_property
    def _misnamed_token(self) -> str:
        """The variable that holds a token for the hub, where it is none of those that the hub's libraries read."""
        container = self.container
        if container is None or container.spec.env_from or any(name in container.env for name in _TOKEN_ELSEWHERE):
            return ""  # the one that is read may come from there
        named = [n for n, v in container.env.items() if _TOKEN.fullmatch(n) and v.value != ""]
        read = _TOKENS_READ - self._unread_token
        strange = [n for n in named if n not in read and n not in _words(container)]
        return strange[0] if strange and len(strange) == len(named) else ""

    @property
    def _token_meant(self) -> str:
        """The variable that the release surely reads a token from."""
        if not (self._before_hf_token or self._old_library):
            return "HF_TOKEN"
        return "HF_API_TOKEN" if self.engine and self.engine.name == "tei" else "HUGGING_FACE_HUB_TOKEN"

    @property
    def _before_hf_token(self) -> bool:
        """Whether the release is one that does not know HF_TOKEN, or may be: 1.6 of an image is its last 1.6 or its first."""
        first = _KNOW_HF_TOKEN.get(self.engine.name) if self.engine else None
        return first is not None and self.engine is not None and self.engine.at_least(first) is False

    @property
    def _unread_token(self) -> frozenset[str]:
        """What the release, or the library of the hub itself, does not read."""
        engine = self.engine
        never = {"HUGGING_FACE_HUB_TOKEN"} if engine and engine.name == "tei" else set()
        of_any = engine and engine.version and _KNOW_HF_TOKEN.get(engine.name, "").startswith(f"{engine.version}.")
        old = (self._before_hf_token and not of_any) or self._old_library
        return frozenset(never | {"HF_TOKEN"} if old else never)

    @property
    def _old_library(self) -> bool:
        """Whether the container runs a release of huggingface_hub before 0.19 by its image or its command."""
        container = self.container
        words = f"{container.spec.image} {_words(container)[:20_000]}" if container else ""
        told = _LIBRARY.search(words)
        return told is not None and int(told["minor"]) < _LIBRARY_KNOWS

    @cached_property
    def _token_of(self) -> tuple[str, str, bool]:
        """The Secret that a token for the hub is from, its key there, and whether that is known; else what fixes call them."""
        variables = self.container.env if self.container else {}
        told = [variables[name].origin for name in sorted(_TOKENS_READ & variables.keys())]
        secret, _, key = next((x for x in told if x.startswith("Secret ")), "").removeprefix("Secret ").partition("/")
        return (secret, key, True) if secret and key else ("hf-token", "HF_TOKEN", False)

    @property
    def _lent_secret(self) -> str:
        """The Secret that a server beside has its token from, as HF_TOKEN, where this container of the pod is given none."""
        if self.pod is None or self.container is None or _TOKENS_READ & self.container.env.keys():
            return ""
        every = (c for c in self.pod.containers if c.role != "init" and c is not self.container)
        told = (c.env["HF_TOKEN"].origin for c in every if "HF_TOKEN" in c.env)
        # KServe looks into the Secrets of the service account for a key of that very name
        named = (x.removeprefix("Secret ").partition("/") for x in told if x.startswith("Secret "))
        account = self.subject.cluster.item("ServiceAccount", self.pod.namespace, self.account)
        has = {str(row.get("name")) for row in rows(account.raw, "secrets")} if account is not None else set()
        return next((secret for secret, _, key in named if key == "HF_TOKEN" and secret not in has), "")

    @cached_property
    def _ngc_key_of(self) -> tuple[str, str]:
        """The Secret that the key for NVIDIA's registry is from, and its key there."""
        variables = self.container.env if self.container else {}
        told = next((variables[name].origin for name in _NGC_KEYS if name in variables), "")
        secret, _, key = told.removeprefix("Secret ").partition("/") if told.startswith("Secret ") else ("", "", "")
        return secret, key

    @template_value
    def token_maker(self) -> str:
        """` (ExternalSecret/hub makes it: …)`: what writes the Secret of the token again, where something does."""
        item = self.subject.cluster.item("Secret", self.subject.namespace, self._token_of[0])
        by = maker(item) if item else ""
        return f" ({by} makes that Secret and writes it again: renew it where that takes it from)" if by else ""

    @property
    def _token_given(self) -> Condition:
        """How the container gets a token for the hub, by variables that its libraries read."""
        variables = self.container.env if self.container else {}
        if not _TOKENS_READ & variables.keys():
            return "no token given"
        return "token in a Secret" if self._token_of[2] else "token given"

    @cached_property
    def _misnamed_key(self) -> tuple[str, str]:
        """The variable that holds a key for an object store under a name that boto does not read, and the name that it does."""
        container = self.container
        if container is None or container.spec.env_from or any(name in container.env for name in _KEYS_ELSEWHERE):
            return "", ""
        for name, variable in container.env.items():
            meant = "AWS_SECRET_ACCESS_KEY" if "SECRET" in name else "AWS_ACCESS_KEY_ID"
            if not _KEY.fullmatch(name) or variable.value == "" or name in _words(container):
                continue
            if (read := container.env.get(meant)) is None or read.value == "":
                return name, meant
        return "", ""

    def _index_of(self, name: str) -> str:
        """The place of a variable in the container's own list."""
        own = [variable.name for variable in self.container.spec.env] if self.container else []
        return str(own.index(name)) if name in own else "0"

    @cached_property
    def _aws_role(self) -> str:
        """The role of AWS that the pod's service account names."""
        return self._of_account("eks.amazonaws.com/role-arn")

    @template_value
    def google_account(self) -> str:
        """The account of Google Cloud that the pod's service account acts as."""
        return self._of_account("iam.gke.io/gcp-service-account") or "GOOGLE_ACCOUNT"

    def _of_account(self, key: str) -> str:
        """An annotation of the pod's service account."""
        item = self.subject.cluster.item("ServiceAccount", self.subject.namespace, self.account)
        return str(item.annotations.get(key) or "") if item else ""
