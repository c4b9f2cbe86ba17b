"""The manifest, with a small package that pip finds in a folder in place of the package index."""

import errno
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from mpstudy.errors import StudyError
from mpstudy.inputs import manifest

CONTENT = b"The House will come to order.\n" * 100
ARCHIVE = "tinytext-1.0-py3-none-any.whl"
SDIST = "tinytext-1.0.tar.gz"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def wheel() -> bytes:
    """A package that holds one text file."""
    files = {
        "tinytext/text.txt": CONTENT,
        "tinytext-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tinytext\nVersion: 1.0\n",
        "tinytext-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        record = "".join(f"{name},,\n" for name in files) + "tinytext-1.0.dist-info/RECORD,,\n"
        archive.writestr("tinytext-1.0.dist-info/RECORD", record)
    return buffer.getvalue()


@pytest.fixture
def study(tmp_path, monkeypatch, wheel):
    """A manifest of that package alone; the returned function writes it again with other values."""
    index = tmp_path / "index"
    index.mkdir()
    (index / ARCHIVE).write_bytes(wheel)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("MPSTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(manifest, "MANIFEST", tmp_path / "MANIFEST")

    file = {"name": "tiny", "member": "tinytext/text.txt", "sha256": sha256(CONTENT)}
    file |= {"bytes": len(CONTENT), "licence": "-", "use": "-"}
    package = {"package": "tinytext", "version": "1.0", "archive": ARCHIVE}
    package |= {"sha256": sha256(wheel), "bytes": len(wheel)}

    def write(of_package=None, of_file=None):
        content = package | (of_package or {}) | {"files": [file | (of_file or {})]}
        manifest.MANIFEST.write_text(json.dumps({"packages": [content]}))

    write()
    return write


def fetched_files(tmp_path) -> list[str]:
    files = (tmp_path / "cache").rglob("*")
    return sorted(file.name for file in files if file.is_file() and file.name != ".lock")


def test_fetch_brings_the_file_of_a_wheel(study, tmp_path):
    lines = []
    manifest.fetch(progress=lines.append)
    assert manifest.path("tiny").read_bytes() == CONTENT
    assert fetched_files(tmp_path) == ["text.txt"]
    assert len(lines) == 1 and "tinytext==1.0" in lines[0]


def test_a_second_fetch_does_nothing(study, monkeypatch):
    manifest.fetch(progress=lambda line: None)
    before = manifest.path("tiny").stat().st_mtime_ns
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("pip was started"))
    manifest.fetch(progress=lambda line: pytest.fail(line))
    assert manifest.path("tiny").stat().st_mtime_ns == before


def test_an_entry_without_member_keeps_the_archive(study, wheel):
    study(of_file={"member": None, "sha256": sha256(wheel)})
    manifest.fetch(progress=lambda line: None)
    assert manifest.path("tiny").name == ARCHIVE
    assert manifest.path("tiny").read_bytes() == wheel


def test_fetch_brings_the_file_of_a_source_archive(study, tmp_path, monkeypatch):
    with tarfile.open(tmp_path / SDIST, "w:gz") as archive:
        info = tarfile.TarInfo("tinytext-1.0/text.txt")
        info.size = len(CONTENT)
        archive.addfile(info, io.BytesIO(CONTENT))
    monkeypatch.setattr(manifest, "_download", lambda entry, work: tmp_path / SDIST)
    study({"archive": SDIST}, {"member": "tinytext-1.0/text.txt"})
    manifest.fetch(progress=lambda line: None)
    assert manifest.path("tiny").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("of_package", "of_file", "message"),
    [
        ({"sha256": "0" * 64}, {}, f"{ARCHIVE}: sha256 expected {'0' * 64}, found"),
        ({}, {"sha256": "0" * 64}, f"text.txt: sha256 expected {'0' * 64}, found {sha256(CONTENT)}"),
        ({}, {"member": "tinytext/gone.txt"}, f"{ARCHIVE} holds no tinytext/gone.txt"),
        ({"version": "2.0"}, {}, "pip cannot download tinytext==2.0: ERROR"),
    ],
    ids=["archive", "file", "member", "version"],
)
def test_a_package_that_differs_leaves_nothing_behind(study, tmp_path, of_package, of_file, message):
    study(of_package, of_file)
    with pytest.raises(StudyError, match="^[^\n]*$") as error:
        manifest.fetch(progress=lambda line: None)
    assert message in str(error.value)
    assert fetched_files(tmp_path) == []


def test_a_package_index_out_of_reach_is_said(study, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nothing listens there
    with pytest.raises(StudyError, match="tinytext==1.0: the package index is not within reach"):
        manifest.fetch(progress=lambda line: None)


def test_a_changed_file_is_named_and_fetched_again(study):
    manifest.fetch(progress=lambda line: None)
    target = manifest.entries()["tiny"].target
    target.write_bytes(CONTENT[:-1])
    for check in (lambda: manifest.path("tiny"), manifest.verify):
        with pytest.raises(StudyError) as error:
            check()
        assert str(target) in str(error.value)
        assert sha256(CONTENT) in str(error.value) and sha256(CONTENT[:-1]) in str(error.value)
    manifest.fetch(progress=lambda line: None)
    manifest.verify()


def test_the_sum_is_taken_once_per_process(study, monkeypatch):
    manifest.fetch(progress=lambda line: None)
    first = manifest.path("tiny")
    monkeypatch.setattr(manifest, "_sha256", lambda file: pytest.fail("read again"))
    assert manifest.path("tiny") == first


def test_a_file_not_fetched_yet_names_the_command(study):
    for check in (lambda: manifest.path("tiny"), manifest.verify):
        with pytest.raises(StudyError, match="python -m mpstudy data"):
            check()


def test_unknown_input(study):
    with pytest.raises(StudyError, match="unknown input 'tyni'; known: tiny"):
        manifest.path("tyni")


def test_too_little_disk_space_is_said_before_the_download(study, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=12345)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("pip was started"))
    with pytest.raises(StudyError, match=r"tinytext==1.0: \d+ bytes needed in .*, 12345 free"):
        manifest.fetch(progress=lambda line: None)


def _disk_full(source, out):
    out.write(CONTENT[:10])
    raise OSError(errno.ENOSPC, "No space left on device")


def _interrupted(source, out):
    out.write(CONTENT[:10])
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("failure", "error"),
    [(_disk_full, StudyError), (_interrupted, KeyboardInterrupt)],
    ids=["disk-full", "interrupted"],
)
def test_a_fetch_that_stops_half_way_leaves_no_half_file(study, tmp_path, monkeypatch, failure, error):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", failure)
        with pytest.raises(error):
            manifest.fetch(progress=lambda line: None)
    assert fetched_files(tmp_path) == []
    leftover = tmp_path / "cache" / "inputs" / ".fetch"  # what SIGKILL would have left there
    leftover.mkdir()
    (leftover / "part").write_bytes(CONTENT[:10])
    manifest.fetch(progress=lambda line: None)
    assert fetched_files(tmp_path) == ["text.txt"]


def test_manifest_does_not_import_torch():
    code = "import sys, mpstudy.inputs.manifest; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_input_of_the_study_is_there_and_described():
    manifest.verify()
    for entry in manifest.wanted():
        assert entry.target.stat().st_size == entry.bytes
    assert all(entry.licence and entry.use for entry in manifest.entries().values())


# --- Optional inputs -----------------------------------------------------------------------------------------------


def test_what_is_for_one_model_comes_only_when_that_is_asked_for(study, tmp_path):
    study({"for": "tiny-model"})
    manifest.fetch(progress=lambda line: pytest.fail(line))
    manifest.verify()
    for check in (lambda: manifest.path("tiny"), lambda: manifest.verify("tiny-model")):
        with pytest.raises(StudyError, match="is not there: `python -m mpstudy data --for tiny-model` fetches it"):
            check()
    manifest.fetch("tiny-model", progress=lambda line: None)
    manifest.verify("tiny-model")
    assert manifest.path("tiny").read_bytes() == CONTENT


def test_an_unknown_optional_model_names_the_known_ones(study):
    study({"for": "tiny-model"})
    with pytest.raises(StudyError, match="unknown optional model 'tyni'; known: tiny-model"):
        manifest.fetch("tyni")


def test_parts_are_joined_in_their_order_and_checked(study, tmp_path):
    manifest.fetch(progress=lambda line: None)
    manifest.join(["tiny", "tiny"], tmp_path / "whole", sha256(2 * CONTENT))
    assert (tmp_path / "whole").read_bytes() == 2 * CONTENT
    with pytest.raises(StudyError, match=f"whole: sha256 expected {'0' * 64}, found {sha256(CONTENT)}"):
        manifest.join(["tiny"], tmp_path / "whole", "0" * 64)
