"""The report: measures, or takes a run's file, and writes RESULTS.md, results.json and plots.

The README.md above the folder gets the run's tables of fits and loops, where it has a place.

python bench/report.py [--only steps,gemm] [--workloads xor,mnist] [--seconds 10] [--from FILE] [--to DIR]
"""

from __future__ import annotations

from measure import pin  # noqa: F401  # isort: skip  (before NumPy loads)

import argparse
import json
from pathlib import Path
from typing import Any

import run
import targets
from fastnet.terminal import show
from tables import sections

Results = dict[str, Any]
BEGIN, END = "<!-- from bench/report.py -->", "<!-- to here -->"  # of what README.md has from here


def text(results: Results, plots: list[str]) -> str:
    """RESULTS.md."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    rows = targets.check(results)
    met = [row.met for row in rows if row.met is not None]
    lines = [
        "# Results",
        "",
        f"- {results['date']}, `{results['command']}`; [README.md](README.md) says what is timed and how",
        f"- {results['machine']}; one core ({'pinned' if results['pinned'] else 'not pinned'}), "
        "one thread, float32, Adam",
        f"- {versions}",
        "- medians over interleaved rounds; ratios are medians of the rounds' ratios",
        "",
    ]
    for section, write in sections.WRITERS.items():
        if section in results:
            lines += write(results[section])
            lines += [f"![{name}](plots/{name}.png)\n" for name in plots if name == section]
    lines += ["## Targets", "", f"{sum(met)} of {len(met)} are met.", "", *targets.table(rows), ""]
    return "\n".join(lines)


def readme(page: str, results: Results) -> str:
    """README.md with the run's tables of fits and loops, where it has a place for them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end and "fit" in results and "loops" in results):
        return page
    lines = [
        f"Whole fits, and a step of a loop of one's own, on one core, in float32, with Adam "
        f"({results['machine']}, {results['date']}). *fastnet engine* is the steps alone, without "
        "what a fit or a loop does around them.",
        "",
        *sections.fit_table(sections.with_peers(results["fit"])),
        *sections.loops_table(results["loops"]),
    ]
    return "\n".join([before + begin, "", *lines]) + end + after


def gpu_alone(results: Results) -> bool:
    """Whether a run measured nothing but what is measured on a GPU."""
    return not any(section in results for section in run.SECTIONS if section not in sections.GPU)


def joined(results: Results, old: Results) -> Results:
    """A run's results, and those of an earlier report that it leaves as they are.

    A GPU is usually another machine's: its figures stay where a run has none, and a run of it alone
    leaves all else.
    """
    kept = old if gpu_alone(results) else {s: old[s] for s in sections.GPU if s in old}
    nothing = [s for s in sections.GPU if s in kept and not sections.measured(results, s)]
    new = sections.GPU if gpu_alone(results) and old else results
    return kept | {key: results[key] for key in new if key in results and key not in nothing}


def main() -> None:
    """Measure or read, then write."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--to", default=str(Path(__file__).parent), metavar="DIR")
    results, options = run.results_of(parser)
    folder = Path(options.to)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    drawn = [plot.stem for plot in sorted((folder / "plots").glob("*.png"))]
    alone, results = gpu_alone(results), joined(results, old)
    run.save(results, path)
    if not alone:
        try:
            from tables import plots
        except ImportError as error:
            show(f"no plots: {error}")
            drawn = []
        else:
            drawn = plots.draw(results, folder / "plots")
    written = text(results, drawn)
    (folder / "RESULTS.md").write_text(written, encoding="utf-8")
    page = folder.parent / "README.md"
    if page.exists():
        page.write_text(readme(page.read_text(encoding="utf-8"), results), encoding="utf-8")
    show(written)


if __name__ == "__main__":
    main()
