"""What programs print of a connection that was not made and of a name without an address, and how they name whom they asked.

Go's net, libuv, Python's sockets with urllib3, requests, aiohttp and httpx on top, Java's, curl's and reqwest's; nginx, Apache,
Caddy, lighttpd, HAProxy, Traefik and Envoy.
"""

from collections.abc import Mapping

#: Pieces of a line by which it is found: of a connection that nobody took, of one that got no answer, of a name without an address.
REFUSED = (
    "efused", "ECONNREFUSED", "onnect call failed", "ll connection attempts failed", "Connection error.",
    "No route to host", "EHOSTUNREACH", "Layer4 connection problem", "ould not connect", " SC--", " sC--", " UF",
    '"UF',
)  # fmt: skip
SILENT = ("imed out", "imeout", "ETIMEDOUT", "Layer4 timeout")
#: A line of the second kind has one of these besides: a setting that is printed is no timeout.
TIMED_OUT = r"(?i)timed[ -]?out|ETIMEDOUT|i/o timeout|Connect ?Timeout|TimeoutE|Layer4 timeout|timeout (?:exceeded|expired|reached)"
NAMELESS = (
    "no such host", "ENOTFOUND", "EAI_AGAIN", "ame or service not known", "nodename nor servname",
    "ailed to resolve '", "ould not resolve host", "UnknownHostException", "failed to lookup address",
    "could not be resolved (",
)  # fmt: skip

#: What Python says of TLS with a server that answered.
TLS_ANSWERED = ("[SSL: ", "SSLError", "SSLCertVerificationError")

#: Whom such a line names: by a URL; in words of its own, as Python, aiohttp, curl and Envoy write it; and bare, which must lead somewhere.
HOST = r"[a-zA-Z0-9](?:[\w-]{0,62}\.){0,8}[\w-]{0,62}"
URL = rf"(?P<scheme>https?)://(?P<host>{HOST})(?::(?P<port>\d{{1,5}}))?(?=[/?#\s\"'\\,)}}\]]|$)"
STATED = (
    URL,
    rf"host='(?P<host>{HOST})', port=(?P<port>\d{{1,5}})",
    rf"to host (?P<host>{HOST}):(?P<port>\d{{1,5}})",
    rf"(?:Failed|attempt|Could not|Unable|ailed) to connect to (?P<host>{HOST})(?: port |:)(?P<port>\d{{1,5}})",
    rf"Error -?\d{{1,4}} connecting to (?P<host>{HOST}):(?P<port>\d{{1,5}})",
    rf"socket: tcp:(?P<host>{HOST}):(?P<port>\d{{1,5}})",
    r"remote host \((?P<host>\d{1,3}(?:\.\d{1,3}){3})\)",
    rf"outbound\|(?P<port>\d{{1,5}})\|[\w-]{{0,80}}\|(?P<host>{HOST})",
    rf"(?:lookup(?! address information)|ENOTFOUND|EAI_AGAIN|UnknownHostException:|resolve host:?|to resolve) '?(?P<host>{HOST})",
    rf"(?<![\w.-])(?P<host>{HOST}) could not be resolved \(",
)
BARE = r"(?<![\w.:/-])(?P<host>[a-z0-9](?:[\w-]{0,62}\.){0,8}[\w-]{0,62})(?:/[\d.]{7,15})?(?::|', )(?P<port>\d{2,5})(?!\d|[.:]\d)"
_DEFAULT_PORTS = {"http": 80, "https": 443}

#: A connection that timed out while it was made; not one of a pool, or that was made before.
_CONNECTED_LATE = r"\b[Cc]onnect(?:ion|ing)?\b(?: attempt)?(?: (?:to|with) \S{1,100})?\W{1,4}timed out"

#: A connection that got no answer, and in the same expression for whom it was; each after a piece of text that finds its line.
#: Sources: Prisma's P1001, Go's net, libpq, urllib3, requests, aiohttp, redis-py, etcd and NATS clients, Ray, undici, Node's net,
#: Netty, curl, reqwest, nginx. A name that does not resolve, or an answer that refuses, is none.
NOT_CONNECTED = (
    ("Can't reach database server at", r"at `?(?P<host>[\w.-]+)`?:`?(?P<port>\d+)"),
    ("i/o timeout", r"dial tcp (?P<host>[\w.-]+):(?P<port>\d+): i/o timeout"),
    ("i/o timeout", r"https?://(?P<host>[\w.-]+):(?P<port>\d{1,5})[^ ]{0,400}\"?: dial tcp [\d.]+:\d+: i/o timeout"),
    ("timed out", r"connection to server at \"(?P<host>[\w.-]+)\"[^,]*, port (?P<port>\d+) failed: .*timed out"),
    ("ConnectTimeout", r"host='(?P<host>[\w.-]+)', port=(?P<port>\d+)"),
    ("timed out", r"(?:onnect(?:ing|ion)? to|onnect to) (?:\w+://)?(?P<host>[\w.-]+):(?P<port>\d+)\b.{0,80}timed out"),
    ("Failed to connect to GCS at address", r"at address (?P<host>[\w.-]+):(?P<port>\d+)"),
    ("Connection timeout to host", r"to host https?://(?P<host>[\w.-]+):(?P<port>\d+)"),
    ("Connect Timeout Error", r"attempted address(?:es)?: (?P<host>[\w.-]+):(?P<port>\d+)"),
    ("connect ETIMEDOUT", r"connect ETIMEDOUT (?P<host>[\d.]+):(?P<port>\d+)"),
    ("onnection timed out", r"onnection timed out(?: after \d+ ms)?: (?P<host>[\w.-]+)/[\d.]*:(?P<port>\d+)"),
    # aiohttp says no more, whether it was refused or got no answer
    ("Connect call failed", r"Cannot connect to host (?P<host>[\w.-]+):(?P<port>\d+) ssl:\w+ \[Connect call failed"),
    # curl, which says of a refusal that it came at once
    (
        "Failed to connect to ",
        r"Failed to connect to (?P<host>[\w.-]+) port (?P<port>\d+)(?: after \d{5,9} ms\b|: Connection timed out)",
    ),
    # reqwest, hyper
    (
        "tcp connect error: ",
        r"https?://(?P<host>[\w.-]+):(?P<port>\d{1,5})[/)].{0,300}tcp connect error: (?:Connection timed|deadline has)",
    ),
    # what says it in words of its own: by whom it asked and that a connection was not made, in one line
    ("imed out", rf"https?://(?P<host>[\w.-]+):(?P<port>\d{{1,5}})\b.{{0,200}}{_CONNECTED_LATE}"),
    ("imed out", rf"{_CONNECTED_LATE}\b.{{0,200}}https?://(?P<host>[\w.-]+):(?P<port>\d{{1,5}})\b"),
    # nginx; 113 is EHOSTUNREACH, as a network plugin answers that rejects what a policy forbids
    (
        "while connecting to upstream",
        r"\((?:110|113): [^)]{1,60}\) while connecting to upstream.{0,2000}"
        r"upstream: \"\w{4,5}://(?P<host>[\w.-]{1,253}):(?P<port>\d{1,5})",
    ),
    ("imed out", r"imed out (?:while |when )?connecting to (?:https?://)?(?P<host>[\w.-]{1,253}):(?P<port>\d{1,5})\b"),
)

#: A request that got no answer in time, whether it was taken or not, each found by one of the pieces of text before them: only what
#: the server saw says which. Who waited for the answer had a connection.
ASKED_URL = r"https?://(?P<host>[\w.-]{1,253}):(?P<port>\d{1,5})\b"
_OUT_OF_TIME = r"(?:[Tt]imed out|Timeout(?:Error|Exception)|[Tt]imeout exceeded)"
UNANSWERED = (
    ("imed out", "imeout"),
    (rf"{ASKED_URL}.{{0,300}}{_OUT_OF_TIME}", rf"{_OUT_OF_TIME}.{{0,300}}{ASKED_URL}"),
)
HAD_A_CONNECTION = r"Read ?timed ?out|Read ?Timeout|[Rr]eading data|read timeout="

#: What httpx raises without a word of whom it asked: the client names that elsewhere, in its log or in its environment.
TIMED_OUT_UNNAMED = ("ConnectTimeout", r"^(?:httpx|httpcore)\.ConnectTimeout\b")

#: What a proxy says (Envoy's access log): the address of the pod that it could not connect to in time.
NOT_CONNECTED_BY_PROXY = ("{connection_timeout}", r"[\"\s](?P<host>\d{1,3}(?:\.\d{1,3}){3}):(?P<port>\d{1,5})[\"\s]")

#: A connection to an address outside, or to a name that is none of the cluster's, that got no answer. Sources: Go's net, urllib3.
NOT_CONNECTED_OUTSIDE = (
    ("i/o timeout", r"dial tcp (?P<whom>\d{1,3}(?:\.\d{1,3}){3}):(?P<port>\d+): i/o timeout"),
    (
        "Max retries exceeded",
        r"host='(?P<whom>[\w-]+(?:\.[\w-]+){1,6})', port=(?P<port>\d+)\): Max retries exceeded.{1,600}timed out",
    ),
)

#: A resolver that got no answer: the C library's, Node's, Go's. A name that does not exist is none.
DNS_SILENT = ("Temporary failure in name resolution", "getaddrinfo EAI_AGAIN", ":53: i/o timeout", ":53: connect: ")


def port_in(found: Mapping[str, str | None]) -> int | None:
    """The port of an address that a pattern found: as it stands there, or by its scheme."""
    port = found.get("port") or _DEFAULT_PORTS.get(found.get("scheme") or "")
    return int(port) if port else None
