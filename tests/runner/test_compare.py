"""The comparison of two results, cell by cell."""

import pytest

from mpstudy.errors import StudyError
from mpstudy.runner.compare import compare
from mpstudy.runner.tolerances import Tolerances

ROWS = [
    {"method": "l1", "ratio": 0.2, "seed": 0, "ppl": 20.0, "seconds": 3.0},
    {"method": "l1", "ratio": 0.4, "seed": 1, "ppl": 40.0, "seconds": 3.5},
]
PROFILE = {"tolerances": {"default": {"rel": 0.01}, "ratio": "exact"}, "timings": ["seconds"]}


def result(rows, parameters=None, **tables):
    tables = {"quality": rows} | tables
    return {
        "run": "run",
        "parameters": {"seeds": [0, 1]} | (parameters or {}),
        "tables": {name: {"units": {}, "rows": rows} for name, rows in tables.items() if rows},
    }


def cells(old, new, whole=True, **profile):
    return compare(old, new, Tolerances.read("p", PROFILE | profile), whole)


def changed(index=1, **values):
    return [row | values if i == index else row for i, row in enumerate(ROWS)]


def statuses(found):
    return [(cell.column, cell.status) for cell in found]


def test_every_cell_is_compared_or_has_a_reason():
    found = cells(result(ROWS), result(changed(ppl=40.3, seconds=99.0)))
    assert statuses(found) == [("ppl", "equal"), ("seconds", "timing"), ("ppl", "within"), ("seconds", "timing")]
    assert found[2].row == (("method", "l1"), ("ratio", 0.4), ("seed", 1))
    assert (found[2].old, found[2].new, found[2].bound) == (40.0, 40.3, {"rel": 0.01})


@pytest.mark.parametrize(
    "bound, old, new, status",
    [
        ({"rel": 0.01}, 40.0, 40.4, "within"),
        ({"rel": 0.01}, 40.0, 40.5, "outside"),
        ({"rel": 0.01}, -40.0, -40.3, "within"),
        ({"rel": 0.01}, 0.0, 1e-9, "outside"),
        ({"abs": 0.5}, 0.0, 0.5, "within"),
        ({"abs": 0.5}, 0.0, -0.51, "outside"),
        ({"abs": 0.5, "rel": 0.25}, 4.0, 5.5, "within"),
        ({"abs": 0.5, "rel": 0.25}, 4.0, 5.6, "outside"),
        ({"abs": 9.0}, None, 1.0, "outside"),
        ({"abs": 9.0}, 1.0, None, "outside"),
        ({"abs": 9.0}, 1.5, True, "outside"),
        ({"abs": 0.0}, float("nan"), float("nan"), "equal"),
        ({"abs": 9.0}, float("nan"), 1.0, "outside"),
        ({"abs": 0.0}, None, None, "equal"),
        ({"abs": 1}, 7, 8, "within"),
        ({"abs": 1}, 7, 9, "outside"),
        ("equal", "no", "no", "equal"),
        ("equal", "no", "yes", "outside"),
        ("equal", True, False, "outside"),
        ("equal", 3, 4, "outside"),
    ],
)
def test_a_bound_is_a_bound(bound, old, new, status):
    (cell,) = cells(result([{"x": old}]), result([{"x": new}]), tolerances={"x": bound})
    assert (cell.column, cell.old is old, cell.new is new, cell.status) == ("x", True, True, status)


def test_without_a_default_numbers_must_be_equal():
    (cell,) = cells(result([{"x": 1.0}]), result([{"x": 1.0 + 1e-15}]), tolerances={})
    assert cell.status == "outside"


def test_a_tolerance_of_one_table_counts_more_than_the_plain_one():
    old, new = (result(None, first=[{"x": 1.0}], second=[{"x": 1.0 + gap}]) for gap in (0, 0.5))
    found = cells(old, new, tolerances={"x": {"abs": 0.1}, "second.x": {"abs": 1}})
    assert statuses(found) == [("x", "equal"), ("x", "within")]


def test_a_number_can_name_a_row_in_one_table_and_be_a_result_in_another():
    def step(*numbers):
        return [{"gradients": n, "residual": 1.0 / n} for n in numbers]

    old = result(None, trace=step(2, 3), end=[{"seed": 0, "gradients": 3}])
    new = result(None, trace=step(2, 3), end=[{"seed": 0, "gradients": 4}])
    found = cells(old, new, tolerances={"trace.gradients": "exact", "gradients": {"abs": 0}})
    assert statuses(found) == [("residual", "equal"), ("residual", "equal"), ("gradients", "outside")]


@pytest.mark.parametrize(
    "new, shown",
    [
        (result(ROWS[:1]), ("quality", "", "a row", "no such row")),
        (result([*ROWS, ROWS[1] | {"seed": 2}]), ("quality", "", "no such row", "a row")),
        (result(changed(ratio=0.3)), ("quality", "", "no such row", "a row")),
        (result(None), ("quality", "", "a table of 2", "no such table")),
        (result(ROWS, more=ROWS), ("more", "", "no such table", "a table of 2")),
        (result([row | {"new": 1.0} for row in ROWS]), ("quality", "new", "no such column", "a column")),
        (
            result([{k: v for k, v in r.items() if k != "ppl"} for r in ROWS]),
            ("quality", "ppl", "a column", "no such column"),
        ),
        (result(ROWS, {"rho": 0.1}), ("parameters", "rho", None, 0.1)),
        (result(ROWS, {"seeds": [0, 1, 2]}), ("parameters", "seeds", [0, 1], [0, 1, 2])),
    ],
)
def test_what_only_one_side_of_a_whole_report_has_is_outside(new, shown):
    found = [(c.table, c.column, c.old, c.new) for c in cells(result(ROWS), new) if c.status == "outside"]
    assert shown in found


def test_a_table_of_names_alone_is_compared_by_its_rows():
    old, new = result([{"name": "a"}, {"name": "b"}]), result([{"name": "a"}])
    assert [(c.row, c.status) for c in cells(old, new)] == [((("name", "a"),), "equal"), ((("name", "b"),), "outside")]


def test_of_a_part_only_the_rows_that_both_have_are_compared():
    new = result([ROWS[1] | {"ppl": 50.0}, ROWS[1] | {"seed": 2}], {"seeds": [1, 2]})
    found = cells(result(ROWS, more=ROWS), new, whole=False)
    assert statuses(found) == [
        ("ppl", "outside"),
        ("seconds", "timing"),
        ("ppl", "unmatched"),
        ("seconds", "timing"),
    ]
    pooled = cells(result(ROWS), new, whole=False, pooled=["quality"])
    assert statuses(pooled)[2:] == [("ppl", "pooled"), ("seconds", "timing")], "of other seeds there are other rows"
    names = cells(result([{"name": "a"}]), result([{"name": "b"}]), whole=False)
    assert statuses(names) == [("", "unmatched")]
    assert cells(result(ROWS), result(ROWS, more=ROWS), whole=False)[-1].status == "outside", "a table of nowhere"


def test_what_pools_over_seeds_is_compared_in_whole_reports_only():
    mean = [{"method": "l1", "mean": 30.0, "p": 0.5}]
    old, new = result(None, means=mean), result(None, means=[mean[0] | {"mean": 20.0}])
    assert statuses(cells(old, new, pooled=["means"])) == [("mean", "outside"), ("p", "equal")]
    assert statuses(cells(old, new, pooled=["means"], whole=False)) == [("mean", "pooled"), ("p", "pooled")]
    assert statuses(cells(old, new, pooled=["means.mean"], whole=False)) == [("mean", "pooled"), ("p", "equal")]
    fewer = result(None, means=[{"method": "l1", "mean": 30.0}])
    assert "outside" not in dict(statuses(cells(old, fewer, pooled=["means"], whole=False))).values()


@pytest.mark.parametrize(
    "seeds, expected", [([0, 1], "equal pooled"), ([0, 1, 2], "equal equal"), ([0, 2, 1], "pooled pooled")]
)
def test_a_row_that_depends_on_the_next_seed_is_compared_where_that_is_the_same(seeds, expected):
    rows = [{"change": "sample", "seed": seed, "x": 1.0} for seed in (0, 1)]
    old, new = result(rows, {"seeds": [0, 1, 2]}), result(rows, {"seeds": seeds})
    found = cells(old, new, whole=False, next_seed={"change": "sample"})
    assert " ".join(cell.status for cell in found) == expected
    other = [row | {"change": "noise"} for row in rows]
    found = cells(
        result(other, {"seeds": [0, 1, 2]}), result(other, {"seeds": seeds}), False, next_seed={"change": "sample"}
    )
    assert {cell.status for cell in found} == {"equal"}


def test_two_rows_of_one_name_are_an_error():
    with pytest.raises(StudyError, match="run, table quality: two rows are named .*'seed': 0.*`exact`"):
        cells(result([ROWS[0], ROWS[0] | {"ratio": 0.4}]), result(ROWS), tolerances={})


@pytest.mark.parametrize(
    "tolerance", ["exactly", {"about": 1}, {}, {"rel": -1}, {"abs": "x"}, {"rel": True}, 0.1, None]
)
def test_a_tolerance_that_is_none_is_named(tolerance):
    with pytest.raises(StudyError, match="profile p: tolerance of ppl must be"):
        Tolerances.read("p", {"tolerances": {"ppl": tolerance}})


def test_the_default_is_a_bound_and_lists_hold_names():
    with pytest.raises(StudyError, match="tolerance of default must be"):
        Tolerances.read("p", {"tolerances": {"default": "exact"}})
    with pytest.raises(StudyError, match="timings must be a list of names"):
        Tolerances.read("p", {"timings": [1]})


@pytest.mark.parametrize(
    "profile, message",
    [
        ({"tolerances": {"pppl": {"abs": 1}}}, "unknown column .* 'pppl'; known: method, ppl, ratio, seconds, seed"),
        ({"tolerances": {"other.ppl": {"abs": 1}}}, "unknown column .* 'other.ppl'"),
        ({"timings": ["second"]}, "unknown column .* 'second'"),
        ({"sentences": ["words"]}, "unknown column .* 'words'"),
        ({"next_seed": {"move": "sample"}}, "unknown column .* 'move'"),
        ({"pooled": ["means"]}, "unknown table .* 'means'; known: quality"),
    ],
)
def test_an_entry_that_names_nothing_is_an_error(profile, message):
    Tolerances.read("p", PROFILE | {"pooled": ["quality", "quality.ppl"]}).check_names([result(ROWS)])
    with pytest.raises(StudyError, match=message):
        Tolerances.read("p", profile).check_names([result(ROWS)])
