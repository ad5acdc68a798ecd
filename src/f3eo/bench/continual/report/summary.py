"""The results of a stream study in Markdown."""

from f3eo.bench.continual.report import names
from f3eo.bench.continual.report.claims import judged
from f3eo.bench.continual.report.facts import figures, found
from f3eo.bench.continual.report.gaps import gaps
from f3eo.bench.continual.report.goals import reached
from f3eo.bench.continual.report.quantities import AVERAGE, FORGETTING, LAST, ZERO_STEP
from f3eo.bench.continual.report.study import EQUAL, StreamStudy
from f3eo.bench.continual.report.tables import numbers_table, overview, unseen_tables
from f3eo.bench.report.cells import Table, markdown

OUTCOMES = {True: "reached", False: "not reached", None: "not judged"}
SHOWN = (AVERAGE, FORGETTING, LAST, ZERO_STEP)
LEGEND = "(mean ± 95 % interval; bold: best of its group)"


def text(study: StreamStudy) -> str:
    """The summary: claims, goals and the numbers of every stream."""
    lines = _verdicts(study)
    for place in study.places:
        lines += ["", f"**{place.title}** {LEGEND}", "", *_markdown(numbers_table(study, place))]
        for title, table in unseen_tables(study, place).items():
            lines += ["", f"Tasks never trained on: {title[0].lower()}{title[1:]}", ""]
            lines += _markdown(table)
    return f"# {study.name}\n\n" + "\n".join(lines) + "\n"


def tables(study: StreamStudy) -> list[str]:
    """The lines for the documentation: claims, goals, and what matters most, stream by stream."""
    lines = _verdicts(study)
    for equal in _equals(study):
        for quantity in SHOWN:
            table = overview(study, equal, quantity)
            title = quantity.title.format(score="score").lower()
            head = ["", f"**{EQUAL[equal].capitalize()}: {title}** {LEGEND}", ""]
            lines += [*head, *_markdown(table)] if table.columns else []
    return lines


def _equals(study: StreamStudy) -> list[str]:
    return [equal for equal in EQUAL if any(p.equal == equal for p in study.places)]


def _verdicts(study: StreamStudy) -> list[str]:
    """What the study lacks; the claims and the goals."""
    lines = []
    if lacking := gaps(study):
        lines += ["This study is not complete. " + " ".join(lacking), ""]
    lines += ["| the source document says | found | verdict |", "|---|---|---|"]
    for claim in judged(study):
        verdict = claim.verdict or "not judged"
        lines.append(f"| {claim.claim.says} | {found(claim)} | {verdict} |")
    equals = _equals(study)
    heads = [part for equal in equals for part in (EQUAL[equal], "")]
    lines += ["", f"| goal | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for sides in zip(*(reached(study, equal) for equal in equals), strict=True):
        cells = [c for s in sides for c in ("; ".join(figures(s)), OUTCOMES[s.reached])]
        lines.append(f"| {sides[0].goal.says} | {' | '.join(cells)} |")
    return lines


def _markdown(table: Table) -> list[str]:
    """A table with the interval behind each mean."""
    lines = {
        learner: [
            cell._replace(text=" ".join([cell.text, *cell.small.split("\n")]).strip(), mark=None)
            for cell in line
        ]
        for learner, line in table.lines.items()
    }
    return markdown(Table(table.columns, lines), "learner", label=names.label)
