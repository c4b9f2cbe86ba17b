"""The unit of work: one notebook with one set of parameters becomes one result, or nothing at all.

Validate, fingerprint, skip what is finished, execute with Papermill in ``reports/<profile>/work/<run>``, then
move figures, tables, notebook and page into place and write ``results/<run>.json`` last, in one atomic step.
Whatever kills a run, at whatever point, the study goes on with that run when it is started again. An outdated result
stays until its new one is there: no run reads it meanwhile, and the page says that it is outdated.
"""

import fcntl
import os
import queue
import shutil
import tempfile
import threading
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from ..errors import StudyError
from ..store.paths import PROFILES, REPORTS
from ..store.writable import check_writable
from . import machine, pages, verdict
from .claims import claim_part, load_claims
from .compare import compare
from .execute import execute
from .judged import both_sides
from .named import fetch
from .profiles import Profile, Run, load_profile, quick_part, validate, with_needs, with_seeds
from .progress import Progress, duration
from .prose import refresh
from .status import again_file, identities, load_result, outdated, result_file, status


def report(
    name: str,
    *,
    seeds: list[int] | None = None,
    jobs: int | None = None,
    reports: Path = REPORTS,
    only: str | None = None,
    again: bool = False,
    folder: Path = PROFILES,
) -> list[str]:
    """Execute what is missing of a profile's report; returns the names of the runs that were executed.

    ``seeds`` replaces the parameter of that name in every run; ``only`` limits the work to one run and what
    it needs; ``again`` executes finished runs anew; ``jobs`` runs at once (None: as many as the profile says and the
    cores allow) have the profile's threads each. Raises StudyError on any bad input before the first notebook starts,
    and after a notebook that failed.
    """
    profile = _reseeded(load_profile(name, folder), seeds)
    executed = run_profile(profile, Path(reports).resolve(), jobs=jobs, only=only, again=again)
    print_page(Path(reports), profile.name)
    return executed


def reproduce(
    name: str,
    *,
    quick: bool = False,
    claim: str | None = None,
    seeds: list[int] | None = None,
    jobs: int | None = None,
    reports: Path = REPORTS,
    only: str | None = None,
    again: bool = False,
    folder: Path = PROFILES,
) -> bool:
    """Execute a profile beside its report, compare the two, and return whether every number agrees, and the verdict on
    the ``claim``.

    All is written to ``reproduced/<profile>`` in ``reports``, with computed values of its own, or to
    ``reproduced/<profile>-quick`` where ``quick`` executes the affordable part, or to ``reproduced/<profile>-<claim>``
    where only what one ``claim`` needs is executed, in its own profile where it has one; with other ``seeds``, into a
    folder of theirs in ``reproduced``. One run with those it needs (``only``) lies where all do, for its results are
    the same; its computed values and its page are its own. Of a part, and of other ``seeds``, the rows that the report
    has too are compared. The other arguments and errors are those of :func:`report`.
    """
    claims, reports = load_claims(folder.parent), Path(reports).resolve()
    if claim is not None:
        name = claims.claim(claim).profile or name
    declared = load_profile(name, folder)
    if claim is None:
        profile = _reseeded(quick_part(declared) if quick else declared, seeds)
    elif quick or seeds is not None or only is not None:
        raise StudyError("--claim says itself what is executed: leave out --quick, --seeds and --only")
    else:
        profile = claim_part(declared, claims.claim(claim))
    old_home, reproduced = reports / name, reports / "reproduced" / _folder(seeds)
    home, runs = reproduced / profile.name, [run.name for run in _selected(profile, only)]
    old = verdict.load(old_home, runs)
    everything = [result for run in declared.runs if (result := load_result(old_home, run.name))]
    if len(everything) == len(declared.runs):  # else a name may be that of a table which is not there
        profile.tolerances.check_names(everything)
    own = "" if only is None else f"-{only}"
    run_profile(profile, reproduced, jobs=jobs, only=only, again=again, computed=home / f"computed{own}")
    new = verdict.load(home, runs)
    whole = not quick and claim is None and seeds is None
    cells = [cell for run, result in new.items() for cell in compare(old[run], result, profile.tolerances, whole)]
    page = home / f"comparison{own}.html"
    verdict.write_page(old_home, page, cells, old, new)
    agrees = verdict.tell(page, cells)
    if claim is not None:
        agrees &= verdict.tell_claim(*both_sides(claims, claims.claim(claim), old_home, home))
    return agrees


def _reseeded(profile: Profile, seeds: list[int] | None) -> Profile:
    return profile if seeds is None else with_seeds(profile, seeds)


def _folder(seeds: list[int] | None) -> str:
    """Where a reproduction with these seeds lies: what it computes is not what the profile does."""
    if seeds is None:
        return ""
    count = len(seeds)
    return f"{count}-seeds" if seeds == list(range(count)) else "seeds-" + "-".join(map(str, seeds))


def print_page(reports: Path, profile: str) -> None:
    """Say where the page of a profile's report lies, as seen from here."""
    print(f"report: {os.path.relpath(reports / profile / 'index.html')}")


def run_profile(
    profile: Profile,
    reports: Path,
    *,
    jobs: int | None = None,
    only: str | None = None,
    again: bool = False,
    computed: Path | None = None,
) -> list[str]:
    """As :func:`report`, for a profile already loaded.

    With a folder ``computed`` no value is used that was computed elsewhere; ``again`` empties it.
    """
    jobs = _jobs(profile, jobs)
    selected, claims = _selected(profile, only), load_claims(profile.notebooks)
    home, known = reports / profile.name, identities(profile)
    environment = {"MPSTUDY_COMPUTED": str(computed)} if computed else {}

    def not_current() -> list[Run]:
        states = {row["run"]: row["state"] for row in status(profile, home, known)}
        return [run for run in selected if states[run.name] != "current"]

    def show() -> None:
        if any(result_file(home, run.name).is_file() for run in profile.runs):
            pages.write_pages(home, claims, profile.description, outdated(profile, home, known))

    if again or not_current():
        check_writable(home)
        validate(selected)  # what has a result had good parameters
    with locked(home):
        due = selected if again else not_current()
        for run in due:
            fetch(run.parameters)
        known = identities(profile) if due else known  # what was fetched is known by its content
        if again and computed:
            shutil.rmtree(computed, ignore_errors=True)
        if due:
            estimates = _announce(profile, due, home, jobs)
            for spec in due if again else ():
                again_file(home, spec.name).touch()
            show()  # before the work, so that also after a kill the page says what is outdated

            def unit(spec: Run, work: Path) -> None:
                execute(spec, home, work, known[spec.name], estimates[spec.name], environment)

            _execute_all(due, home, unit, show, estimates, jobs)
        else:
            print(
                f"{profile.name}: nothing to do, all {len(selected)} runs are finished and unchanged "
                f"(`--again` executes them anew)"
            )
        refresh([run for run in selected if run not in due], home)
        show()
    return [spec.name for spec in due]


def _jobs(profile: Profile, asked: int | None) -> int:
    """How many runs work at once. They have the profile's threads each, as their identities say: with other threads a
    sum has other last bits, and more threads than cores would make all of them slow.
    """
    most = max(1, machine.cores() // profile.threads)
    if asked is None:
        return min(profile.jobs, most)
    if asked < 1:
        raise StudyError(f"jobs must be at least 1, not {asked}")
    if asked > most:
        raise StudyError(
            f"jobs must be at most {most} here, not {asked}: each run has the "
            f"{profile.threads} threads of the profile {profile.name}, whose number decides the last bits of results, "
            f"and this machine has {machine.cores()} cores"
        )
    return asked


def _selected(profile: Profile, only: str | None) -> list[Run]:
    """All runs, or one with those it needs."""
    return list((profile if only is None else with_needs(profile, only)).runs)


@contextmanager
def locked(home: Path):
    """One runner at a time in a report folder. The lock dies with the process, however that ends."""
    work = home / "work"
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = (work / ".lock").open("w")
    except OSError as error:
        raise StudyError(f"cannot write to the report folder {home}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StudyError(f"another process is working in {home}; wait for it or use --reports") from error
        yield


def _announce(profile: Profile, due: list[Run], home: Path, jobs: int) -> dict[str, float]:
    """Print what the runs will cost, refuse a full disk, and return the expected seconds of each."""
    if profile.disk_gb:
        free = machine.free_disk_gb(home)
        if free < profile.disk_gb:
            raise StudyError(f"no disk space: {profile.name} needs {profile.disk_gb:g} GB free, {free:.2f} GB are")
    available, needed = machine.available_memory_gb(), profile.memory_gb * jobs
    if available < needed:
        print(f"warning: about {needed:g} GB of memory needed, {available:.1f} GB available")
    speed = 0.0
    if profile.reference_seconds:
        speed = machine.probe_seconds(profile.threads) / profile.reference_seconds
    estimates = {spec.name: spec.minutes * 60 * speed for spec in due}
    total = Progress(estimates, jobs).remaining_seconds()
    cost = f"about {duration(total)}, {needed:g} GB memory, {profile.disk_gb:g} GB disk" if total else "no estimate"
    print(f"{profile.name}: {len(due)} of {len(profile.runs)} runs to execute; {cost}")
    return estimates


def _execute_all(
    due: list[Run],
    home: Path,
    unit: Callable[[Run, Path], None],
    show: Callable[[], None],
    estimates: dict[str, float],
    jobs: int,
) -> None:
    """Execute runs as soon as those they need are done, ``jobs`` at once; raise the first failure at the end. ``show``
    is called after each, when none is at work.

    The workers are daemon threads: Ctrl-C ends the runner at once, and each kernel ends with its runner.
    """
    progress, outcomes = Progress(estimates, jobs), queue.Queue()
    waiting, active, failure = list(due), set(), None

    def worker(spec: Run, work: Path) -> None:
        try:
            unit(spec, work)
            outcomes.put((spec.name, None))
        except Exception as error:  # handed to the main thread, which raises it
            outcomes.put((spec.name, error))

    while active or (waiting and failure is None):
        unfinished = {spec.name for spec in waiting} | active
        ready = [spec for spec in waiting if failure is None and not unfinished & set(spec.needs)]
        for spec in ready[: jobs - len(active)]:
            waiting.remove(spec)
            active.add(spec.name)
            work = _new_folder(home / "work" / spec.name)
            progress.begin(spec.name, work / "progress.jsonl")
            threading.Thread(target=worker, args=(spec, work), daemon=True).start()
        try:
            name, error = outcomes.get(timeout=0.3)
        except queue.Empty:
            progress.poll()
            continue
        active.remove(name)
        progress.end(name, "failed" if error else "done")
        failure = failure or error
        if not active:  # which could be putting its files into place
            show()
    progress.close()
    if failure is not None:
        raise failure


def _new_folder(parent: Path) -> Path:
    """An empty folder with a new name: the kernel of a killed runner may still write to its old one."""
    shutil.rmtree(parent, ignore_errors=True)
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=parent))
