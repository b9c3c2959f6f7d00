"""`iblinkinfo -l` of infiniband-diags, which NVOS runs too: one line for each port of the fabric, with what it is plugged to.

    0x9c63... "MF0;host:MODEL/U1"  2  44[  ] ==( 2X 100.0 Gbps Active/  LinkUp)==>  0xa088...  12  8[  ] "GPU" ( )

A port that is down shows no peer. The text has no end mark. Source: the program's own format (infiniband-diags).
"""

from __future__ import annotations

import re

from burnin.checks.tools.reading import Outcome, Page, complaint, parser, stranger

_PORT = r"(\d{1,5}) +(\d{1,4})\[[^\]\n]{0,4}\]"
_LINE = re.compile(
    rf'0x([0-9a-fA-F]{{16}}) +"([^"\n]{{0,120}})" +{_PORT} +==\(([^)\n]{{0,80}})\)==> +'
    rf'(?:0x([0-9a-fA-F]{{16}}) +{_PORT}|\[[^\]\n]{{0,4}}\]) +"([^"\n]{{0,120}})" *(?:\([^)\n]{{0,80}}\))? *'
)


def _read(text: str) -> Page:
    page = Page(endless=True)
    seen = set[str]()
    for line in text.split("\n"):
        if not line.strip() or len(line) > 600:
            if line.strip():
                page.gap("a line is too long")
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            page.gap(complaint([line]) or f"a line was not understood: {line.strip()[:80]!r}")
            continue
        name, state = f"{match[1].lower()}/{match[4]}", " ".join(match[5].split())
        if name in seen:
            page.gap(f"port {name} is said twice")
            break
        seen.add(name)
        up = bool(re.search(r"\bActive/ ?LinkUp\b", state))
        if match[6]:
            page.add(
                "peer", name, f"{match[6].lower()}/{match[8]}", "", Outcome.PASS if up else Outcome.UNKNOWN, "" if up else state
            )
        page.add("node", name, match[2].strip(), why=state)
    if not seen:
        raise stranger("iblinkinfo", text)
    return page


iblinkinfo = parser("iblinkinfo", _read)
