"""Roles of AWS that do not trust the service account which would take them (IRSA): no policy of the role mends that."""

from kubectl_llmdoctor.api import Cluster, Fix, expression, fixes

#: What STS answers where the trust policy of a role leaves out the account; what the role may do is not asked until then.
_UNTRUSTED = expression(
    r"(?:Not authorized to perform sts:|AccessDenied[^\n]{0,120} calling the )AssumeRoleWithWebIdentity"
)
_ROLE = "eks.amazonaws.com/role-arn"


def untrusted(text: str) -> bool:
    """Whether STS refuses the role itself."""
    return _UNTRUSTED.search(text[:4000]) is not None


def role_of(cluster: Cluster, namespace: str, account: str) -> str:
    """The role that a service account names in its annotation."""
    annotations = cluster.field("ServiceAccount", namespace, account, "metadata.annotations")
    return str(annotations.get(_ROLE) or "") if isinstance(annotations, dict) else ""


def trusting(cluster: Cluster, namespace: str, account: str, again: str) -> Fix:
    """The trust policy of the account's role; `again`: what takes the role anew then."""
    arn = role_of(cluster, namespace, account)
    name = arn.rpartition("/")[2] or "ROLE"
    role = arn or f"the role in the annotation {_ROLE} of service account {account}"
    return fixes.platform(
        f"Let the trust policy of {role} take service account {account} of {namespace}: Action sts:AssumeRoleWithWebIdentity, as Principal "
        "the OIDC provider of this very cluster, and in the Condition sub = "
        f"system:serviceaccount:{namespace}:{account} and aud = sts.amazonaws.com; what the role may do is not asked before that",
        f"aws iam get-role --role-name {name} --query Role.AssumeRolePolicyDocument > trust.json",
        "aws eks describe-cluster --name CLUSTER --query cluster.identity.oidc.issuer",
        f"aws iam update-assume-role-policy --role-name {name} --policy-document file://trust.json",
        again,
    )
