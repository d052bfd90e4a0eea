"""A project of somebody else: its environment, its tests unpacked, and the servers it needs."""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import services

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = HERE.parents[1] / "tools"
ALWAYS = ("pytest", "pytest-timeout")  # the second because some configure it, for their limits a test

# Where a project's settings for pytest may be, and how to know them. Without any, pytest would go up to aioxide's.
SETTINGS = {
    "pytest.ini": "",
    ".pytest.ini": "",
    "pytest.toml": "",
    "pyproject.toml": "[tool.pytest",
    "tox.ini": "[pytest]",
    "setup.cfg": "[tool:pytest]",
}


@dataclasses.dataclass
class Project:
    name: str
    version: str
    package: str = ""
    debian: str = ""
    needs: list = ()
    take: list = ()
    arguments: list = ("tests",)
    minutes: float = 10
    patience: float = 60
    stand_in: str = ""
    services: list = ()
    ci: bool = False

    def place(self, below):
        """Say in which directory everything of it is kept."""
        self.package = self.package or self.name
        self.home = below / self.name
        self.env = self.home / "env"
        self.source = self.home / "source"
        self.python = self.env / "bin" / "python"

    def prepare(self, aioxide):
        """Make the environment and unpack the tests, unless both are there as wanted."""
        self.home.mkdir(parents=True, exist_ok=True)
        made_of = json.dumps([self.version, *ALWAYS, *self.needs, *self.take])
        mark = self.home / "made"
        if not mark.exists() or mark.read_text() != made_of:
            mark.unlink(missing_ok=True)
            self._make_environment()
            self._unpack()
            mark.write_text(made_of)
        self._lay_aioxide_in(aioxide)

    def _make_environment(self):
        shutil.rmtree(self.env, ignore_errors=True)
        base = getattr(sys, "_base_executable", sys.executable)
        wanted = [f"{self.package}=={self.version}", *ALWAYS, *self.needs]
        if shutil.which("uv"):
            command("uv", "venv", "--quiet", "--python", base, self.env)
            command("uv", "pip", "install", "--quiet", "--python", self.python, *wanted)
        else:
            command(base, "-m", "venv", self.env)
            command(self.python, "-m", "pip", "install", "--quiet", *wanted)

    def _unpack(self):
        """The sdist as it is, but of it only what is to be taken: not the code, which is installed."""
        shutil.rmtree(self.source, ignore_errors=True)
        downloads = self.home / "download"
        shutil.rmtree(downloads, ignore_errors=True)
        if self.debian:
            command(TOOLS / "debian-source", self.debian, downloads)
        else:
            pip = (sys.executable, "-m", "pip") if has_pip() else ("pip",)
            command(
                *(*pip, "download", "--quiet", "--no-deps", "--no-binary", self.package, "--dest", downloads),
                f"{self.package}=={self.version}",
            )
        (archive,) = downloads.iterdir()
        with tarfile.open(archive) as tar:
            top = tar.getnames()[0].partition("/")[0]
            wanted = tuple(f"{top}/{name}" for name in self.take)
            members = [
                member
                for member in tar
                if member.name in wanted or member.name.startswith(tuple(f"{w}/" for w in wanted))
            ]
            for name in wanted:
                if not any(member.name == name or member.name.startswith(f"{name}/") for member in members):
                    raise LookupError(f"{archive.name} has no {name}")
            tar.extractall(downloads, members, filter="data")
        if not members:
            (downloads / top).mkdir()
        (downloads / top).rename(self.source)
        files = ((self.source / name, mark) for name, mark in SETTINGS.items())
        if not any(mark in file.read_text() for file, mark in files if file.exists()):
            (self.source / "pytest.ini").touch()

    def _lay_aioxide_in(self, aioxide):
        """Each process of the environment finds the aioxide that is tested, and what puts it in force."""
        site = self.home / "site"
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(aioxide, site / "aioxide")  # so that a build can go on while tests run
        (packages,) = self.env.glob("lib/python3*/site-packages")
        (packages / "ecosystem.pth").write_text(f"{site}\n{HERE / 'inside'}\nimport ecosystem_in_force\n")

    def serve(self):
        """A context manager that runs its servers; gives the variables and words for `arguments`."""
        return services.running(self.services, self.home)


def has_pip():
    return subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0


def command(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


def where_aioxide_is():
    """The package that is installed for this interpreter, and a name for its build."""
    import aioxide

    package = pathlib.Path(aioxide.__file__).resolve().parent
    binary = pathlib.Path(aioxide._core.__file__)
    return package, hashlib.sha256(binary.read_bytes()).hexdigest()[:12]


def clean_environment(**more):
    """Variables for a process of a project: ours that would change what it does are left out."""
    unwanted = (
        "PYTHONASYNCIODEBUG",
        "PYTHONDEVMODE",
        "PYTHONWARNINGS",
        "PYTHONPATH",
        "PYTEST_ADDOPTS",
        "CI",
        "VIRTUAL_ENV",
    )
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **more}
