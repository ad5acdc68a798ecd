from f3eo.bench.report.provenance import commands, environments


def test_environments_count_finished_rows_and_differ_by_versions_and_machine(make_row):
    row = make_row()
    other = row | {"versions": {**row["versions"], "torch": "0"}}
    lost = other | {"status": "failed"}
    found = environments([row, other, row, lost])
    assert [environment["rows"] for environment in found] == [2, 1]
    assert found[1]["versions"]["torch"] == "0"


def test_commands_are_listed_once_in_order(make_row):
    rows = [make_row() | {"command": name} for name in ("b", "a", "b")]
    assert commands([*rows, {"key": "older"}]) == ["b", "a"]
