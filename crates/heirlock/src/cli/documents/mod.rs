//! `heirlock completions`, `sample-config` and `man`: the documents that the program carries. The packages are made with them,
//! and an administrator without a package has the same.

mod configuration;
mod man;
mod page;
mod resource_agents;
mod roff;
mod texts;

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use serde::Serialize;

use super::args::{Cli, CompletionShell, Man};
use super::exit::{Exit, Failed};
use super::output::Output;
use crate::files::trusted;
use page::Page;

/// The sample, with all its explanations.
pub(super) const SAMPLE: &str = include_str!("../../../../../dist/heirlock.toml");

/// A document, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Document<'a> {
    name: &'a str,
    text: &'a str,
}

/// The pages that were written, as `--json` prints them.
#[derive(Debug, Serialize)]
struct Written<'a> {
    changed: bool,
    folder: &'a Path,
    pages: Vec<String>,
}

/// Prints what a shell reads to complete the command line.
pub(super) fn completions(shell: CompletionShell, output: &Output) -> Result<Exit, Failed> {
    let (shell, name) = match shell {
        CompletionShell::Bash => (Shell::Bash, "bash"),
        CompletionShell::Zsh => (Shell::Zsh, "zsh"),
        CompletionShell::Fish => (Shell::Fish, "fish"),
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "heirlock", &mut script);
    print(name, &String::from_utf8_lossy(&script), output)
}

/// Prints the sample configuration.
pub(super) fn sample_config(output: &Output) -> Result<Exit, Failed> {
    print("heirlock.toml", SAMPLE, output)
}

/// Prints a manual page, or writes all of them.
pub(super) fn man(options: &Man, output: &Output) -> Result<Exit, Failed> {
    let pages = man::pages();
    if let Some(folder) = &options.all {
        return write(folder, &pages, output);
    }
    let wanted = options.page.join("-");
    let wanted = if wanted.is_empty() { "heirlock" } else { wanted.as_str() };
    let page = pages.iter().find(|page| page.is_called(wanted)).ok_or_else(|| {
        let known: Vec<&str> = pages.iter().map(Page::short_name).collect();
        let what = format!("there is no page {wanted:?}; expected one of {}", known.join(", "));
        Failed::new(Exit::Usage, what)
    })?;
    print(&page.file_name(), &page.text, output)
}

fn print(name: &str, text: &str, output: &Output) -> Result<Exit, Failed> {
    output.print(&Document { name, text }, |document, _| document.text.to_owned())?;
    Ok(Exit::Done)
}

fn write(folder: &Path, pages: &[Page], output: &Output) -> Result<Exit, Failed> {
    let failed = |error| Failed::new(Exit::Failed, format!("can't write into {}: {error}", folder.display()));
    for page in pages {
        let place = folder.join(page.place());
        let above = place.parent().unwrap_or(folder);
        let done = trusted::make_folders(above, 0o755)
            .and_then(|()| trusted::replace(&place, page.text.as_bytes(), 0o644, false));
        done.map_err(failed)?;
    }
    let written = Written { changed: true, folder, pages: pages.iter().map(Page::place).collect() };
    output.print(&written, |written, _| {
        written.pages.iter().map(|name| format!("{}\n", written.folder.join(name).display())).collect()
    })?;
    Ok(Exit::Done)
}
