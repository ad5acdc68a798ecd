from rich.console import Console

from f3eo.bench.report.standings import standings, table


def test_methods_are_ranked_by_mean_accuracy_in_both(make_row):
    rows = [
        make_row(0.8, method="sgd", seed=0),
        make_row(0.6, method="sgd", seed=1),
        make_row(0.75, method="sam"),
        make_row(0.9, method="sgd", price=1.5),
        make_row(0.75, method="sam", price=3.0),
        make_row(0.1, method="adamw", task="mnist1d-mlp"),
    ]
    best, second = standings(rows, "digits-mlp")
    assert (best.method, second.method) == ("sam", "sgd")
    assert [best.standings[kind].rank for kind in ("cost", "time")] == [1, 2]
    assert [second.standings[kind].rank for kind in ("cost", "time")] == [2, 1]
    assert second.standings["cost"].accuracy.mean == 70
    assert second.standings["time"].price == 1.5 and second.standings["cost"].price == 2.0


def test_equal_means_share_a_rank_and_failures_have_none_and_come_last(make_row):
    lost = {"status": "failed", "final": None, "steps": None, "error": "no"}
    rows = [
        make_row(method="bsam") | lost,
        make_row(0.5, method="sgd"),
        make_row(0.5, method="sam"),
        make_row(0.4, method="f3eo"),
    ]
    places = standings(rows, "digits-mlp")
    assert [place.standings["cost"].rank for place in places] == [1, 1, 3, None]
    assert places[-1].method == "bsam" and places[-1].error == "no"
    console = Console(record=True, width=120)
    console.print(table(places, "digits-mlp"))
    text = console.export_text()
    assert "failed" in text and "equal time" not in text
