"""One look for all figures: that of the registry, files beside each other, the stamp, offsets and ticks."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from helpers.artists import NOTE, grid, levels, points, words
from matplotlib.colors import to_hex

from mpstudy.errors import StudyError
from mpstudy.figures import look
from mpstudy.pruners import PRUNERS
from mpstudy.stats import summarise

SEEDS = [0, 1, 2]


@pytest.fixture
def axis():
    return plt.subplots()[1]


@pytest.fixture
def rows():
    return summarise(grid(x=[1.0, 2.0], seed=SEEDS).assign(value=[1.0, 2.0, 6.0, 4.0, 4.5, 8.0]), ["x"], "value")


def test_the_theme_sets_sizes_and_embeds_fonts():
    with plt.rc_context():
        look.theme()
        assert plt.rcParams["font.size"] == 8 and plt.rcParams["legend.fontsize"] == 7
        assert plt.rcParams["pdf.fonttype"] == 42 and not plt.rcParams["axes.spines.top"]


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_has_the_look_of_its_registration(name):
    own = PRUNERS[name].look
    assert look.look(name) == {"color": own.colour, "marker": own.marker, "markersize": 4, "label": name}


def test_a_method_looks_like_its_pruner_with_white_markers_for_what_sets_it_apart():
    plain, special = look.look_of("taylor"), look.look_of("taylor, 7 times the data")
    assert plain == look.look("taylor")
    assert special == plain | {"label": "taylor, 7 times the data", "markerfacecolor": "white"}
    half = {"fillstyle": "left", "markerfacecoloralt": "white"}
    assert look.look_of("taylor, mean of 7 scores") == plain | {"label": "taylor, mean of 7 scores"} | half
    with pytest.raises(StudyError, match="pruner 'mine' is not registered"):
        look.look_of("mine, more data")


def test_pruners_come_in_the_order_of_the_study_not_of_the_frame():
    assert look.present(pd.DataFrame({"pruner": ["moreau", "l1", "taylor", "l1"]})) == ["l1", "taylor", "moreau"]


def test_a_pruner_that_is_not_registered_is_an_error_that_says_what_to_do():
    with pytest.raises(StudyError, match=r"pruner 'mine' is not registered, .* \(CONTRIBUTING.md, \"Adding a pruner\""):
        look.present(pd.DataFrame({"pruner": ["taylor", "mine"]}))


def test_points_are_means_with_intervals(axis, rows):
    look.points(axis, rows["x"], rows, "taylor", line=True)
    shown = points(axis)["taylor"]
    assert list(shown.places) == [1, 2] and list(shown.mean) == [3, 5.5]
    assert shown.low == pytest.approx(rows["low"]) and shown.high == pytest.approx(rows["high"])
    own = PRUNERS["taylor"].look
    assert shown.look == (own.colour, own.marker) and shown.face == own.colour and shown.style == "-"


def test_points_may_stand_across_without_a_line(axis, rows):
    look.points(axis, rows["x"], rows, "moreau", line=False, across=True)
    shown = points(axis, across=True)["moreau"]
    assert list(shown.places) == [1, 2] and list(shown.mean) == [3, 5.5]
    assert shown.high == pytest.approx(rows["high"])
    assert shown.style == "None"


def test_a_dashed_line_has_white_markers_and_its_own_label(axis, rows):
    look.points(axis, rows["x"], rows, "moreau", line=True, style="--", label="Wikipedia")
    shown = points(axis)["Wikipedia"]
    assert shown.face == to_hex("white") and shown.style == "--"


def test_a_single_seed_has_no_interval(axis):
    rows = summarise(pd.DataFrame({"x": [1.0], "value": [2.0]}), ["x"], "value")
    look.points(axis, rows["x"], rows, "taylor", line=True)
    shown = points(axis)["taylor"]
    assert shown.low == shown.mean == shown.high == 2


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (2, [-0.5, 0.5]), (3, [-1, 0, 1])])
def test_points_are_dodged_about_their_place(count, expected):
    assert list(look.dodge(count, 1)) == expected


def test_the_dense_model_is_a_line_with_its_name(axis):
    look.mark_dense(axis, 17.5)
    assert levels(axis) == [17.5] and words(axis) == ["dense"]
    assert axis.texts[0].xy == (0.99, 17.5)


def test_the_stamp_stands_in_the_figure(axis):
    look.stamp(axis.figure, NOTE)
    assert words(axis.figure) == [NOTE]


def test_a_figure_is_saved_with_its_numbers_and_caption(axis, tmp_path):
    data = pd.DataFrame({"pruner": ["taylor"], "jaccard": [0.75]})
    axis.plot([0, 1])
    look.save(axis.figure, data, tmp_path / "shown", "What it shows.")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shown.csv", "shown.pdf", "shown.png", "shown.txt"]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "shown.csv"), data)
    assert (tmp_path / "shown.txt").read_text() == "What it shows.\n"
    first = (tmp_path / "shown.pdf").read_bytes()
    look.save(axis.figure, data, tmp_path / "shown", "What it shows.")
    assert (tmp_path / "shown.pdf").read_bytes() == first  # no date in it
