"""Masks secrets, prompts and completions in text and in Kubernetes objects, keeping what a diagnosis needs of them."""

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

_MAX_DEPTH = 100
_MAX_OPEN_LINES = 2000  # a block whose end never comes must not swallow the rest of a log
_MOST_LOOKED = 16  # so many times a character is looked at in strings that are kept, nested or badly quoted
_SHORT = 256  # a text of no more characters is remembered: thousands of objects hold the same
_MAX_PASSES = 8  # a mask can uncover a name that was glued to the secret, and masking twice must change nothing

# Fragments: what may stand between a name and its sign; a string of Python, JSON, or JSON in JSON; an expression of a
# shell or a template; the time that the kubelet puts before each line; a number or coding after a name (API_KEY_2).
_CLOSE = r"""[\\"'`\])]{0,4}[ \t]{0,40}+"""
_STRING = r"""(?:[bBrRuUfF]?(?:'[^'\\]*+(?:\\.[^'\\]*+)*+'?|"[^"\\]*+(?:\\.[^"\\]*+)*+"?)
    |(?P<esc>\\{1,7}["']|\\x22).*?(?:(?<!\\)(?<!\\x5C)(?P=esc)|$))"""
_EXPRESSION = r"(?:<[^<>]{0,100}>|\$\{[^{}]{0,200}\}|\$\([^()]{0,200}\)|\{\{[^{}]{0,200}\}\}|`[^`]{0,200}`)"
_STAMP = r"(?:\d{4}-\d\d-\d\dT\S{1,40}[ \t])?"
# what stands between the name of what somebody said and that: "content": "…", \"content\":\"…\", \x22content\x22:\x22…,
# content='…', and in Rust content: Text("…")
_SAYS = r"""(?:[\\"']{0,8}|\\x22)[ \t]?[:=][ \t]{0,8}(?:[\\"'\[]|[bfru][\\"']|(?:text|some|string)\()"""
_NUMBERED = r"(?:[_.-]{1,9}(?:\d{1,4}|b64|base64|value))?+"

# Anchors in lower-cased bytes: a line without any holds nothing to mask. Each begins with a literal, which `re` finds
# at 2 GB/s; one alternation of whole words would take longer than all of these together.
_ANCHORS = (
    # HF_TOKEN=…  --hf-token …  - name: HF_TOKEN  next token: 264 ' a'; not time_per_token="13ms"  token usage: 0.3
    # --api-key …  'api_key': [  -----BEGIN PRIVATE KEY-----  sk-…  AKIA…  Cookie:
    rf"""k(?:en(?!s)(?<!_per_token){_NUMBERED}(?:
            {_CLOSE}[:=]>?[ \t]{{0,16}}+(?!(?:\d+(?:\.\d+)?|none|true|false|null)(?:[,;)}}\]]?(?:\s|$)))
            |(?<=[-_]token)[\\"'`]{{0,4}}[, \t]|["']?,?(?:[\r\n]|$)|(?:[ \t]+\d+)?:[ \t]+\d+[ ]')
        |(?<=ask)(?:s|ed):[ ]|ey-----|ey(?:(?<=[-_]key)|(?<=pikey))s?{_NUMBERED}[\\"'`\])]{{0,4}}(?:[\s,]|$)
        |ey(?<=[a-z_-]key)s?{_NUMBERED}{_CLOSE}[:=]|-[a-z0-9_-]{{16}}|ia[a-z0-9]{{16}}|ie{_NUMBERED}{_CLOSE}[:=])""",
    # prompt: '…'  prompt_token_ids: [  Input: …  Parsing input with format …  nvapi-…  glpat-…  --password …  DB_PWD=
    # Prompt (after templating): …  Prompt after formatting:  completion="…"
    rf"""p(?:rompts?(?:_token_ids)?(?:[\\"']{{0,3}}[ \t]?=(?!\d*(?:\s|$))|{_SAYS}|:[ ]|[ ](?:\(after|after[ ]formatting))
        |ut(?:s|_ids|_token_ids|_values?)?(?:{_SAYS}|(?<=[ "]input):[ ]|(?<=[ "]output):[ ]
            |[ ]with[ ]format|[ ]modified[ ]to:)|letions?{_SAYS}
        |i-[a-z0-9_-]{{16}}|at[_-][a-z0-9_-]{{12}}|wd{_NUMBERED}{_CLOSE}[:=]
        |ass(?:w(?:or)?d|phrase|(?<=[a-z_-]pass)){_NUMBERED}[\\"'`\])]{{0,4}}(?:[\s:=,]|$))""",
    # hf_…  ghp_…  Authorization:  "auth": "…"  -hft …
    rf"""h(?:f_(?:[a-z0-9]{{16}}|(?=[a-z]*\d[a-z]*\d)[a-z0-9]{{10}})|[pousr]_[a-z0-9]{{16}}|ft[ \t=]
        |orization{_NUMBERED}{_CLOSE}[:=,]|(?<=auth){_CLOSE}[:=])""",
    # CLIENT_SECRET=…  X-Amz-Credential=…  "content": "…"
    rf"""c(?:ret{_NUMBERED}[\\"'`\])]{{0,4}}(?:[\s:=,]|$)|redentials?{_NUMBERED}{_CLOSE}[:=,]
        |ontents?{_SAYS})""",
    # ?sig=…  Signature=…  msg=decoded string=…  'messages': [  api_org_…
    rf"""g(?:(?<=sig)=|nature=|(?<=string)=|es{_SAYS}|(?<=user_messag)e{_SAYS}|(?<=[ ]messag)e:[ ]|_[a-z0-9]{{16}})""",
    r"b(?:earer|asic)[ \t]",
    rf"""x(?:ox[a-z]-|ts?{_SAYS})""",  # xoxb-…  text='…'
    rf"""q(?:uery|uestion)s?(?:{_SAYS}|:[ ])""",  # "question": "…"  user query: …
    rf"""w(?<=answ)ers?{_SAYS}""",
    rf"""u(?<=tool_resu)lts?{_SAYS}""",
    r"j(?<=eyj)[a-z0-9_-]{8}",
    r"za(?<=aiza)[a-z0-9_-]{30}",
    r"ya29\.",
    r"""://[^\s/:@"'<>]{0,200}:(?!\d{1,5}/)[^\s"'<>]{1,300}@""",
)

# What a secret is by its own form; `sk-` is everybody's, so there the name decides.
_FORMS = {
    "hf_": "hf-token",
    "api_org_": "hf-token",
    "AKIA": "aws-key-id",
    "ASIA": "aws-key-id",
    "gh": "github-token",
    "github_pat_": "github-token",
    "glpat-": "gitlab-token",
    "xox": "slack-token",
    "sk-ant-": "anthropic-key",
    "sk-": "api-key",
    "nvapi-": "ngc-key",
    "AIza": "google-key",
    "ya29.": "google-token",
    "eyJ": "jwt",
}

# Every pattern takes linear time: what repeats a repetition is possessive, what may overlap itself is bounded.
_PATTERNS = {
    "mask": r"(?:\w{1,20}[ ])?<masked:[\w+.-]{1,60}>",
    # hf_Qd8s…  AKIAIOSFODNN7EXAMPLE  ghp_…  sk-proj-…  xoxb-…  eyJhbGci….eyJzdWIi….c2ln; not hf_transfer, task-…
    "form": r"""
        hf_(?<![A-Za-z0-9]...)(?:[A-Za-z0-9]{16,}+|(?=[A-Za-z]*\d[A-Za-z]*\d)[A-Za-z0-9]{10,}+)
        |api_org_(?<![A-Za-z0-9].{8})[A-Za-z0-9]{16,}+|A[KS]IA(?<![A-Za-z0-9].{4})[A-Z0-9]{16}(?![A-Za-z0-9])
        |gh(?<![A-Za-z0-9]..)[pousr]_[A-Za-z0-9]{20,}+|github_pat_(?<![A-Za-z0-9].{11})\w{20,}+
        |sk-(?<![\w-]...)(?:(?:ant|proj|svcacct|admin|or|lf|None)-[\w-]{16,}+|\w{20,}+)
        |nvapi-(?<![\w-].{6})[\w-]{20,}+|glpat-(?<![\w-].{6})[\w-]{16,}+|xox(?<![\w-]...)[a-z]-[\w-]{10,}+
        |AIza(?<![\w-].{4})[\w-]{35}(?![\w-])|ya29\.(?<![\w-].{5})[\w-]{20,}+
        |eyJ(?<![\w-]...)[\w-]{8,}+\.[\w-]{8,}+\.[\w-]*+""",
    # HF_TOKEN, hfToken, --api-keys, X-Amz-Credential, all in snake case; not HF_TOKEN_PATH, MAX_TOTAL_TOKENS
    "name": r"""(?:
        (?P<hf_token>(?:^|_)(?:hf|hub|hugging_?face|hugging_?face_?hub)(?:_?(?:api|access|hub))?_?(?:token|api_?key)|^hft)
        |(?P<ngc_key>(?:^|_)ngc_(?:\w{1,60}_)?key)|(?P<aws_key_id>(?:^|_)access_key_id|amz_credential)
        |(?P<authorization>(?:^|_)authorization)|(?P<basic_auth>^basic_auth)|(?P<registry_auth>^auth)
        |(?P<password>passw(?:or)?d|passphrase|requirepass|_pwd|(?:^|_)(?:admin|db|mysql|pg|redis|root|smtp|user)_?pass)
        |(?P<cookie>(?:^|_)cookie)|(?P<secret_key>(?:^|_)secret_?(?:access_?)?key)|(?P<private_key>private_?key)
        |(?P<api_key>api_?keys?|(?:^|_)(?:access|account|admin|auth|encryption|master|signing|ssh|subscription)_?key)
        |(?P<secret>(?:^|_)(?:app|aws|client|consumer|cookie|hmac|jwt|minio|oauth|s3|session|shared|webhook)_?secret)
        |(?P<any_secret>(?:^|_)secret)|(?P<credentials>(?:^|_)credentials?)|(?P<signature>(?:^|_)(?:amz|goog)_signature)
        |(?P<token>(?:^|_|access|api|auth|bearer|csrf|id|refresh|session)token)
        )(?:_(?:\d{1,4}|b64|base64|value))?$""",
    # eos_token, decoder_start_token, time_per_token, IMAGE_PULL_SECRET: vocabulary, counters and references
    "no_name": r"""(?:^|_)(?:(?:audio|bos|cached|cls|completion|draft|end|eom|eos|eot|first|frame|generated|image|img
        |input|last|lf|mask|max|media|min|new|next|num|output|pad|per|placeholder|prev|prompt|reasoning|sep|special|start|stop
        |think|thinking|tool|total|unk|video|vision)_token|(?:image|pull|tls)_secret|x509_check_private_key)$""",
    # secret: hf-secret  checksum/secret: 9f86d081…  "secret": "not found in namespace serving"
    "reference": r"""(?![0-9a-f]{8}-[0-9a-f]{4}-)(?:[a-z0-9]{1,15}[./:-])*+[a-z0-9]{1,15}|[0-9a-f]{40}|[0-9a-f]{64}
        |[A-Za-z]{1,12}|(?:\S++\s++){3}.*""",
    # HF_TOKEN: huggingface-token, where the Secret's name stands for what is in it; a token of the Hub begins with hf_
    "name_of_secret": r"(?-i:(?:[a-z]{2,12}-){1,3}(?:token|secret))",
    "number": r"-?\d{1,10}(?:\.\d{1,10})?%?",
    "path": r"""(?:file:/|~|\.{1,2}|/(?:app|data|dev|etc|home|mnt|models?|opt|proc|root|run|secrets?|srv|tmp|usr|var
        |vault|vllm-workspace|workspace))/[\w.@~/-]{1,200}""",
    # in a folder that is not known: what a program makes up has no such ending, but a person may end a password so
    "file": r"/[\w.@/-]{1,200}\.(?:cer|cfg|conf|crt|env|ini|jks|json|key|p12|pem|pfx|toml|txt|ya?ml)",
    # <YOUR_TOKEN>  ${HF_TOKEN}  $(cat /run/secrets/hf)  {{ .Values.token }}  hf_xxxxxxxx  your-token-here  REPLACE_ME
    "placeholder": r"""<[^<>]*>|\$\{\w+(?::?[-?])?\}|(?-i:\$[A-Z_][A-Z0-9_]*)|\$oauthtoken|\$\([\w.-]+\)|%\(\w+\)s|@\w+@
        |__\w+__|\$\((?:cat|head|tr|base64|kubectl|aws|gcloud|vault|<)\s[^()]*\)|\$?\{\{[^{}]*\}\}|\{\w+\}
        |(?:hf_|sk-|nvapi-)?[x*.…-]{3,}|(?:hf_|sk-|nvapi-)(?-i:[A-Z_]{2,20})|(?-i:[A-Z_]{0,40}(?:TOKEN|KEYS?|SECRET|PASSWORD))
        |(?:hf_|sk-|nvapi-)?(?:[a-z]{2,8}[-_\s]){0,2}your[-_\s]?(?:[\w-]{0,40}[-_\s])?(?:token|key|secret|password|here|value)
        |(?:replace|change|insert|fill|edit|set|update)[-_\s]*(?:me|this|it|here)(?:[-_\s][\w-]{0,30})?
        |sk-no-key-required|(?:not?|un)[-_]?(?:needed|required|used|set|key|token)
        |none|null|nil|dummy|fake|empty|undefined|n/?a|todo|tbd|fixme|placeholder|example|redacted|hidden|masked""",
    # api_key='…'  "hf_token": "…"  HF_TOKEN=…  --api-key=…  --api-key …  '--api-key', '…'  x-api-key: …
    "setting": rf"""(?P<name>[\w.-](?<![\w.-].)[\w.-]*+)
        (?P<sign>{_CLOSE}(?:=>|:=|[:=])[ \t]*+|[\\"']{{0,4}}(?:,[ \t]*+|[ \t]++))""",
    # {"name":"HF_TOKEN","value":"…"}  {Name:HF_TOKEN Value:… ValueFrom:nil}
    "pair": r"""[Nn]ame(?<!\w....)\\{0,3}["']?[ \t]?[:=][ \t]?\\{0,3}["']?(?P<name>[\w.-]++)
        (?P<sign>\\{0,3}["']?(?:,[ \t]?|[ \t])\\{0,3}["']?[Vv]alue\\{0,3}["']?[ \t]?[:=][ \t]?)""",
    # api_key: Some("…")  'api_key': ['…', '…']
    "open": r"(?:(?:Some|SecretStr)\(|[\[(])[ \t]{0,16}(?:[\[(][ \t]{0,16})?",
    # token=self.token  api_key=os.environ["HF_TOKEN"]: the source line of a traceback
    "code": r"(?:[a-z_]+\.)+[a-z_]+(?:[(\[].*)?|(?:fetch|get|load|read|str)[a-z_]*\(.*",
    "comma": r",[ \t]{0,16}",
    "next": r"""(?:,[ \t]{0,16}|[ \t]{1,16})(?!["']?-|[&|;>\\]|\d>)""",
    "value": rf"""{_STRING}|{_EXPRESSION}(?=$|[\s"',;)}}\]&|\\])|[^\s"'&,;)}}\]|{{\[(][^\s"'&,;)}}\]|]*+""",
    "scheme": r"\s*(?P<scheme>Bearer|Basic|Token|ApiKey|Digest|Negotiate)[ \t]+",
    "header": rf"""{_STRING}|(?:(?:Bearer|Basic|Token|ApiKey|Digest|Negotiate)[ \t]+)?[^\s"',;)}}\]]++""",
    "crumbs": rf"""{_STRING}|[^"'\r\n]++""",
    "quoted": r"""(?s:(?P<head>[bBrRuUfF]?(?:\\{0,7}(?=["'])|(?=\\x22))(?P<quote>["']|\\x22))(?P<inner>.*?)
        (?P<tail>\\{0,7}(?P=quote))?)""",
    # cat: /run/secrets/cookie: Permission denied  open /etc/redis/password: no such file or directory
    "no_value": r"""(?:permission[ ]denied|operation[ ]not[ ]permitted|no[ ]such[ ]file[ ]or[ ]directory|read-only[ ]file[ ]system
        |(?:is[ ]a|not[ ]a)[ ]directory|file[ ]exists|no[ ]space[ ]left[ ]on[ ]device)(?![\w=-])""",
    # a line that is one setting: "  - HF_TOKEN: …", "export HF_TOKEN=…"; there the value goes to the end of the word
    "alone": rf"{_STAMP}[ \t]*(?:-[ \t]+|export[ \t]+|ENV[ \t]+)?",
    "word": r"""(?!(?:Some\(|\[|[|>][-+]?|\\)$)[^\s"'\[({]\S*""",
    # the value stands on the next line: "--api-key \", "- --api-key", "api_key: Some(", "- name: HF_TOKEN"
    "dangling": rf"""(?<![\w.-])(?:(?P<flag>--?[\w-]++)["']?[ \t]*,?[ \t]*\\?
        |name["']?[ \t]?:[ \t]?["']?(?P<pair>[\w.-]++)["']?,?
        |(?P<open>[\w.-]++){_CLOSE}[:=][ \t]{{0,16}}(?:Some\([ \t]*|\[[ \t]*|[|>][-+]?))$""",
    "item": rf"""(?P<head>{_STAMP}[ \t]*(?:-[ \t]+)?)(?P<key>["']?value["']?[ \t]?:[ \t]{{0,16}})?
        (?P<text>{_STRING}|[^\s"',].*?)(?P<tail>,?[ \t]*\\?)$""",
    # Illegal header value b'Bearer hf_…\n'
    "bearer": r"(?P<scheme>[Bb](?<![\w-].)(?:earer|EARER|asic|ASIC)[ \t]+)(?P<value>[\w.~+/=-]{6,}+)",
    "url": r"""(://[^\s/:@"'<>]{0,200}:)(?!\d{1,5}/)([^\s"'<>]{1,300})(?=@)""",
    "pem": r"-----BEGIN[ ][A-Z0-9 ]{0,40}PRIVATE[ ]KEY(?:[ ]BLOCK)?-----",
    "pem_line": rf"""(?P<head>{_STAMP}[ \t>|"'+]*)
        (?P<text>[A-Za-z0-9+/=]+|(?:Proc-Type|DEK-Info):.*|<masked:private-key>|)(?P<tail>(?:\\n)?["',]*\s*)""",
    # Received request cmpl-1: prompt: '…', params: …   Finish: obj=GenerateReqInput(text='…', …), out={'text': '…'}
    # msg="chat request" images=0 prompt="…"   srv  log_server_r: request:  {"messages":[…]}
    "request": r"""Received[ ]request[ ]|Request[ ]\S{1,200}[ ](?:details|JSON[ ]body):|Generated[ ]response[ ]|Finish:[ ]obj=
        |Receive:[ ]obj=|Receive[ ]OpenAI:[ ]obj=|request\.(?:received|finished)|request:[ ]+\{|response:[ ]+\{
        |response_body=|data:[ ]\{|message:[ ]\{|msg="(?:chat|generate|completion|embed)\w*[ ]request"
        |msg="?encoded|msg="?decoded|:[ ]Token:[ ]Token|messages(?:\\{0,7}["']|\\x22)?[ ]?[:=][ ]?\[[ ]?(?:\{|[A-Z]\w{1,40}[ ]?[({])
        |choices(?:\\{0,7}["']|\\x22)?[ ]?[:=][ ]?\[[ ]?(?:\{|[A-Z]\w{1,40}\()""",
    "prompt": r"""(?P<name>(?:prompt_token_ids|prompt[ ]token[ ]ids|output_token_ids|input_ids|output_ids|generated_text
        |negative_prompt|prompt|text|input|output|reasoning_content|content|messages|arguments|suffix|query|documents
        |string|from|ids|input_embeds|embedding|image_data|video_data|audio_data|input_token_logprobs|input_top_logprobs
        |output_token_logprobs|output_top_logprobs)s?)(?P<close>\\{0,7}["']|\\x22|)[ \t]?[:=][ \t]{0,8}
        (?:(?:Text|Some|String)\((?=["']))?""",
    # what people and models say, in a line that is not known to be a request; of `text`, `input` and `query` only words
    "said": r"""(?P<name>(?:(?:[a-z]{1,12}_){0,2}(?:prompt|content|question|answer)|pageContent|user_(?:message|input|query|text)
        |tool_(?:result|output)|completion|(?P<words>input_value|input|query|text))s?)(?P<close>\\{0,7}["']|\\x22|)[ \t]?[:=][ \t]{0,8}
        (?:(?:Text|Some|String)\((?=["']))?(?=(?:\[[ \t]?)?[bfru]?(?:\\{0,7}["']|\\x22))""",
    # User query: …  customer asked: …  Received question: …
    "spoken": r"""(?i:\b(?:(?:user|customer|human)(?:'s)?[ ](?:query|question|prompt|message|input|asks|asked)
        |(?P<does>answering|incoming|processing|received|rewritten)[ ](?:query|question|user[ ]query)):[ ]{1,4})
        (?!<masked:prompt>$)(?=\S).*""",
    # Error processing query: …  Failed while answering question: … tell what went wrong, not what was asked
    "failed": r"(?:[Ee]rror|[Ff]ail\w{0,4}|[Ee]xception|[Uu]nable|[Cc]ould[ ]not|[Cc]annot|[Pp]roblem)\b[ \w]{0,40}$",
    # a string is the answer of a server, of a proxy, or a page of one: what it says of an error is not masked as a whole
    "answer": r"""\s*(?:\{\s{0,4}(?:\\{0,7}["']|\\x22)(?:errors?|message|msg|details?|code|status|kind|object)\b|<(?:!|html)
        |(?:upstream[ ](?:connect[ ]error|request[ ]timeout)|no[ ]healthy[ ]upstream|stream[ ]timeout
            |(?:Internal[ ]Server[ ]Error|Bad[ ]Gateway|Service[ ]Unavailable|Gateway[ ]Time-?out)\s{0,4}$))""",
    # lines of a log as a field of one: {"text": "…", "record": {"elapsed": {…   {"_source_": "stderr", "content": "…"}
    "loguru": rf"""{_STAMP}\{{"(?P<name>text)":[ ]?{_STRING},[ ]?"record":[ ]?\{{"elapsed":""",
    "stored": r"""\"(?:_source_|stream)":[ ]?"std(?:out|err)\"""",
    # what follows the end of a string, and not a quote inside it
    "after": r"""\s{0,4}(?:[,}\])|;"'<]|\\|$|\.(?:\s|$|\.\.)|[\w.-]{1,40}=)""",
    "part": rf"""{_STRING}|[\[({{]|[\])}}]|[^\[\](){{}}"'\\]++|.""",
    "plain": r"[^\s,)}\]]*+",
    "ids": r"[\[(](?:[ \t]*-?\d+,?)*+[ \t]*[\])]",
    "cut": r"[ ]\.\.\.[ ](?=[\[(\"'])",
    # generate{…}: text_generation_router::server: router/src/server.rs:291: Input: <|im_start|>system (and more lines)
    "input": r"""text_generation_router\S{0,60}:[ ](?:\S{1,100}:[ ])?(?:Input|Output):[ ]
        |Parsing[ ]input[ ]with[ ]format[ ][^:]{1,80}:[ ]
        |Prompt[ ]\(after[ ]templating\):[ ]|Template[ ]found,[ ]input[ ]modified[ ]to:[ ]|Prompt[ ]after[ ]formatting:""",
    "json_input": r"""("message":"(?:Input|Output):[ ])[^"\\]*+(?:\\.[^"\\]*+)*+""",
    "router_line": r"""(?:\x1b\[[\d;]*+m)*+(?:\d{4}-\d\d-\d\dT\S{1,40}+\s++){1,2}+(?:\x1b\[[\d;]*+m|\s)*+
        (?:TRACE|DEBUG|INFO|WARN|ERROR)\b|\{"timestamp\"|\d{1,2}:\d\d[AP]M[ ](?:\x1b\[[\d;]*+m)*+[A-Z]{3}\b""",
    # what follows a prompt that has lost its colours, and with them the mark of its end
    "other_line": rf"""(?:{_STAMP})(?:\d{{4}}-\d\d-\d\d[ T]\d\d:\d\d|Traceback[ ]\(most|(?:DEBUG|INFO|WARNING|ERROR|CRITICAL):
        |>[ ](?:Entering|Finished)[ ])""",
    # a list of texts of which each stands on a line of its own
    "texts": r"""\\{0,3}["'](?:messages|(?:prompt|content|input|text|query)s?)\\{0,3}["'][ \t]?:[ \t]?\[[ \t]*$""",
    "one_text": rf"""(?P<head>{_STAMP}[ \t]*)(?P<text>[bfru]?["'].*["'])(?P<tail>,?[ \t]*)""",
    "next_token": r"((?:next|prompt)[ ]token(?:[ ]+\d+)?:[ ]+\d+[ ])'.*'",  # next token:   264 ' a'
}
# What follows "token:" or "--api-key" in a message, a signature or a usage line.
_WORDS = frozenset(
    """true false yes no on off none null nil str string int bool bytes float list dict optional any type auto default
    set missing unset not required invalid empty unknown expired valid found present incorrect wrong is was must has can
    cannot the and or for if requires expects given specified provided in to with via from flag option argument
    arguments instead enabled disabled""".split()  # noqa: SIM905
)


@cache
def _re(name: str) -> re.Pattern[str]:
    ignore_case = re.IGNORECASE if name in ("placeholder", "scheme", "header", "no_value") else 0
    return re.compile(_PATTERNS[name], re.ASCII | re.VERBOSE | ignore_case)


@cache
def _anchors() -> list[re.Pattern[bytes]]:
    return [re.compile(pattern.encode(), re.VERBOSE) for pattern in _ANCHORS]


@lru_cache(maxsize=8192)
def _kind(name: str) -> str:
    """What a value under this name is; empty where the name is that of a setting, a path or a reference."""
    snake = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name[-128:]).lower()).lstrip("_")
    found = _re("name").search(snake)
    if not found or not found.lastgroup or _re("no_name").search(snake):
        return ""
    return "secret" if found.lastgroup == "any_secret" and name.isupper() else found.lastgroup.replace("_", "-")


def is_placeholder(value: str) -> bool:
    """Whether a value only stands for a secret: `<YOUR_TOKEN>`, `REPLACE_ME`, `${HF_TOKEN}`, or the mask of one."""
    core = value.strip().strip("\"'`").strip()
    if core.startswith("<masked:"):
        return core.endswith("+placeholder>")
    return 0 < len(core) <= 200 and _stands_for_one(core)


@lru_cache(maxsize=1024)
def _stands_for_one(core: str) -> bool:
    return _re("placeholder").fullmatch(core) is not None


def mask_value(name: str, value: str) -> str:
    """The mask of one secret: its kind, and the stray whitespace or quotes that break authentication.

    Kept as they are: empty and blank values, placeholders, masks, and the scheme of an Authorization header.
    """
    core = value.strip()
    if not core or is_placeholder(core) or _re("mask").fullmatch(core):
        return value
    kind = _kind(name[-128:])
    if kind == "authorization" and (scheme := _re("scheme").match(value)):
        inner = "basic-auth" if scheme["scheme"].lower() == "basic" else "token"
        return scheme[0] + mask_value(inner, value[scheme.end() :])
    if core.startswith("-----BEGIN "):
        return "<masked:private-key>" if "PRIVATE KEY" in core[:60] else "<masked:certificate>"
    bare = core.removesuffix("\\n").removesuffix("\\r")
    token = bare.strip("\"'")
    form = next((form for start, form in _FORMS.items() if token.startswith(start)), "")
    if form and _re("form").match(token) and not (kind and form == "api-key"):
        kind = form
    after = value[len(value.rstrip()) :]
    flaws = (
        ("leading-space", value[0].isspace()),
        ("quotes", bare[:1] in ("'", '"') or bare[-1:] in ("'", '"')),
        ("trailing-space", bool(after.strip("\r\n"))),
        ("newline", "\n" in after or "\r" in after or bare != core),
    )
    label = kind if kind and kind != "any-secret" else "secret"
    return f"<masked:{'+'.join([label, *(flaw for flaw, there in flaws if there)])}>"


@lru_cache(maxsize=1024)
def _harmless(kind: str, value: str) -> bool:
    """Whether what stands under a secret's name is none: a placeholder, a flag, a path, a count, a Secret's name."""
    core = value.strip().strip("\"'")
    return (
        core.lower() in _WORDS
        or is_placeholder(core)
        or any(_re(rule).fullmatch(core) for rule in ("mask", "path"))
        or (kind != "password" and _re("file").fullmatch(core) is not None)
        or (kind in ("token", "hf-token") and _re("number").fullmatch(core) is not None)
        or (kind in ("any-secret", "credentials") and _re("reference").fullmatch(core) is not None)
        or (kind == "hf-token" and _re("name_of_secret").fullmatch(core) is not None)
        or (kind == "registry-auth" and not _is_base64(core))
        or not core
    )


def _is_base64(value: str) -> bool:
    return value.endswith("=") or (len(value) >= 8 and value.lower() != value and any(char.isdigit() for char in value))


def _plausible(value: str) -> bool:
    """Whether a word in running text looks like a secret: "token: expected" does not."""
    return len(value) >= (32 if value.isalpha() else 20) or (len(value) >= 6 and any(char.isdigit() for char in value))


def _is_code(name: str, sign: str, text: str) -> bool:
    return "=" in sign and name.islower() and (text == name or _re("code").fullmatch(text) is not None)


def _more(flag: str, text: str) -> bool:
    """Whether another word after `--api-key one` is a key too: vLLM and LMDeploy take several."""
    return flag.endswith("s") or ("/" not in text and _plausible(text))


def _mask_literal(name: str, kind: str, text: str) -> str:
    """Masks inside the quotes, so that what was Python, JSON or shell stays it."""
    quoted = _re("quoted").fullmatch(text)
    inner = quoted["inner"] if quoted else text
    if _harmless(kind, inner):
        return text
    return f"{quoted['head']}{mask_value(name, inner)}{quoted['tail'] or ''}" if quoted else mask_value(name, inner)


def _mask_values(line: str, found: re.Match[str], name: str, kind: str) -> tuple[str, int]:
    """The value or values after a name, masked, and where they end."""
    at, sign = found.end(), found["sign"]
    flag, spaced = ":" not in sign and "=" not in sign, sign[-1:] in (" ", "\t")
    if not flag and (spaced or name.isupper()) and _re("alone").fullmatch(line, 0, found.start()):
        whole = line[at:].rstrip().rstrip(",;")
        if _re("word").fullmatch(whole):
            return whole if _is_code(name, sign, whole) else _mask_literal(name, kind, whole), at + len(whole)
    out: list[str] = []
    opened = _re("open").match(line, at)
    if opened:
        out.append(opened[0])
        at = opened.end()
    rule = _re({"authorization": "header", "cookie": "crumbs"}.get(kind, "value"))
    while (value := rule.match(line, at)) and value[0] not in ("", "\\"):
        text = masked = value[0]
        quoted = _re("quoted").match(text) is not None
        prose = spaced and ":" in sign and not quoted and not opened and " " not in text
        if flag:
            doubtful = text.lstrip("\"'").startswith("-")
        else:
            doubtful = not opened and _is_code(name, sign, text)
        if not doubtful and not (prose and kind not in ("password", "cookie") and not _plausible(text)):
            masked = _mask_literal(name, kind, text)
        if masked != text and not quoted and not flag and sign[0] in "\"'":
            masked = f"{sign[0]}{masked}{sign[0]}"  # {"password": 1234} stays JSON
        out.append(masked)
        at = value.end()
        if not opened or not (comma := _re("comma").match(line, at)):
            break
        out.append(comma[0])
        at = comma.end()
    if flag and kind == "api-key" and out and out[-1].strip("\"'").startswith("<masked:"):
        at = _further_keys(line, at, rule, name, out)
    return "".join(out), at


def _further_keys(line: str, at: int, rule: re.Pattern[str], name: str, out: list[str]) -> int:
    """Adds to `out` the keys that follow a first one after a flag which takes several, masked; where they end."""
    while (gap := _re("next").match(line, at)) and (value := rule.match(line, gap.end())):
        masked = _mask_literal(name, "api-key", value[0])
        if masked == value[0] or not _more(name, value[0]):
            break
        out += gap[0], masked
        at = value.end()
    return at


def _mask_settings(line: str) -> str:
    for rule in ("pair", "setting"):
        out: list[str] = []
        done = at = 0
        while found := _re(rule).search(line, at):
            name, before = found["name"], line[max(0, found.start() - 1) : found.start()]
            at = found.end()
            bare = ":" not in found["sign"] and "=" not in found["sign"]
            if bare and name[0] != "-":
                continue
            if before in ("?", "&") and name.lower() in ("sig", "signature"):
                name = "x-amz-signature"
            kind = _kind(name[-128:])
            if (
                kind
                and not (bare and kind in ("authorization", "cookie", "credentials", "registry-auth"))
                and not (before == "/" and _re("no_value").match(line, at))
            ):
                masked, end = _mask_values(line, found, name, kind)
                out += line[done:at], masked
                done = at = end
        line = "".join(out) + line[done:]
    return line


def _mask_prompts(line: str) -> str:
    """Masks what users and models said; of lists of token ids, which spell it too, the length stays."""
    request, slog = _re("request").search(line), "msg=" in line
    line = line if request else _mask_said(line)
    out: list[str] = []
    done = at = looked = 0
    while found := _re("prompt").search(line, at):
        at = found.end()
        name = found["name"]
        if _part_of_a_word(line, found) or not (request or name == "generated_text" or name.endswith(("_ids", " ids"))):
            continue
        end, quoted = _literal(line, at)
        text = line[at:end]
        inner = quoted["inner"] if quoted else text
        masked = _re("mask").match(inner)
        looked += end - at if masked else 0
        if not inner or text == "[]" or (masked and looked <= _MOST_LOOKED * len(line)):
            continue
        word = not quoted and text[0] not in "[({"  # slog quotes only what has a space; a bare number is a length
        if word and not (slog and name in ("prompt", "string") and found[0][-1] == "=" and not text.isdigit()):
            continue
        mask = f"<masked:prompt+{text.count(',') + 1}-tokens>" if _re("ids").fullmatch(text) else "<masked:prompt>"
        close = found["close"]  # a list becomes a string, so that JSON stays JSON
        out += line[done:at], quoted["head"] if quoted else close, mask, (quoted["tail"] or "") if quoted else close
        done = at = end
    return "".join(out) + line[done:]


def _literal(line: str, at: int) -> tuple[int, re.Match[str] | None]:
    """Where a value ends, and its parts where it is quoted."""
    end = _literal_end(line, at)
    quoted = _re("quoted").fullmatch(line, at, end)
    if quoted:
        end = _string_end(line, end, quoted["head"].lstrip("bBrRuUfF") or quoted["quote"])
        quoted = _re("quoted").fullmatch(line, at, end)
    return end, quoted


def _mask_said(line: str) -> str:
    """Masks what stands under the names that clients, gateways and frameworks give to what was said, in any line."""
    out: list[str] = []
    done = at = looked = 0
    record = _records(line)
    while found := _re("said").search(line, at):
        at = found.end()
        if _part_of_a_word(line, found) or found.start() == record:
            continue
        end, quoted = _literal(line, at)
        text = line[at:end]
        first = quoted["inner"] if quoted else text[1:].lstrip().lstrip("\\\"'")
        words = " " in (quoted["inner"] if quoted else text)
        kept = (found["words"] and not words) or _re("mask").match(first) or _re("answer").match(first)
        looked += end - at if kept else 0
        if not first or (kept and looked <= _MOST_LOOKED * len(line)):
            continue
        close = found["close"]
        out += (
            line[done:at],
            quoted["head"] if quoted else close,
            "<masked:prompt>",
            (quoted["tail"] or "") if quoted else close,
        )
        done = at = end
    return "".join(out) + line[done:]


def _records(line: str) -> int:
    """Where the name of a field stands that is a whole line of a log: Loguru's `text`, and the `content` of what a store keeps."""
    if loguru := _re("loguru").match(line):
        return loguru.start("name")
    return line.find('"content"') + 1 if _re("stored").search(line) else -1


def _part_of_a_word(line: str, found: re.Match[str]) -> bool:
    """Whether a name is the end of a longer one: `negative_prompt` and `self.text`, not `"gen_ai.prompt.0.content": "…"`."""
    before = line[max(0, found.start() - 4) : found.start()]
    if before.endswith("."):
        return not found["close"]
    return before[-1:] == "_" or (before[-1:].isalnum() and before != "\\x22")


def _literal_end(line: str, at: int) -> int:
    """Where a string, a bracket or a word ends; SGLang's abbreviation `'…' ... '…'` is one."""
    if line[at : at + 1] not in tuple("[({\"'\\"):
        plain = _re("plain").match(line, at)
        return plain.end() if plain else at
    depth, end, cut = 0, at, False
    for part in _re("part").finditer(line, at):
        if cut:
            cut = False
            continue
        end = part.end()
        depth += (part[0] in "[({") - (part[0] in "])}")
        if depth <= 0 and not (cut := _re("cut").match(line, end) is not None):
            break
    return end


def _string_end(line: str, end: int, quote: str) -> int:
    """Where a string really ends: who prints quotes inside it as they are, or escapes them once too often, ends it early."""
    while end < len(line) and not _re("after").match(line, end):
        more = line.find(quote, end)
        if more < 0:  # none of these quotes follows: it ended here, unless this one is an apostrophe
            return len(line) if line[end].isalnum() else end
        end = more + len(quote)
    return end


def _mask_spoken(found: re.Match[str]) -> str:
    before = found.string[max(0, found.start() - 80) : found.start()]
    if found["does"] and _re("failed").search(before):
        return found[0]
    return found[0][: found[0].index(": ") + 2] + "<masked:prompt>"


def _mask_bearer(found: re.Match[str]) -> str:
    value, basic = found["value"], found["scheme"][1] in "aA"
    if not (_is_base64(value) if basic else _plausible(value)):
        return found[0]
    return found["scheme"] + mask_value("basic-auth" if basic else "token", value)


def _mask_login(found: re.Match[str]) -> str:
    return found[1] + (found[2] if _harmless("password", found[2]) else mask_value("password", found[2]))


class TextMasker:
    """Masks text that comes in chunks of whole lines; a key, a prompt or a value may go on in the next one."""

    def __init__(self) -> None:
        # what goes on in the next line: "pem", "prompt", a "coloured" one, "texts", "value" or the "pair" of a name
        self._open = ""
        self._name = ""
        self._left = 0

    @property
    def open(self) -> bool:
        """Whether a key, a prompt or a value may go on in the next line."""
        return bool(self._open)

    def feed(self, chunk: str) -> str:
        """The chunk with its secrets masked; the number of its lines stays, for evidence names lines."""
        raw = chunk.encode("utf-8", "surrogatepass")
        lower = raw.lower()
        starts = sorted({start for anchor in _anchors() for start in _lines_with(anchor, lower)})
        if not starts and not self._open:
            return chunk
        out: list[bytes] = []
        done, todo = 0, iter(starts)
        at = 0 if self._open else next(todo)
        while at < len(raw):
            out.append(raw[done:at])
            done = lower.find(b"\n", at) + 1 or len(raw)
            line = raw[at:done].decode("utf-8", "surrogatepass")
            body = line.rstrip("\r\n")
            out.append((self._line(body) + line[len(body) :]).encode("utf-8", "surrogatepass"))
            at = done if self._open else next((start for start in todo if start >= done), len(raw))
        return b"".join([*out, raw[done:]]).decode("utf-8", "surrogatepass")

    def _line(self, line: str) -> str:
        if self._open and (masked := self._continued(line)) is not None:
            return masked
        for _ in range(_MAX_PASSES):
            before, line = line, self._pass(line)
            if line == before:
                break
        return line

    def _pass(self, line: str) -> str:
        self._open = ""
        if said := _re("input").search(line):
            opened = {"Parsing": "", "Prompt after": "coloured"}
            self._open = next((state for start, state in opened.items() if said[0].startswith(start)), "prompt")
            self._left = _MAX_OPEN_LINES
            line = line[: said.end()] + "<masked:prompt>"
        line = _re("spoken").sub(_mask_spoken, line)
        line = _re("json_input").sub(r"\1<masked:prompt>", line)
        line = _re("next_token").sub(r"\1'<masked:prompt>'", line)
        line = _mask_settings(self._mask_pem(_mask_prompts(line)))
        line = _re("url").sub(_mask_login, _re("bearer").sub(_mask_bearer, line))
        line = _re("form").sub(lambda found: mask_value("", found[0]), line)
        if not self._open and _re("texts").search(line):
            self._open, self._left = "texts", _MAX_OPEN_LINES
        if not self._open and (dangling := _re("dangling").search(line)):
            name = dangling["flag"] or dangling["pair"] or dangling["open"]
            if _kind(name[-128:]):
                self._open, self._name, self._left = "pair" if dangling["pair"] else "value", name, _MAX_OPEN_LINES
        return line

    def _mask_pem(self, line: str) -> str:
        out: list[str] = []
        while head := _re("pem").search(line):
            end = line.find("-----END ", head.end())
            inner = line[head.end() : end if end >= 0 else len(line)]
            blank = not inner.strip(" \t\\rn\"'|>,")
            out += line[: head.end()], inner if blank else "<masked:private-key>"
            if blank and end < 0:
                self._open, self._left = "pem", _MAX_OPEN_LINES
            line = line[end:] if end >= 0 else ""
        return "".join(out) + line

    def _continued(self, line: str) -> str | None:
        """The masked line where something open goes on, None where it has ended."""
        self._left -= 1
        if self._left < 0:
            return None
        # LangChain sets a prompt in colour; a store may have taken that away, and its end with it
        if self._open == "coloured":
            if "\x1b" in line:
                self._open = "prompt"
            elif _re("other_line").match(line):
                return None
        if self._open in ("prompt", "coloured"):
            if _re("router_line").match(line):
                return None
            if line.endswith("\x1b[0m"):
                self._left = 0
                return "<masked:prompt>\x1b[0m"
            return line and "<masked:prompt>"
        if self._open == "texts":
            text = _re("one_text").fullmatch(line)
            return text and f"{text['head']}{text['text'][0]}<masked:prompt>{text['text'][-1]}{text['tail']}"
        if self._open == "pem":
            body = _re("pem_line").fullmatch(line)
            return body and body["head"] + (body["text"] and "<masked:private-key>") + body["tail"]
        item = _re("item").fullmatch(line)
        if not item or (item["key"] is None) == (self._open == "pair") or item["text"][0] in "-()[]{}":
            return None
        if item["text"][-1] not in "\"'" and (
            "<masked:" in item["text"][1:] or (not item["key"] and " " in item["text"])
        ):
            return None  # words, or a setting that was masked on its own
        if self._open == "pair" or not (item["tail"].startswith(",") and item["text"][-1] in "\"'"):
            self._left = 0
        masked = _mask_literal(self._name, _kind(self._name[-128:]), item["text"])
        return f"{item['head']}{item['key'] or ''}{masked}{item['tail']}"


def _lines_with(anchor: re.Pattern[bytes], lower: bytes) -> Iterator[int]:
    at = 0
    while found := anchor.search(lower, at):
        yield lower.rfind(b"\n", 0, found.start()) + 1
        at = lower.find(b"\n", found.start()) + 1
        if not at:
            return


@lru_cache(maxsize=8192)
def _mask_short(text: str) -> str:
    return TextMasker().feed(text)


def mask_text(text: str) -> str:
    """Free text with its secrets and prompts masked; line numbers, request ids and lengths in tokens stay."""
    if len(text) < 8:  # no name with a value is shorter
        return text
    return _mask_short(text) if len(text) <= _SHORT else TextMasker().feed(text)


def mask_object(obj: Any) -> Any:
    """A copy of a decoded object with its secrets masked; keys, names, references and the tree's shape stay."""
    return _walk(obj, "", 0)


def _walk(node: Any, name: str, depth: int) -> Any:
    if isinstance(node, str):
        return _mask_string(node, name, depth)
    if isinstance(node, dict):
        return _walk_dict(node, depth) if depth < _MAX_DEPTH else "<masked:too-deep>"
    if isinstance(node, list | tuple):
        return _walk_list(node, name, depth) if depth < _MAX_DEPTH else "<masked:too-deep>"
    if isinstance(node, bytes | bytearray):
        return "<masked:binary>"
    if isinstance(node, int | float) and not isinstance(node, bool):
        return mask_value(name, str(node)) if _kind(name) in ("password", "api-key") else node
    return node


def _walk_dict(node: dict[Any, Any], depth: int, is_secret: bool = False) -> dict[Any, Any]:
    out: dict[Any, Any] = {}
    kind, owner = node.get("kind"), ""
    is_secret = is_secret or kind == "Secret"
    if "value" in node:
        owner = next((node[key] for key in ("name", "key") if isinstance(node.get(key), str)), "")
    for key, value in node.items():
        if is_secret and key in ("data", "stringData", "binaryData"):
            out[key] = _mask_secret(str(key), value, key != "stringData", depth + 1)
        elif kind == "SecretList" and key == "items" and isinstance(value, list):
            # the items of a list as the API gives it have no kind
            out[key] = [_walk_dict(item, depth + 2, True) if isinstance(item, dict) else None for item in value]
        else:
            out[key] = _walk(value, (owner if key == "value" else str(key))[-128:], depth + 1)
    return out


def _walk_list(node: list[Any] | tuple[Any, ...], name: str, depth: int) -> list[Any]:
    """Masks what follows a flag in an argv; the flag decides, whatever the list is called."""
    out: list[Any] = []
    flag, first = "", False
    for item in node:
        kind = _kind(flag[-128:]) if flag else ""
        if (
            isinstance(item, str)
            and kind
            and not item.startswith("-")
            and (first or (kind == "api-key" and _more(flag, item)))
        ):
            masked, first = _mask_literal(flag, kind, item), False
        else:
            masked, flag, first = item, item if isinstance(item, str) and item.startswith("-") else "", True
        out.append(_walk(item, name, depth + 1) if masked is item else masked)
    return out


@lru_cache(maxsize=8192)
def _mask_word(text: str, name: str) -> str | None:
    """A short string under its name; None where it may be an object, of which the depth counts."""
    kind = _kind(name)
    if kind and not _harmless(kind, text):
        return mask_value(name, text)
    return None if _may_hold_json(text, name) else mask_text(text)


_APPLIED = "last-applied-configuration"


def _may_hold_json(text: str, name: str) -> bool:
    return len(text) > 1 and (name.endswith(_APPLIED) or text.lstrip()[:1] in ("{", "["))


def _mask_string(text: str, name: str, depth: int) -> str:
    if len(text) <= _SHORT and (masked := _mask_word(text, name)) is not None:
        return masked
    kind = _kind(name)
    if kind and not _harmless(kind, text):
        return mask_value(name, text)
    if _may_hold_json(text, name):
        import json  # costs more than this whole module, and few objects hold JSON

        try:
            tree = json.loads(text)
            masked = _walk(tree, "", depth + 1)
            if masked == tree:
                return text
            return json.dumps(masked, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        except (ValueError, RecursionError):
            if name.endswith(_APPLIED) and not _re("mask").fullmatch(text):
                return "<masked:unreadable>"
    return mask_text(text)


def _mask_secret(name: str, value: Any, coded: bool, depth: int) -> Any:
    """The values of a Secret as masks, which say what is blank or a placeholder: that explains a refused token."""
    if isinstance(value, dict) and depth < _MAX_DEPTH:
        return {key: _mask_secret(str(key), item, coded, depth + 1) for key, item in value.items()}
    if value is None or value == "" or (isinstance(value, str) and _re("mask").fullmatch(value)):
        return value
    if not isinstance(value, str):
        return "<masked:secret>"
    if coded:
        value = _decoded(value)
    masked = mask_value(name, value)
    if masked != value or not coded:
        return masked
    label = (_kind(name[-128:]) or "secret").replace("any-", "")
    return f"<masked:{label}+{'placeholder' if value.strip() else 'blank'}>"


def _decoded(value: str) -> str:
    import binascii  # only Secrets need it

    try:
        return binascii.a2b_base64(value.encode("utf-8", "replace")).decode("utf-8", "replace")
    except ValueError:
        return value
