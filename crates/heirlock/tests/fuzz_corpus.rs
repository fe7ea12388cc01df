//! The fuzz targets' functions over their seed corpus: each input that fuzzing found once is tested ever after, by
//! any compiler.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

#[path = "../../../fuzz/src/lib.rs"]
// They are a library in the fuzz workspace, and tests here.
#[allow(unreachable_pub)]
mod surfaces;

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use surfaces::{SURFACES, Surface};

fn fuzz(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz").join(path)
}

fn names(path: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fuzz(path)).unwrap();
    entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

fn seeds(surface: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(fuzz("corpus").join(surface)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn every_fuzz_target_survives_its_corpus() {
    for Surface { name, read } in SURFACES {
        let seeds = seeds(name);
        assert!(seeds.len() >= 5, "{name} has {} seeds", seeds.len());
        for (path, bytes) in seeds {
            assert!(catch_unwind(|| read(&bytes)).is_ok(), "{name} does not survive {}", path.display());
        }
    }
}

#[test]
fn every_fuzz_target_survives_its_corpus_cut_short_and_with_a_changed_byte() {
    for Surface { name, read } in SURFACES {
        for (path, bytes) in seeds(name) {
            for at in (0..bytes.len()).step_by(bytes.len() / 64 + 1) {
                let mut changed = bytes.clone();
                changed[at] ^= 0x80 >> (at % 8);
                for odd in [&bytes[..at], &changed] {
                    assert!(
                        catch_unwind(|| read(odd)).is_ok(),
                        "{name} does not survive {} changed at {at}: {:?}",
                        path.display(),
                        odd.escape_ascii().to_string()
                    );
                }
            }
        }
    }
}

#[test]
fn every_surface_has_its_target_and_its_corpus() {
    let surfaces: BTreeSet<String> = SURFACES.iter().map(|surface| surface.name.to_owned()).collect();
    assert_eq!(names("targets"), surfaces);
    assert_eq!(names("corpus"), surfaces);
}
