"""Every picture of a stream study, by name."""

from f3eo.bench.continual.report.adaptation import adaptation_picture
from f3eo.bench.continual.report.curves import curve_pictures
from f3eo.bench.continual.report.matrices import matrices, matrix_picture
from f3eo.bench.continual.report.study import StreamStudy


def pictures(study: StreamStudy) -> dict[str, bytes]:
    """Draw the pictures of a study.

    Returns:
        SVG files, by KIND-STREAM-EQUAL; a picture without data is absent.
    """
    drawn = dict[str, bytes]()
    for place in study.places:
        end = f"{place.stream}-{place.equal}"
        if found := matrices(study, place):
            drawn[f"matrix-{end}"] = matrix_picture(found, study.measure(place))
        for name, svg in curve_pictures(study, place).items():
            drawn[f"{name}-{end}"] = svg
        if svg := adaptation_picture(study, place):
            drawn[f"adaptation-{end}"] = svg
    return drawn
