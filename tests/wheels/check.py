"""Looks at a source package and at wheels: is everything in them, nothing else, and do they say what is so?

    check.py POLICY SOURCE_PACKAGE WHEEL ...

POLICY is the oldest platform that the wheels are to run on, such as manylinux_2_17.
"""

import email
import pathlib
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile

ROOT = pathlib.Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
LICENCES = ("LICENSE-APACHE", "LICENSE-MIT")
SOURCES = sorted(path.name for path in (ROOT / "python/aioxide").iterdir() if path.suffix in {".py", ".pyi", ".typed"})
NOT_FOR_USERS = re.compile(r"\.(pyc|so\.dbg|o)$|(^|/)(tests?|__pycache__|target)/")

complaints = []


def expect(condition, subject, complaint):
    if not condition:
        complaints.append(f"{subject}: {complaint}")


def check_metadata(text, subject):
    found = email.message_from_string(text)
    expect(found["Name"] == "aioxide", subject, f"name {found['Name']}")
    expect(found["Version"] == VERSION, subject, f"version {found['Version']}, not {VERSION}")
    expect(found["License-Expression"] == "MIT OR Apache-2.0", subject, f"licence {found['License-Expression']}")
    expect(sorted(found.get_all("License-File", [])) == sorted(LICENCES), subject, "licence files not named")
    expect(found["Requires-Python"] == ">=3.11", subject, f"requires Python {found['Requires-Python']}")
    expect(found.get_payload().startswith("# aioxide"), subject, "the description is not the README")
    classifiers = found.get_all("Classifier", [])
    versions = [entry.rpartition(" ")[2] for entry in classifiers if "Python :: 3." in entry]
    expect(versions == ["3.11", "3.12", "3.13", "3.14", "3.15"], subject, f"classifiers {versions}")
    expect("Requires-Dist" not in found, subject, "requires other packages")


def check_source_package(path):
    with tarfile.open(path) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
        check_metadata(archive.extractfile(f"aioxide-{VERSION}/PKG-INFO").read().decode(), path.name)
    needed = [*LICENCES, "README.md", "Cargo.toml", "Cargo.lock", "pyproject.toml", "crates/py/build.rs"]
    needed += [f"python/aioxide/{name}" for name in SOURCES]
    needed += [str(name.relative_to(ROOT)) for name in (ROOT / "crates").rglob("src/**/*.rs")]
    expect(not set(needed) - set(names), path.name, f"lacks {sorted(set(needed) - set(names))}")
    unwanted = [name for name in names if NOT_FOR_USERS.search(name) and not name.startswith("crates/")]
    unwanted += [name for name in names if name.endswith(".so")]
    expect(not unwanted, path.name, f"has {unwanted}")


def check_wheel(path, policy):
    _, version, python, abi, platforms = path.stem.split("-")
    expect(version == VERSION, path.name, "another version")
    expect(python == abi, path.name, "the extension is for one ABI of one Python, so both tags must be the same")
    tag = python.removeprefix("cp")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        about = f"aioxide-{VERSION}.dist-info"
        check_metadata(archive.read(f"{about}/METADATA").decode(), path.name)
        wheel = email.message_from_string(archive.read(f"{about}/WHEEL").decode())
        entry_points = archive.read(f"{about}/entry_points.txt").decode()
        contents = {name: archive.read(name) for name in names}
    tags = sorted(f"{python}-{abi}-{platform}" for platform in platforms.split("."))
    expect(sorted(wheel.get_all("Tag", [])) == tags, path.name, f"the tags inside are {wheel.get_all('Tag')}")
    expect(wheel["Root-Is-Purelib"] == "false", path.name, "says that it is Python only")
    expect("aioxide=aioxide.__main__:main" in entry_points.replace(" ", ""), path.name, "has no command")
    expected = {f"aioxide/{name}" for name in SOURCES} | {f"{about}/licenses/{name}" for name in LICENCES}
    expect(expected <= set(names), path.name, f"lacks {sorted(expected - set(names))}")
    extensions = [name for name in names if name.endswith(".so")]
    expect(len(extensions) == 1, path.name, f"extensions {extensions}")
    expect(all(f".cpython-{tag}-" in name for name in extensions), path.name, f"an extension for another: {extensions}")
    others = [name for name in names if not name.startswith(("aioxide/", f"{about}/")) or NOT_FOR_USERS.search(name)]
    expect(not others, path.name, f"has {others}")
    size = sum(map(len, contents.values()))
    expect(size < 16 << 20, path.name, f"{size >> 20} MiB are too many; was it stripped?")
    home = str(pathlib.Path.home()).encode()
    for name, content in contents.items():
        for place in (str(ROOT).encode(), home + b"/"):
            expect(place not in content, path.name, f"{name} tells of {place.decode()}")
    check_platform(path, policy)


def check_platform(path, policy):
    """Does auditwheel, which reads the symbols that the extension asks for, come to the same platform?"""
    audit = subprocess.run(["auditwheel", "show", path], capture_output=True, text=True, check=False)
    shown = audit.stdout + audit.stderr
    found = re.search(r'platform\s+tag:\s+"(\w+)"', shown)
    expect(found is not None, path.name, shown)
    if found is not None:
        limits = [tuple(map(int, re.findall(r"_(\d+)_(\d+)", name)[0])) for name in (found[1], policy)]
        expect(limits[0] <= limits[1], path.name, f"runs on {found[1]} and later only, not on {policy}")


def main():
    policy, source_package, *wheels = sys.argv[1:]
    check_source_package(pathlib.Path(source_package))
    for wheel in wheels:
        check_wheel(pathlib.Path(wheel), policy)
    for complaint in complaints:
        print(complaint)
    print(f"looked at a source package and {len(wheels)} wheels: {len(complaints)} complaints")
    sys.exit(1 if complaints else 0)


main()
