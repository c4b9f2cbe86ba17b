"""Each public function of the measures and the statistics shows an example, and the example says what it gives."""

import doctest
import inspect

import pytest

from mpstudy.stability import agreement
from mpstudy.stats import estimate, pairs, significance, summary, verdict

FUNCTIONS = [
    pytest.param(function, id=f"{module.__name__}.{name}")
    for module in (agreement, estimate, pairs, significance, summary, verdict)
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not name.startswith("_")
]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_example_of_a_function_holds(function):
    (example,) = doctest.DocTestFinder().find(function, globs=vars(inspect.getmodule(function)))
    assert example.examples, "no example"
    said = []
    failed, _ = doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert not failed, "".join(said)
