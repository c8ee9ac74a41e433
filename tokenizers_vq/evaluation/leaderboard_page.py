"""The leaderboard as one HTML file: sorting and filtering inside, no request to anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.leaderboard import Board, columns, command
from tokenizers_vq.page import standalone

LEAD = (
    "psnr", "ssim", "ms_ssim", "lpips-alex", "rFID", "rFD-EffLite0", "cos-EffLite0", "bpp",
    "n_bytes",
)  # fmt: skip
IN_CARDS = {  # stand in the card of a result only, so that a table can be taken in
    "psnr_pooled", "rKD-EffLite0", "entropy_bits", "joint_bits", "perplexity", "fixed_bytes",
    "nominal_bits", "nominal_bpp", "tokens",
}  # fmt: skip
STYLE = """<style>
.bar{display:flex;flex-wrap:wrap;gap:12px;align-items:center;margin:20px 0}
.bar input{font:inherit;padding:8px 12px;border:1px solid var(--line);border-radius:8px;
background:var(--card);color:var(--ink);flex:1 1 220px;min-width:0}
th button{all:unset;cursor:pointer;font-weight:600;color:var(--soft)}
th button:hover,th button:focus-visible{color:var(--ink);text-decoration:underline}
th[aria-sort=ascending] button:after{content:" \\2191"}
th[aria-sort=descending] button:after{content:" \\2193"}
table a{color:inherit;text-decoration:none}table a:hover,table a:focus-visible{
color:var(--accent);text-decoration:underline}td.v{text-align:right}th.v{text-align:right}
td:first-child{position:sticky;left:0;background:var(--card);white-space:normal;min-width:230px;
overflow-wrap:anywhere}td.claim,th.claim{color:var(--soft);white-space:normal;min-width:180px;
border-left:1px solid var(--line);padding-left:14px}tr:target td,:target>summary{
background:color-mix(in srgb,var(--accent) 18%,var(--card))}summary{cursor:pointer;padding:4px 0}
code{overflow-wrap:anywhere;white-space:normal;font-size:.85em}pre{white-space:pre-wrap;
overflow-wrap:anywhere;font-size:.8rem}details{margin:6px 0}a{color:var(--accent)}
@media(max-width:600px){main{padding:20px 12px}.card{padding:12px}
td:first-child{min-width:110px;max-width:34vw}}
</style>"""
SCRIPT = """<script>
const number=c=>{const v=c.dataset.v;return v===undefined||v===''?null:+v};
document.querySelectorAll('th button').forEach(b=>b.addEventListener('click',()=>{
 const th=b.parentElement,table=th.closest('table'),k=[...th.parentElement.children].indexOf(th);
 const up=th.getAttribute('aria-sort')==='descending';
 table.querySelectorAll('th').forEach(h=>h.removeAttribute('aria-sort'));
 th.setAttribute('aria-sort',up?'ascending':'descending');
 const body=table.tBodies[0],text=th.dataset.text!==undefined;
 const rows=[...body.rows].sort((a,b)=>{
  if(text)return a.cells[k].textContent.localeCompare(b.cells[k].textContent)*(up?1:-1);
  const x=number(a.cells[k]),y=number(b.cells[k]);
  if(x===null||y===null)return (x===null)-(y===null);
  return up?x-y:y-x});
 rows.forEach(r=>body.append(r))}));
const box=document.getElementById('filter'),left=document.getElementById('left');
box.addEventListener('input',()=>{const words=box.value.toLowerCase().split(/\\s+/).filter(Boolean);
 let n=0;document.querySelectorAll('tbody tr[data-row]').forEach(r=>{
  const t=r.dataset.row.toLowerCase(),on=words.every(w=>t.includes(w));r.hidden=!on;n+=on});
 left.textContent=n+(n===1?' row':' rows')});
const open=()=>{const e=document.getElementById(decodeURIComponent(location.hash.slice(1)));
 for(let d=e;d;d=d.parentElement)if(d.tagName==='DETAILS')d.open=true;if(e)e.scrollIntoView()};
addEventListener('hashchange',open);open();
</script>"""


def leaderboard_page(board: Board) -> str:
    """Return the whole page; every measured cell links to what it needs to be trusted."""
    tables = "".join(_group(board, k, group) for k, group in enumerate(board.groups))
    sources = "".join(
        _result(board, f"r{k}-{j}", k, result)
        for k, group in enumerate(board.groups)
        for j, result in enumerate(group)
    )
    measured = sum(map(len, board.groups))
    body = f"""{STYLE}<header><h1>Leaderboard</h1>
<p>Results: {measured}, tokenizers: {len(_names(board))}, receipts: {len(board.receipts)}; one table
per protocol and data set. A table never mixes protocols.
A blank was not measured. What others published stands under <i>claimed</i>, with its source, and
is never sorted with ours.</p>
</header><div class="bar"><input id="filter" type="search" placeholder="filter: name, data, metric"
aria-label="filter rows"><span id="left" class="hint"></span></div>
{tables}{_receipts(board)}{_claims(board)}<h2 id="sources">What the numbers are</h2>{sources}
{SCRIPT}"""
    return standalone(body, "Leaderboard")


def _group(board: Board, k: int, group: Sequence[Mapping[str, Any]]) -> str:
    first = group[0]
    names = [name for name in columns(group) if name not in IN_CARDS]
    names = [name for name in LEAD if name in names] + [n for n in names if n not in LEAD]
    head = _head("tokenizer", text=True)
    head += "".join(_head(results.label(name)) for name in names)
    head += "<th class='claim'>claimed elsewhere</th>"
    rows = "".join(
        f"<tr data-row='{escape(_row_text(result))}'><td>"
        f"<a href='#r{k}-{j}'>{escape(result['tokenizer']['name'])}</a></td>"
        + "".join(_cell(result, name, f"r{k}-{j}") for name in names)
        + f"<td class='claim'>{_claims_of(board, result['tokenizer']['name'])}</td></tr>"
        for j, result in enumerate(group)
    )
    protocol, data = first["protocol"], first["data"]
    config = escape(json.dumps(protocol["config"], indent=1))
    name = escape(protocol["name"])
    return f"""<section class="card" id="g{k}"><h2>{name}, {escape(data["name"])}</h2>
<details id="p{k}"><summary class="hint">protocol {name}@{protocol["hash"]},
data {data["sha256"][:12]}, n = {data["n"]}</summary><pre>{config}</pre></details>
{_table(head, rows)}</section>"""


def _table(head: str, rows: str) -> str:
    return (
        f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        "</div>"
    )


def _head(label: str, *, text: bool = False) -> str:
    kind = " data-text" if text else " class='v'"
    return f"<th{kind}><button>{escape(label)}</button></th>"


def _cell(result: Mapping[str, Any], name: str, place: str) -> str:
    """Return a measured cell: a link to where its n, interval, command and commit stand."""
    score = result["metrics"].get(name)
    if score is None or score["value"] is None:
        return "<td class='v'></td>"
    return (
        f"<td class='v' data-v='{score['value']!r}'><a href='#{_anchor(place, name)}' "
        f"title='{escape(_interval(score))}'>{results.number(score['value'])}</a></td>"
    )


def _anchor(place: str, name: str) -> str:
    """Return the id of a metric's row in a card; ids hold no spaces."""
    return escape(f"{place}-{name.replace(' ', '-')}")


def _interval(score: Mapping[str, Any]) -> str:
    span = score["interval"]
    text = "no interval" if not span else f"{results.number(span[0])} .. {results.number(span[1])}"
    return f"{text}, n = {score['n']:,}"


def _result(board: Board, place: str, k: int, result: Mapping[str, Any]) -> str:
    """Return what one result needs to be trusted, with an anchor per metric."""
    environment, data = result["environment"], result["data"]
    rows = "".join(
        f"<tr id='{_anchor(place, name)}'><td>{escape(results.label(name))}</td>"
        f"<td class='v'>{results.number(score['value'])}</td><td>{escape(_note(score))}</td></tr>"
        for name, score in result["metrics"].items()
    )
    file = escape(board.files.get(id(result), ""))
    protocol = escape(result["protocol"]["name"])
    head = "<th>metric</th><th class='v'>value</th><th>95 % interval, n</th>"
    return f"""<details class="card" id="{place}">
<summary><b>{escape(result["tokenizer"]["name"])}</b>, {protocol}, {escape(data["name"])}</summary>
<p class="hint">protocol <a href="#p{k}">{protocol}@{result["protocol"]["hash"]}</a>;
data {data["sha256"][:12]}, n = {data["n"]}; seed {result["seed"]}; commit
<code>{escape((environment["commit"] or "unknown")[:12])}</code>; weights
{result["tokenizer"]["sha256"][:12]}; torch {escape(str(environment["versions"]["torch"]))};
{escape(environment["device"])}; <code>{file}</code><br><code>{escape(command(result))}</code></p>
{_table(head, rows)}</details>"""


def _note(score: Mapping[str, Any]) -> str:
    return _interval(score) if score["status"] == "ok" else f"skipped: {score['reason']}"


def _receipts(board: Board) -> str:
    if not board.receipts:
        return ""
    rows = "".join(
        f"<tr data-row='receipt {escape(name)}'><td>{escape(name)}</td>"
        f"<td class='v' data-v='{one['kept']}'>{one['kept']}</td>"
        f"<td>{escape(', '.join(key.replace('_', ' ') for key in one['broken']))}</td>"
        f"<td><code>{escape((one['environment']['commit'] or 'unknown')[:12])}</code></td>"
        f"<td><code>{escape(one['command'])}</code></td></tr>"
        for name, one in sorted(board.receipts.items())
    )
    head = _head("tokenizer", text=True) + _head("properties kept") + _head("broken", text=True)
    table = _table(f"{head}<th>commit</th><th>command</th>", rows)
    return f"<section class='card' id='receipts'><h2>Receipts</h2>{table}</section>"


def _claims(board: Board) -> str:
    """Return one table per protocol of the claims, so that no column mixes two."""
    parts = []
    for key, words in board.protocols.items():
        found = [claim for claim in board.claims if claim["protocol"] == key]
        if not found:
            continue
        names = list(dict.fromkeys(claim["metric"] for claim in found))
        rows: dict[tuple[str, str], dict[str, float]] = {}
        for claim in found:
            row = rows.setdefault((claim["tokenizer"], claim["source"]), {})
            row[claim["metric"]] = claim["value"]
        body = "".join(_claim_row(board, key, row, names) for row in rows.items())
        head = _head("tokenizer", text=True) + "".join(
            _head(f"claimed {results.label(name)}") for name in names
        )
        parts.append(
            f"<details class='card' id='c-{escape(key)}'><summary><b>{escape(key)}</b>: "
            f"{escape(words)}</summary>{_table(f'{head}<th>source</th>', body)}</details>"
        )
    return f"<h2>Claimed elsewhere, not measured here</h2>{''.join(parts)}" if parts else ""


def _claim_row(
    board: Board, key: str, row: tuple[tuple[str, str], Mapping[str, float]], names: Sequence[str]
) -> str:
    (name, source), values = row
    cells = "".join(
        f"<td class='v' data-v='{values[n]!r}'>{values[n]:g}</td>"
        if n in values
        else "<td class='v'></td>"
        for n in names
    )
    return (
        f"<tr data-row='claimed {escape(key)} {escape(name)}'><td>{escape(name)}</td>{cells}"
        f"<td class='claim'>{escape(board.sources[source])}</td></tr>"
    )


def _claims_of(board: Board, name: str) -> str:
    return "; ".join(
        f"<a href='#c-{escape(one['protocol'])}' title='{escape(board.sources[one['source']])}'>"
        f"{escape(results.label(one['metric']))} {one['value']:g}</a>"
        for one in board.claims
        if one["tokenizer"] == name
    )


def _names(board: Board) -> set[str]:
    return {result["tokenizer"]["name"] for group in board.groups for result in group}


def _row_text(result: Mapping[str, Any]) -> str:
    return f"{result['tokenizer']['name']} {result['protocol']['name']} {result['data']['name']}"
