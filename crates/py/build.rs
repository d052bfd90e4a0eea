//! Tells the crate which Python it is built for (`cfg(Py_3_12)` and the like), and with which profile: one of cargo's,
//! or the one that `tools/build` says.
use std::path::{Component, Path};

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    // Cargo has a variable for the built-in profiles only; the directory has the name of any.
    let directory = std::env::var("OUT_DIR").unwrap_or_default();
    let profile = Path::new(&directory).ancestors().nth(3).and_then(|path| path.components().next_back());
    let profile = if let Some(Component::Normal(name)) = profile { name.to_str() } else { None };
    let said = std::env::var("AIOXIDE_PROFILE").ok();
    println!("cargo::rerun-if-env-changed=AIOXIDE_PROFILE");
    println!("cargo::rustc-env=AIOXIDE_PROFILE={}", said.as_deref().or(profile).unwrap_or("unknown"));
}
