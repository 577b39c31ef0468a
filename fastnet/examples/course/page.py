"""The index page: all experiments with their tables and pictures, in one file."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from fastnet.examples.course.experiment import Experiment, Result

HEADS = ("what", "here", "published", "difference", "source and remarks")
STYLE = """
:root{color-scheme:light dark;--ink:#24292f;--page:#fff;--line:#d5dae0;--soft:#5c6670}
@media(prefers-color-scheme:dark){:root{--ink:#d5dae0;--page:#15181c;--line:#3a414a;--soft:#98a2ad}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:56rem;
margin:2rem auto;padding:0 1rem}
a{color:inherit}h1,h2{font-weight:600;line-height:1.25}h2{margin-top:3rem}
p.soft{color:var(--soft);font-size:.9rem}
div.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;width:100%}
th,td{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--line)}
td:nth-child(2),td:nth-child(3),td:nth-child(4){white-space:nowrap;font-variant-numeric:tabular-nums}
figure{margin:1rem 0}svg{max-width:100%;height:auto}
@media(max-width:40rem){table,tbody,tr,td{display:block}thead{display:none}
tr{border-bottom:1px solid var(--line);padding:.4rem 0}td{border:0;padding:.05rem 0}
td:first-child{font-weight:600}td:empty{display:none}
td:nth-child(2)::before{content:"here: "}td:nth-child(3)::before{content:"published: "}
td:nth-child(4)::before{content:"difference: "}
figure{overflow-x:auto}svg{max-width:none}}
"""


@dataclass(frozen=True)
class Part:
    """An experiment that has run: its result, its picture as an SVG element, and how long it took."""

    experiment: Experiment
    result: Result
    svg: str
    seconds: float


def page(parts: Sequence[Part], heading: Sequence[str]) -> str:
    """The page; `heading` says of what the experiments are, a paragraph each."""
    links = "".join(
        f'<li><a href="#{part.experiment.name}">{html.escape(part.experiment.title)}</a></li>\n'
        for part in parts
    )
    told = "".join(f"<p>{html.escape(line)}</p>\n" for line in heading)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>The course</title>\n'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body><h1>The course's experiments</h1>\n{told}<ol>\n{links}</ol>\n"
        f"{''.join(map(_section, parts))}</body></html>\n"
    )


def _section(part: Part) -> str:
    experiment, rows = part.experiment, part.result.rows
    heads = "".join(f"<th>{html.escape(head)}</th>" for head in HEADS)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row.cells()) + "</tr>\n"
        for row in rows
    )
    return (
        f'<h2 id="{experiment.name}">{html.escape(experiment.title)}</h2>\n'
        f"<p>{html.escape(experiment.text)}</p>\n"
        f'<figure role="img" aria-label="{html.escape(experiment.title)}">{part.svg}</figure>\n'
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>\n{body}</tbody></table></div>\n'
        f'<p class="soft">{part.seconds:.1f} s; python -m fastnet.examples.course --only '
        f"{experiment.name}</p>\n"
    )
