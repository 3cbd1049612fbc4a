"""Whether a place in a line is part of what the line says, or of a text that it carries beside that.

`{"msg": "chat", "note": "why CUDA error …?"}` says "chat", and quotes somebody. What a program says of itself stands under a
name that tells so (`msg`, `error`, `detail`), or under none.
"""

from __future__ import annotations

from kubectl_llmdoctor.expressions import expression

#: A name and the string under it: `{"note": "…"`, `, \"note\":[\"…\"`, `note="…"`; what is a text by its name also behind a colon,
#: `chunk 7: "…"`; not `cannot load "m": "…"`.
_FIELD = expression(
    r"(?:[{,]\s{0,2}\\{0,7}[\"'](?P<key>[@\w.-]{1,60})\\{0,7}[\"']\s{0,2}:|(?<![\w.-])(?P<word>[A-Za-z_][\w.-]{0,60})="
    r"|\b(?P<text>(?i:prompt|question|chunk|passage|snippet|sentence|transcript(?:ion)?|utterance))(?: #?\d{1,9})?:)"
    r"\s{0,2}(?:\[\s?)?[bfru]?(?P<open>\\{0,7}[\"'])"
)
#: How fields are called in which a program speaks of itself, or repeats what another program said: by a part of the name, or by
#: one of its words, with Serilog's `@m`, `@mt` and `@x`.
_SPEAKS = expression(
    r"(?i)msg|message|err|fail|exception|reason|cause|detail|description|stack|trace|warning|fatal|panic|std(?:out|err)|payload"
    r"|(?:^|[._-])(?:exc|exc_info|exc_text|status|state|conditions?|events?|logs?|lines?|text|body|content|data|response|results?"
    r"|resp|reply|output|hint|info|raw|record|entry|tail|value|why|problem|issue|cmd|command|args?|@mt?|@x)s?(?:$|[._-])"
)
#: Where a word begins in a name that has a capital there: `responseBody`, `LogEntry`.
_WORD = expression(r"(?<=[a-z])(?=[A-Z])")
#: What people and models say in spite of such a word.
_OTHERS = expression(r"(?i)^(?:user|tool|chat|customer|assistant|human|conversation)[_.-]?[a-z]")
#: So many fields of a line are looked at.
_MOST_FIELDS = 100


def carried(text: str, at: int) -> bool:
    """Whether a place stands in the string of a field in which nobody speaks of the program that wrote the line."""
    begin = 0
    for _ in range(_MOST_FIELDS):
        field = _FIELD.search(text, begin, at)
        if field is None:
            return False
        begin = field.end()
        end = _end(text, begin, field["open"])
        if 0 <= end <= at:
            begin = end + 1
        elif not _SPEAKS.search(
            name := _WORD.sub("_", field["key"] or field["word"] or field["text"])
        ) or _OTHERS.search(name):
            return True
    return False


def _end(text: str, begin: int, quote: str) -> int:
    """Where the string that begins there ends: at the same quote, with no more backslashes before it; -1 where nowhere."""
    at = text.find(quote, begin)
    while at > begin and text[at - 1] == "\\":
        at = text.find(quote, at + len(quote))
    return at
