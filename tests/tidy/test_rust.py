"""House rules of the Rust crates."""

import re
import tomllib

import pytest
from house import ROOT, RUST, code_of, lines_with, text_of

# Where unsafe code may be.  Each file opens with what it promises, and SAFETY.md tells why it holds.
UNSAFE = re.compile(r"crates/py/src/ffi/.*|crates/sys/src/fd\.rs")
# Where the code may ask which Python it is compiled for.
VERSIONED = re.compile(r"crates/py/src/ffi/.*|crates/py/src/version\.rs")
CLOCK = "crates/sys/src/clock.rs"


@pytest.mark.parametrize("name", RUST)
def test_a_file_opens_with_what_it_is_for(name):
    assert text_of(name).startswith("//! ")


def test_unsafe_code_has_an_address():
    outside = [name for name in RUST if not UNSAFE.fullmatch(name)]
    assert lines_with(r"\bunsafe\b", outside) == []


def test_unsafe_files_are_accounted_for():
    accounts = text_of("SAFETY.md")
    unsafe = {line.partition(":")[0] for line in lines_with(r"\bunsafe\b", RUST)}
    assert [name for name in sorted(unsafe) if f"`{name}`" not in accounts] == []


def test_versions_of_python_have_an_address():
    outside = [name for name in RUST if not VERSIONED.fullmatch(name)]
    assert lines_with(r"\bcfg\w*!?\s*\(.*\bPy_\w+", outside) == []


def test_there_is_one_clock():
    outside = [name for name in RUST if name != CLOCK and name.startswith("crates/")]
    assert lines_with(r"\b(Instant|SystemTime)::now\b", [name for name in outside if "/src/" in name]) == []


def test_nothing_is_left_to_do():
    assert lines_with(r"\b(todo|unimplemented)!", RUST) == []


@pytest.mark.parametrize("name", RUST)
def test_files_are_short_enough_to_read(name):
    assert len(text_of(name).splitlines()) <= 700


def dependencies(crate):
    return set(tomllib.loads(text_of(f"crates/{crate}/Cargo.toml")).get("dependencies", {}))


def test_core_depends_on_nothing():
    assert dependencies("core") == set()
    allowed = r"(std|core|alloc|crate|self|super|loom)\b"
    sources = [name for name in RUST if name.startswith("crates/core/src/")]
    for name in sources:
        text, _, _ = code_of(name).partition("#[cfg(test)]")
        used = re.findall(r"^\s*(?:pub(?:\([a-z]+\))? )?use (?:::)?(\w+)", text, flags=re.M)
        modules = set(re.findall(r"\bmod (\w+)", text))
        own = modules | {root for root in used if root[0].isupper()}  # variants of an enum of the file
        assert [root for root in used if not re.match(allowed, root) and root not in own] == [], name
    assert lines_with(r"\bextern crate\b|\bstd::(net|fs|process|os)\b", sources) == []


def test_sys_knows_neither_the_rules_nor_python():
    assert dependencies("sys") & {"aioxide-core", "pyo3", "pyo3-ffi"} == set()


def test_core_forbids_unsafe_code():
    assert "#![forbid(unsafe_code)]" in text_of("crates/core/src/lib.rs")


PY = [name for name in RUST if name.startswith("crates/py/src/")]
# These put the floors together: the list of exports, and the tables that give each type its slots.
JOINTS = {"crates/py/src/lib.rs", "crates/py/src/ffi/types.rs", "crates/py/src/ffi/gathering.rs"}


def test_tasks_and_what_they_wait_for_know_no_loop_and_no_transport():
    """They know the part of a loop that every floor needs (`local`), so that they can be tested and moved alone."""
    upper = tuple(f"crates/py/src/{floor}/" for floor in ("event_loop", "transports", "streams", "inspect"))
    below = [name for name in PY if name not in JOINTS and not name.startswith(upper)]
    assert lines_with(r"\bcrate::(event_loop|transports)\b", below) == []


def test_raw_slots_know_nothing_of_asyncio():
    below = [name for name in PY if name not in JOINTS and name.startswith("crates/py/src/ffi/")]
    assert lines_with(r"\bcrate::(?!ffi\b|errors\b|version\b|local\b)\w+", below) == []


def test_the_tools_agree():
    assert (ROOT / "rustfmt.toml").exists()
    lints = tomllib.loads(text_of("Cargo.toml"))["workspace"]["lints"]
    assert lints["rust"]["unsafe_code"] == "deny"
    assert lints["clippy"]["undocumented_unsafe_blocks"] == "deny"
