"""Profiles: the grid of runs a study makes, checked strictly before the first of them starts.

A profile is a flat YAML file in ``notebooks/profiles``::

    description: The whole study on two CPU cores.
    threads: 2                # of each notebook's kernel
    jobs: 1                   # notebooks at a time, where there are cores for all their threads
    memory_gb: 6              # peak of one kernel
    disk_gb: 2                # needed free space
    reference_seconds: 0.5    # the speed probe on the machine the minutes were measured on
    tolerances:               # of compared columns, and lists of what is not compared: see `tolerances.py`
      default: {rel: 0.01}
      ratio: exact
    timings: [seconds]
    runs:
      - name: 20_moreau_pruning
        notebook: 20_moreau_pruning
        minutes: 20           # measured on the reference machine
        needs: []             # names of runs whose results it reads
        parameters: {seeds: [0, 1, 2]}
        quick: {seeds: [0]}   # what `reproduce --quick` changes to stay cheap; leave out what it cannot afford
        quick_minutes: 7      # what is then left of the minutes
"""

import ast
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import StudyError, check_choice
from ..parameters import Count, Distinct, Entries, NonNegative, Seeds, Table, Text, checked
from ..store.paths import PROFILES
from .tolerances import Tolerances
from .values import parse_yaml, typed

_COMPARISON = {
    "tolerances": Table,
    "timings": Distinct[Text],
    "sentences": Distinct[Text],
    "pooled": Distinct[Text],
    "next_seed": Table,
}
_PROFILE = {
    "description": Text,
    "threads": Count,
    "jobs": Count,
    "memory_gb": NonNegative,
    "disk_gb": NonNegative,
    "reference_seconds": NonNegative,
    "runs": Entries,
} | _COMPARISON
_RUN = {
    "name": Text,
    "notebook": Text,
    "minutes": NonNegative,
    "needs": Distinct[Text],
    "parameters": Table,
    "quick": Table,
    "quick_minutes": NonNegative,
}
MOST_SEEDS = 10_000  # that a count may ask for: more are no study, and a billion fill the memory before any check
READING = {"read", "instability"}  # parameters that name runs
_OPTIONAL = {*_COMPARISON, "jobs", "needs", "parameters", "quick", "quick_minutes"}


@dataclass(frozen=True)
class Run:
    """One run: a notebook with every one of its parameters. ``quick`` overrides some of them, or is None."""

    name: str
    notebook: Path
    parameters: dict
    minutes: float = 0.0
    needs: tuple[str, ...] = ()
    quick: dict | None = None
    quick_minutes: float = 0.0


@dataclass(frozen=True)
class Profile:
    """What one report holds, and the cost it states before it starts."""

    name: str
    runs: tuple[Run, ...]
    description: str = ""
    threads: int = 1
    jobs: int = 1
    memory_gb: float = 0.0
    disk_gb: float = 0.0
    reference_seconds: float = 0.0
    tolerances: Tolerances = Tolerances()

    @property
    def notebooks(self) -> Path:
        """The folder of the notebooks, which holds the claims as well."""
        return self.runs[0].notebook.parent


def notebook_parameters(path: Path) -> dict:
    """Names and defaults from the notebook's cell tagged ``parameters`` (plain ``name = literal`` lines)."""
    cells = [cell for cell in read_cells(path) if is_parameters(cell)]
    if len(cells) != 1:
        raise StudyError(f"{path.name}: exactly one cell must be tagged `parameters`, found {len(cells)}")
    defaults = {}
    for line in ast.parse("".join(cells[0]["source"])).body:
        plain = isinstance(line, ast.Assign) and len(line.targets) == 1 and isinstance(line.targets[0], ast.Name)
        try:
            if not plain:
                raise ValueError("not an assignment")
            defaults[line.targets[0].id] = ast.literal_eval(line.value)
        except ValueError as error:
            where = f"{path.name}, parameters cell, line {line.lineno}"
            raise StudyError(f"{where}: only `name = literal` lines may stand there") from error
    return defaults


def is_parameters(cell: dict) -> bool:
    """Whether a cell is the one that Papermill overrides."""
    return "parameters" in cell.get("metadata", {}).get("tags", [])


def read_cells(path: Path) -> list[dict]:
    """The cells of a notebook file as plain dictionaries; StudyError if there is no such notebook."""
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.ipynb")))
        raise StudyError(f"unknown notebook {path.stem!r}; known: {known}")
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def merge_parameters(notebook: Path, overrides: dict) -> dict:
    """The notebook's defaults with ``overrides``, after every strict check (names, types, meaning)."""
    from . import checks

    parameters = typed_parameters(notebook, overrides)
    checks.validate(parameters)
    return parameters


def typed_parameters(notebook: Path, overrides: dict) -> dict:
    """The notebook's defaults with ``overrides``, their names and types checked, in milliseconds."""
    defaults = notebook_parameters(notebook)
    for name in overrides:
        check_choice(f"parameter of {notebook.stem}", name, defaults)
    return {
        name: typed(f"parameter {name!r} of {notebook.stem}", overrides.get(name, default), default)
        for name, default in defaults.items()
    }


def validate(runs: Iterable[Run]) -> None:
    """Check what the parameters of ``runs`` mean, which may import torch; StudyError for the first that is no good."""
    from . import checks

    for run in runs:
        checks.validate(run.parameters)


def load_profile(name: str, folder: Path = PROFILES) -> Profile:
    """Read ``<folder>/<name>.yaml`` with all of its runs; checks names and types. Notebooks lie beside ``folder``."""
    check_choice("profile", name, [file.stem for file in folder.glob("*.yaml")])
    text = (folder / f"{name}.yaml").read_text(encoding="utf-8")
    raw = checked_keys(f"profile {name}", parse_yaml(text), _PROFILE, _OPTIONAL)
    runs = []
    for index, entry in enumerate(raw.pop("runs"), start=1):
        entry = checked_keys(f"profile {name}, run {index}", entry, _RUN, _OPTIONAL)
        runs.append(_run(entry, folder.parent, runs))
    tolerances = Tolerances.read(name, {key: raw.pop(key) for key in _COMPARISON if key in raw})
    return Profile(name=name, runs=tuple(runs), tolerances=tolerances, **raw)


def _run(entry: dict, notebooks: Path, before: list[Run]) -> Run:
    """One run of a profile; it may need only runs that stand ``before`` it, so there are no cycles."""
    name, known = check_name(entry["name"]), {run.name: run for run in before}
    if name in known:
        raise StudyError(f"two runs have the name {name!r}")
    for needed in entry.get("needs", []):
        check_choice(f"run in needs of {name} (must stand before it)", needed, known)
        if "quick" in entry and known[needed].quick is None:
            raise StudyError(f"run {name} has `quick` but needs {needed}, which has none")
    notebook = notebooks / f"{entry['notebook']}.ipynb"
    parameters = typed_parameters(notebook, entry.get("parameters", {}))
    if "quick" in entry:
        typed_parameters(notebook, parameters | entry["quick"])
    for reading in READING & parameters.keys():
        named = parameters[reading]
        for each in named if isinstance(named, list) else [named]:
            check_choice(f"run in {reading} of {name} (must be one that it needs)", each, entry.get("needs", []))
    return Run(
        name,
        notebook,
        parameters,
        minutes=entry["minutes"],
        needs=tuple(entry.get("needs", [])),
        quick=entry.get("quick"),
        quick_minutes=entry.get("quick_minutes", entry["minutes"]),
    )


def check_name(name: str) -> str:
    """``name`` if it can name a run's files, else a StudyError."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise StudyError(f"run name {name!r} may hold letters, digits, '_', '-' and '.' only")
    return name


def checked_keys(what: str, raw, schema: dict, optional: set[str]) -> dict:
    """``raw`` with known keys of the right types only, all of ``schema`` but the ``optional`` ones."""
    for key in checked(Table, what, raw):
        check_choice(f"key in {what}", key, schema)
    for key in sorted(schema.keys() - optional - raw.keys()):
        raise StudyError(f"{what}: {key} is missing")
    return {key: checked(schema[key], f"{key} in {what}", value) for key, value in raw.items()}


def parse_seeds(text: str) -> list[int]:
    """``"3"`` -> [0, 1, 2]; ``"4,7"`` -> [4, 7] (``"4,"`` is the one seed 4)."""
    try:
        numbers = [int(part) for part in text.split(",") if part]
    except ValueError as error:
        raise StudyError(f"seeds must be a count or a comma list of whole numbers, not {text!r}") from error
    if "," in text:
        return checked(Seeds, "seeds", numbers)
    if len(numbers) != 1 or not 0 < numbers[0] <= MOST_SEEDS:
        raise StudyError(f"a count of seeds must be a whole number from 1 to {MOST_SEEDS}, not {text!r}")
    return list(range(numbers[0]))


def with_seeds(profile: Profile, seeds: list[int]) -> Profile:
    """The profile with other seeds in every run that has a parameter ``seeds``; its minutes scale along."""
    return replace(profile, runs=tuple(_reseeded(run, seeds) for run in profile.runs))


def _reseeded(run: Run, seeds: list[int]) -> Run:
    if "seeds" not in run.parameters:
        return run
    parameters = typed_parameters(run.notebook, run.parameters | {"seeds": seeds})
    minutes = run.minutes * len(seeds) / len(run.parameters["seeds"])
    return replace(run, parameters=parameters, minutes=minutes)


def with_needs(profile: Profile, only: str) -> Profile:
    """The profile with one of its runs alone, and the runs that this needs."""
    check_choice("run", only, [run.name for run in profile.runs])
    wanted = {only}
    for run in reversed(profile.runs):
        if run.name in wanted:
            wanted |= set(run.needs)
    return replace(profile, runs=tuple(run for run in profile.runs if run.name in wanted))


def quick_part(profile: Profile) -> Profile:
    """The affordable part, as a profile ``<name>-quick``: runs with ``quick`` parameters; StudyError if none has."""
    runs = tuple(
        replace(run, parameters=typed_parameters(run.notebook, run.parameters | run.quick), minutes=run.quick_minutes)
        for run in profile.runs
        if run.quick is not None
    )
    if not runs:
        raise StudyError(f"profile {profile.name} has no run with `quick` parameters")
    return replace(profile, name=f"{profile.name}-quick", description="", runs=runs)
