"""README's findings hold the numbers of the results, digit for digit, and no others."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from helpers.tiny_study import TinyStudy, claim, contrast

from mpstudy.errors import StudyError
from mpstudy.runner.claims import VERDICTS, load_claims
from mpstudy.runner.findings import Findings, block, findings, of_readme, quoted, shown, write_block
from mpstudy.runner.judged import Judged, judged
from mpstudy.runner.wording import number
from mpstudy.store.paths import REPORTS

TEMPLATE = """{% filter paragraph %}
{% block abstract %}
{{ claims["a"].sentence }}
{{ claims["b"].sentence }}
{% endblock %}
{% endfilter %}


{{ verdicts }}

{% filter bullet %}
{% if claims["a"].verdict == "supported" %}Do{% else %}Do not{% endif %} it.
{% endfilter %}

{{ objections }}
"""


@pytest.fixture
def study(tmp_path):
    made = TinyStudy(tmp_path)
    made.notebook("write", "seeds = [0, 1, 2]", "pass")
    made.profile([made.run("write")])
    made.claims([claim("a"), claim("b")], [{"objection": "So | so.", "claims": ["a", "b"]}])
    (made.notebooks / "findings.md.j2").write_text(TEMPLATE)
    made.results("write", contrast("a", 30.12649), contrast("b", -0.0123456, se=0.5))
    return made


@pytest.fixture
def readme(tmp_path):
    file = tmp_path / "README.md"
    file.write_text("# Title\n\n<!-- findings -->\nold\n<!-- /findings -->\n\n## Rest\n")
    return file


def test_numbers_go_from_the_result_to_the_readme_and_back(study, readme):
    declared = load_claims(study.notebooks)
    assert write_block(readme, findings(declared, study.home).markdown())
    text = readme.read_text()
    assert text.startswith("# Title\n\n<!-- findings -->\nYes: ") and text.endswith("<!-- /findings -->\n\n## Rest\n")
    unrounded = {one["id"]: one for one in (one.as_json() for one in judged(declared, study.home))}
    for line in re.findall(r"^\| `(\w)`: .*$", text, flags=re.MULTILINE):
        one = unrounded[line]
        found = re.search(rf"`{line}`: .*? \| (\S+) \[(\S+), (\S+)\] points \| > 0 \| (.*?) \|", text).groups()
        assert found[:3] == tuple(number(one[name], signed=True) for name in ("estimate", "low", "high"))
        detectable = f", detectable: {number(one['detectable'])}" if line == "b" else ""
        assert found[3] == one["verdict"] + detectable
        for shown_text, name in zip(found, ("estimate", "low", "high"), strict=False):
            assert float(shown_text.replace("−", "-")) == float(f"{one[name]:.3g}")
    assert text.count("| `") == 2 and "\n* Do it.\n" in text
    assert "| So \\| so. | a<br>b | supported<br>not resolved | Yes: +30.1" in text
    before = readme.read_bytes()
    write_block(readme, findings(declared, study.home).markdown())
    assert readme.read_bytes() == before and block(readme) == findings(declared, study.home).markdown()


def test_the_template_knows_how_much_text_and_how_many_samples_there_are(study):
    (study.notebooks / "findings.md.j2").write_text("{{ tokens }} tokens, {{ samples }} samples")
    assert findings(load_claims(study.notebooks), study.home).markdown() == "– tokens, – samples\n"
    rows = contrast("a", 1.0) | {"tokens": 2540, "n": 6}, contrast("b", 1.0) | {"tokens": 1524, "n": 6}
    study.results("write", *rows)
    assert findings(load_claims(study.notebooks), study.home).markdown() == "1,524 to 2,540 tokens, 6 samples\n"


def test_a_changed_number_is_seen(study, readme):
    declared = load_claims(study.notebooks)
    write_block(readme, findings(declared, study.home).markdown())
    study.results("write", contrast("a", 30.2), contrast("b", -0.0123456, se=0.5))
    assert block(readme) != findings(declared, study.home).markdown()


def test_advice_follows_the_verdict_and_the_abstract_is_plain_text(study):
    study.results("write", contrast("a", -30))
    found = findings(load_claims(study.notebooks), study.home)
    assert found.abstract == "No: −30.0 points, not 0. Not computed: write has recorded no contrast b."
    assert "\n* Do not it.\n" in found.markdown()


def test_a_page_has_findings_once_a_claim_is_computed(study):
    declared = load_claims(study.notebooks)
    assert shown(declared, study.home).claims[0]["command"] == "python -m mpstudy reproduce --profile tiny --claim a"
    assert shown(declared, study.home).claims[0]["cost"] == "0.1 min, 0.5 GB"
    study.results("write")
    assert shown(declared, study.home) is None


def test_a_claim_with_a_profile_has_the_command_and_the_cost_of_that(study):
    shutil.copy(study.profiles / "tiny.yaml", study.profiles / "other.yaml")
    study.claims([claim("a"), claim("b", profile="other", minutes={"other": 7}, memory_gb={"other": 2})])
    _, texts = findings(load_claims(study.notebooks), study.home).claims
    assert texts["command"] == "python -m mpstudy reproduce --profile other --claim b"
    assert texts["cost"] == "7 min, 2 GB"


def test_the_report_of_a_profile_that_a_claim_names_is_about_that_claim(study):
    shutil.copy(study.profiles / "tiny.yaml", study.profiles / "other.yaml")
    other = claim("b", contrast="a", profile="other", minutes={"other": 7}, memory_gb={"other": 2})
    asked = [{"objection": "So.", "claims": ["a", "b"]}, {"objection": "No.", "claims": ["a"]}]
    study.claims([claim("a"), other], asked)
    study.results("write", contrast("a", 30.0), report="other")
    declared = load_claims(study.notebooks)
    found = shown(declared, study.reports / "other")
    assert [one["command"] for one in found.claims] == ["python -m mpstudy reproduce --profile other --claim b"]
    assert [(one["objection"], len(one["claims"])) for one in found.objections] == [("So.", 1)]
    beside = findings(declared, study.home)
    text = replace(findings(declared, study.home), beside=(beside,)).markdown()
    assert re.search(r"^\| `b`: .*\| – \|$", text, flags=re.MULTILINE), "of another profile neither report decides"


def test_a_template_that_names_no_claim_is_an_error(study):
    (study.notebooks / "findings.md.j2").write_text('{{ claims["z"].sentence }}')
    with pytest.raises(StudyError, match="findings.md.j2: 'dict object' has no attribute 'z'"):
        findings(load_claims(study.notebooks), study.home).markdown()


def test_a_readme_without_marks_is_left_alone(readme):
    readme.write_text("# Title\n")
    assert write_block(readme, "new\n") is False and readme.read_text() == "# Title\n"


@pytest.mark.parametrize(
    "marks", ["<!-- findings -->", "<!-- /findings --> <!-- findings -->", "<!-- findings -->" * 2]
)
def test_marks_that_do_not_match_are_an_error(readme, marks):
    readme.write_text(f"# Title\n{marks}\n")
    with pytest.raises(StudyError, match="README.md must hold <!-- findings --> and <!-- /findings --> once"):
        write_block(readme, "new\n")
    assert readme.read_text() == f"# Title\n{marks}\n"


def test_the_full_report_is_quoted_once_it_is_whole_and_the_other_stands_beside_it(study):
    for name in ("laptop", "full"):
        shutil.copy(study.profiles / "tiny.yaml", study.profiles / f"{name}.yaml")
    declared = load_claims(study.notebooks)
    assert quoted(declared, study.reports) == ["laptop"]
    shutil.copytree(study.home, study.reports / "laptop")
    (study.reports / "full/results").mkdir(parents=True)
    assert quoted(declared, study.reports) == ["laptop"]
    study.results("write", contrast("a", -5.0), contrast("b", 1.0))
    shutil.copy(study.home / "results/write.json", study.reports / "full/results/write.json")
    assert quoted(declared, study.reports) == ["full", "laptop"]
    text = of_readme(declared, study.reports).markdown()
    assert "| claim | measured | claimed | verdict | in `laptop` |" in text
    (row,) = re.findall(r"^\| `a`: .*$", text, flags=re.MULTILINE)
    assert re.search(r"\| −5.00 \[.*\] points \| > 0 \| refuted \| \+30.1 \[.*\] points: supported \|$", row)


def test_the_abstract_of_the_study_has_at_most_120_words_however_it_comes_out():
    declared = load_claims()
    rows = {True: contrast("any", 0.0123), False: contrast("any", 0.0123, unit="% of the removed units")}
    for choose in (max, min):  # of each claim the longest sentence, then the shortest
        chosen = [choose(VERDICTS, key=lambda word, one=one: len(one.says[word].split())) for one in declared.claims]
        outcome = zip(declared.claims, chosen, strict=True)
        outcome = [Judged(one, word, rows[one.difference], 0.5, 0.5, 0.01) for one, word in outcome]
        found = Findings(declared, "full", tuple(outcome))
        assert 40 < len(found.abstract.split()) <= 120
        assert len(re.findall(r"^\* ", found.markdown(), flags=re.MULTILINE)) == 4
        for one in found.judged:
            assert "{" not in one.sentence


def test_the_numbers_of_the_abstract_are_placeholders():
    """With every claim missing no number is left but those of the model's name."""
    declared = load_claims()
    found = Findings(declared, "full", tuple(Judged(one, why="no result") for one in declared.claims))
    assert re.findall(r"\d+", found.abstract.replace("4-bit", "")) == []
    assert "not computed" in found.markdown()


def test_the_committed_report_gives_findings():
    found = of_readme(load_claims(), REPORTS)
    primary = [one for one in found.judged if one.claim.primary]
    assert 0 < len(primary) <= 12 and json.dumps([one.as_json() for one in found.judged], allow_nan=False)


@pytest.mark.parametrize(
    "se, verdict, reach", [(0.9, "not resolved", False), (1.1, "not resolved", True), (1.1, "refuted", False)]
)
def test_equality_is_out_of_reach_where_an_estimate_of_0_would_not_show_it(se, verdict, reach):
    """Student's 95 % quantile is 2.015 at 5 degrees of freedom: 0.9 and 1.1 times it lie on either side of 2 %."""
    claim = next(one for one in load_claims().claims if one.id == "quality-same-data")
    row = contrast("quality-same-data", 3.0) | {"se": se, "df": 5, "n": 6}
    assert Judged(claim, verdict, row).out_of_reach is reach


def test_the_abstract_that_the_readme_quotes_has_at_most_120_words():
    assert 40 < len(of_readme(load_claims(), REPORTS).abstract.split()) <= 120
