"""The look of every HTML page the library writes: one style sheet, no other file, no script."""

from __future__ import annotations

from html import escape

STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5c6773;--line:#dfe3e8;--page:#f6f7f9;
--card:#fff;--accent:#2563c9;--good:#16794f;--bad:#b4412b}
@media(prefers-color-scheme:dark){:root{--ink:#e7eaee;--soft:#9aa5b1;--line:#323a44;--page:#14181d;
--card:#1d232a;--accent:#6ea8ff;--good:#5fcf98;--bad:#ff8f78}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{max-width:1160px;margin:0 auto;padding:40px 24px 64px}
h1{font-size:2rem;line-height:1.2;margin:0 0 8px;letter-spacing:-.015em;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:36px 0 12px;letter-spacing:-.005em}h3{font-size:1rem;margin:0 0 10px}
h4{font-size:.82rem;font-weight:500;color:var(--soft);margin:14px 0 6px}
header p{margin:4px 0;color:var(--soft)}.verdict{font-size:1.08rem;max-width:84ch}
.verdict b{font-weight:600}.good{color:var(--good)}.bad{color:var(--bad)}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px;
margin-bottom:16px;min-width:0}.card h2{margin-top:0}
.tiles{display:grid;gap:12px;grid-template-columns:repeat(auto-fit,minmax(146px,1fr));margin:24px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 16px}
.tile strong{display:block;font-size:1.45rem;font-weight:650;letter-spacing:-.02em;
font-variant-numeric:tabular-nums}.tile span{display:block;font-size:.85rem;line-height:1.35}
.tile small,.hint,footer,figcaption{color:var(--soft);font-size:.82rem}
.tile small{display:block;font-variant-numeric:tabular-nums;margin-top:2px}
.two{display:grid;gap:16px;grid-template-columns:repeat(auto-fit,minmax(min(440px,100%),1fr))}
.three{display:grid;gap:16px;grid-template-columns:repeat(auto-fit,minmax(min(320px,100%),1fr))}
.row{display:grid;gap:12px;grid-template-columns:repeat(auto-fill,minmax(min(220px,46%),1fr))}
figure{margin:0}img{display:block;width:100%;height:auto;border-radius:8px;background:var(--line)}
.cells{image-rendering:pixelated}figcaption{margin-top:5px;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.88rem;
font-variant-numeric:tabular-nums}th{text-align:left;font-weight:600;color:var(--soft)}
th,td{padding:6px 14px 6px 0;border-bottom:1px solid var(--line);vertical-align:top;
white-space:nowrap}td:nth-child(2){white-space:normal}
tr:last-child td{border-bottom:0}svg{display:block;width:100%;height:auto}
svg text{font:13px system-ui,sans-serif;fill:var(--soft)}svg .m{text-anchor:middle}
svg .e{text-anchor:end}svg .n{fill:var(--ink)}svg line{stroke:var(--line)}
svg polyline{fill:none;stroke-width:2;stroke-linejoin:round}.mark{stroke:var(--card);stroke-width:2}
.bars rect{fill:var(--accent)}svg.bars{margin-bottom:10px}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:.85rem;margin-top:6px}
.legend i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:6px}
footer{margin-top:40px;border-top:1px solid var(--line);padding-top:14px;max-width:84ch}
@media print{body{background:#fff}.card,.tile{break-inside:avoid}}
"""


def html_table(markdown: str) -> str:
    """Return a Markdown table as HTML that scrolls sideways on a narrow screen."""
    rows = [
        [cell.strip() for cell in line.strip()[1:-1].split("|")]
        for line in markdown.strip().splitlines()
    ]
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell.replace('**', ''))}</td>" for cell in row) + "</tr>"
        for row in rows[2:]
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def standalone(body: str, title: str) -> str:
    """Return a self-contained HTML page around ``body``, in light or dark as the reader likes."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f"{body}</main></body></html>\n"
    )
