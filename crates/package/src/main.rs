//! The texts of heirlock's packages that are made from the project itself: version, changelogs, and the licences of all crates
//! that are linked into the program. `dist/package` calls it.

mod changelog;
mod licences;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: heirlock-package version TIMESTAMP COMMIT
       heirlock-package changelog deb VERSION MAINTAINER DATE
       heirlock-package changelog rpm VERSION MAINTAINER DATE
       heirlock-package licences

version    of the package: CHANGELOG.md says whether the version is released
changelog  CHANGELOG.md as Debian's packages have it, or as rpm's have it; DATE as each of them writes it
licences   of the crates that are linked into the program, with their texts; fails where one has none, or one that is not
           known to be compatible";

/// The project's own.
const CHANGELOG: &str = include_str!("../../../CHANGELOG.md");

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("heirlock-package: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<String> {
    match arguments {
        ["version", timestamp, commit] => {
            Ok(changelog::version(CHANGELOG, env!("CARGO_PKG_VERSION"), timestamp, commit)? + "\n")
        }
        ["changelog", "deb", version, maintainer, date] => {
            changelog::debian(CHANGELOG, version, maintainer, date)
        }
        ["changelog", "rpm", version, maintainer, date] => {
            changelog::rpm(CHANGELOG, version, maintainer, date)
        }
        ["licences"] => licences::text().context("can't tell the licences of all crates"),
        _ => bail!("{USAGE}"),
    }
}
