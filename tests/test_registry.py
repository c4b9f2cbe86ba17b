"""A registry: how names are registered, what is refused, and looks that nobody shares."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

from mpstudy.errors import StudyError
from mpstudy.pruners import PRUNERS
from mpstudy.registry import FREE_COLOURS, FREE_MARKERS, Look, Registry
from mpstudy.sparse import METHODS
from mpstudy.sparse.importance import ELEMENTWISE


@dataclass(frozen=True)
class Record:
    function: object
    look: Look | None = None
    heavy: bool = False


@pytest.fixture
def registry():
    return Registry("method", Record)


def test_a_decorated_function_stays_itself_and_its_facts_are_kept(registry):
    @registry.register("one", heavy=True)
    def one():
        return 1

    assert one() == 1
    assert registry["one"] == Record(one, None, True)
    assert registry["one"].function is one


def test_names_come_in_the_order_of_registration(registry):
    for name in "zebra", "ant", "mole":
        registry.add(name, Record(name))
    assert list(registry) == ["zebra", "ant", "mole"] and len(registry) == 3
    assert [record.function for record in registry.values()] == ["zebra", "ant", "mole"]


def test_an_unknown_name_names_the_kind_and_the_known_ones(registry):
    registry.add("one", Record(1))
    registry.add("another", Record(2))
    assert "three" not in registry
    with pytest.raises(StudyError, match="^unknown method 'three'; known: another, one$"):
        registry["three"]


def test_a_name_is_registered_once(registry):
    registry.add("one", Record(1))
    with pytest.raises(StudyError, match="method 'one' is registered already"):
        registry.add("one", Record(2))
    with pytest.raises(StudyError, match="method 'one' is registered already"):
        registry.register("one")(print)
    assert registry["one"] == Record(1)


def test_a_look_that_is_taken_is_refused(registry):
    registry.add("one", Record(1, Look("one", "#000000", "o")))
    registry.add("two", Record(2, Look("two", "#000000", "s")))
    with pytest.raises(StudyError, match="method 'three' has the look of 'two'; choose another colour or marker"):
        registry.add("three", Record(3, Look("three", "#000000", "s")))
    assert "three" not in registry


def test_names_without_a_look_get_free_ones_in_order(registry):
    registry.add("a", Record(1))
    registry.add("b", Record(2, Look("b", FREE_COLOURS[0], FREE_MARKERS[0])))
    registry.add("c", Record(3))
    assert registry.look("b") == registry["b"].look
    assert registry.look("a") == Look("a", FREE_COLOURS[1], FREE_MARKERS[1])  # the first pair is taken by b
    assert registry.look("c") == Look("c", FREE_COLOURS[2], FREE_MARKERS[2])


def test_free_looks_end(registry):
    count = len(FREE_COLOURS) * len(FREE_MARKERS)
    for index in range(count + 1):
        registry.add(f"n{index}", Record(index))
    looks = [registry.look(f"n{index}") for index in range(count)]
    assert len({(look.colour, look.marker) for look in looks}) == count
    with pytest.raises(StudyError, match=f"no free look is left for method 'n{count}'; register it with one"):
        registry.look(f"n{count}")


# --- The looks of the package ------------------------------------------------------------------------------------

# What people without red, green and blue cones see of linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
SIGHT = [
    np.eye(3),
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
]
XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def seen(colour, sight) -> np.ndarray:
    """CIE L*a*b* of a colour as somebody sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = XYZ @ np.clip(sight @ linear, 0, 1) / [0.9505, 1, 1.089]
    x, y, z = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def looks() -> dict[str, list[Look]]:
    """Those that may stand in one figure: pruners, and methods with masks by scores."""
    by_scores = [PRUNERS.look(name) for name in ELEMENTWISE]
    return {
        "pruners": [PRUNERS.look(name) for name in PRUNERS],
        "methods": [METHODS.look(name) for name in METHODS] + by_scores,
    }


@pytest.mark.parametrize("shown", looks().values(), ids=looks())
def test_no_two_names_share_a_look(shown):
    assert len({(look.colour, look.marker) for look in shown}) == len(shown)
    assert {look.marker for look in shown} <= {str(marker) for marker in Line2D.markers}


@pytest.mark.parametrize("registry", [PRUNERS, METHODS], ids=lambda registry: registry.kind)
def test_labels_are_the_names(registry):
    assert [registry.look(name).label for name in registry] == list(registry)


def test_no_two_pruners_share_a_colour_or_a_marker():
    pruners = looks()["pruners"]
    assert len({look.colour for look in pruners}) == len({look.marker for look in pruners}) == len(pruners)


@pytest.mark.parametrize("shown", looks().values(), ids=looks())
def test_colours_are_told_apart_by_the_colour_blind(shown):
    for first, second in combinations({look.colour: look for look in shown}.values(), 2):
        for sight in map(np.array, SIGHT):
            distance = np.linalg.norm(seen(first.colour, sight) - seen(second.colour, sight))
            assert distance > 10, f"{first.label} and {second.label}"  # some four times what is just noticed
