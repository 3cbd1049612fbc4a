"""Which controller an Ingress is for."""

from __future__ import annotations

from kubectl_llmdoctor.api import Item, dig

#: How an Ingress named its class before there was a field for it; controllers still take it.
CLASS_ANNOTATION = "kubernetes.io/ingress.class"


def class_of(ingress: Item) -> str:
    """The name of the class, in its new or its old place; empty where none stands."""
    return str(dig(ingress.raw, "spec.ingressClassName") or ingress.annotations.get(CLASS_ANNOTATION) or "")
