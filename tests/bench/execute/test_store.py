import errno
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from f3eo.bench.execute import disk
from f3eo.bench.execute import store as module
from f3eo.bench.execute.store import Store, read


def row(key, value=0):
    """The least that is a row, and a value."""
    config = {"options": {}, "budget": 1}
    entries = {name: None for name in ("error", "traceback", "steps", "gradient_equivalents")}
    entries |= {"final": None, "curve": None, "warnings": [], "versions": {}, "machine": {}}
    entries |= {"task": "t", "method": "m", "seed": 0, "status": "failed", "config": config}
    return {"key": key, "value": value, **entries}


def always(row):
    return True


def never(row):
    return False


def test_rows_come_back_the_newest_of_each_key(tmp_path):
    store = Store(tmp_path)
    for one in (row("a"), row("b"), row("a", 1)):
        store.append(one)
    assert Store(tmp_path).arrange(always, always) == ([row("a", 1), row("b")], 0)


def test_each_row_is_on_the_disk_before_append_returns(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(disk.os, "fsync", synced.append)
    Store(tmp_path).append(row("a"))
    assert len(synced) == 1
    assert json.loads((tmp_path / "results.jsonl").read_text()) == row("a")


def test_a_truncated_last_line_is_dropped_and_the_next_row_is_whole(tmp_path):
    store = Store(tmp_path)
    store.append(row("a"))
    store.append(row("b"))
    whole = store.results.read_bytes()
    store.results.write_bytes(whole[:-5])
    again = Store(tmp_path)
    assert again.arrange(always, always) == ([row("a")], 0)
    assert again.moved == 1
    assert again.damaged.read_bytes() == whole.splitlines(keepends=True)[1][:-5] + b"\n"
    again.append(row("c"))
    assert read(again.results) == ([row("a"), row("c")], [])


@pytest.mark.parametrize(
    "junk",
    [
        b"not json\n",
        b"[1]\n",
        b'{"no": "key"}\n',
        b'{"key": "abc"}\n',
        b"\xff\xfe\n",
        b"\n",
        module._line(row("c") | {"status": "finished"}),
        module._line(row("c") | {"config": []}),
        module._line(row("c", "?")).replace(b'"?"', b"NaN"),
    ],
)
def test_a_damaged_line_in_the_middle_costs_only_itself(tmp_path, junk):
    store = Store(tmp_path)
    store.append(row("a"))
    with store.results.open("ab") as file:
        file.write(junk)
    store.append(row("b"))
    again = Store(tmp_path)
    assert again.arrange(always, always)[0] == [row("a"), row("b")]
    assert again.damaged.read_bytes() == junk and again.moved == 1


@pytest.mark.parametrize("name, apart", [("results", "damaged"), ("trials", "damaged-trials")])
def test_what_was_set_aside_is_repaired_too(tmp_path, name, apart):
    store = Store(tmp_path, name)
    disk.write(store.earlier, module._line(row("a")) + b"half")
    again = Store(tmp_path, name)
    assert again.arrange(always, always) == ([row("a")], 0)
    assert (tmp_path / f"{apart}.jsonl").read_bytes() == b"half\n"
    assert read(again.earlier) == ([], [])


def test_a_disk_that_fills_up_takes_the_whole_row_or_nothing(tmp_path, monkeypatch):
    """Writing takes 100 bytes, then there is no room."""
    store, write, room = Store(tmp_path), os.write, [10**6]

    def limited(descriptor, data):
        if not (taken := min(len(data), room[0])):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= taken
        return write(descriptor, data[:taken])

    monkeypatch.setattr(disk.os, "write", limited)
    store.append(row("a"))
    before, room[0] = store.results.read_bytes(), 100
    with pytest.raises(OSError, match="No space left") as caught:
        store.append(row("b"))
    assert caught.value.filename == str(store.results)
    assert store.results.read_bytes() == before


@given(st.integers(min_value=0, max_value=200))
def test_cut_anywhere_only_the_cut_row_is_lost(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "results.jsonl"
    lines = [module._line(row(key, "ü" * 3)) for key in "abcd"]
    path.write_bytes(b"".join(lines)[:cut])
    whole = sum(cut >= sum(map(len, lines[: i + 1])) for i in range(4))
    rows, damaged = read(path)
    assert [one["key"] for one in rows] == list("abcd"[:whole])
    assert bool(damaged) == (0 < cut < sum(map(len, lines)) and cut != sum(map(len, lines[:whole])))


def test_rows_set_aside_come_back_with_their_configuration(tmp_path):
    store = Store(tmp_path)
    store.append(row("a", 1))
    store.append(row("b", 2))
    assert store.arrange(lambda one: one["value"] == 2, always) == ([row("b", 2)], 1)
    assert read(store.results)[0] == [row("b", 2)]
    assert read(store.earlier)[0] == [row("a", 1)]
    assert store.arrange(lambda one: one["value"] == 1, always) == ([row("a", 1)], 1)
    assert store.arrange(always, never) == ([row("a", 1)], 0)
    kept, aside = store.arrange(always, always)
    assert (sorted(one["key"] for one in kept), aside) == (["a", "b"], 0)


def test_a_crash_while_sorting_loses_no_row(tmp_path, monkeypatch):
    store = Store(tmp_path)
    for key in "abc":
        store.append(row(key))
    replace, done = module._replace, []

    def crashing(path, rows):
        if done:
            raise KeyboardInterrupt
        replace(path, rows)
        done.append(path)

    monkeypatch.setattr(module, "_replace", crashing)
    with pytest.raises(KeyboardInterrupt):
        store.arrange(lambda one: one["key"] == "a", always)
    monkeypatch.undo()
    kept, _ = Store(tmp_path).arrange(always, always)
    assert sorted(one["key"] for one in kept) == ["a", "b", "c"]


def test_numbers_that_are_none_are_refused_rather_than_written(tmp_path):
    with pytest.raises(ValueError):
        Store(tmp_path).append(row("a", float("nan")))
    assert read(tmp_path / "results.jsonl") == ([], [])


def test_nothing_to_sort_rewrites_nothing(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.append(row("a"))
    monkeypatch.setattr(module, "_replace", lambda *_: pytest.fail("rewritten"))
    store.arrange(always, always)
