//! The command line of the `heirlock` program: the commands of administrators and cluster managers, and the answers.
//!
//! Verbs that act go to the agent over its control socket (`ask.rs`); `records` looks at the store by itself, so that
//! it is of use with a dead agent. All text is made by `render`, all of it goes out by `output.rs`.

mod agent;
mod args;
mod ask;
mod demo;
mod documents;
mod drill;
mod exit;
mod exporter;
mod guard;
mod help;
mod history;
mod logging;
mod moving;
mod notify;
mod output;
mod progress;
mod records;
mod render;
mod status;
mod store;
mod watch;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::config;
use crate::control::Request;
use crate::host::Host;
use crate::{limits, log_queue, ocf, threads};

use args::{Cli, Switch, Verb};
use exit::{Exit, Failed};
use output::Output;

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error).into(),
    };
    let output = Output::new(cli.json);
    let lasts = matches!(cli.verb, Verb::Agent { .. } | Verb::Supervise { .. });
    let done = run(cli, &output);
    log_queue::flush();
    let exit = match done {
        Ok(exit) => exit,
        Err(failed) if lasts => last_words(output, failed),
        Err(failed) => output.failed(&failed),
    };
    exit.into()
}

/// Says why an agent or its supervisor ends. It ends, and is started again, also where the reader of standard error has
/// stopped reading.
fn last_words(output: Output, failed: Failed) -> Exit {
    let exit = failed.exit;
    threads::within("last-words", limits::LOG_FLUSH_TIME_MAX, move || output.failed(&failed)).unwrap_or(exit)
}

fn run(cli: Cli, output: &Output) -> Result<Exit, Failed> {
    let host = Host::here();
    if let Some(done) = without_configuration(&cli, &host, output) {
        return done;
    }
    let settings = match (config::load(&cli.config), &cli.verb) {
        (Ok(settings), _) => settings,
        (Err(error), Verb::Status(options)) if options.check => return status::unconfigured(&error, output),
        (Err(error), _) => return Err(error.into()),
    };
    let settings = match &cli.verb {
        Verb::Agent { .. }
        | Verb::Records(_)
        | Verb::CheckConfig
        | Verb::Doctor
        | Verb::Enable(_)
        | Verb::Disable(_) => crate::guard::follow_status_monitor(&host, settings),
        // They have nothing to do in its directory.
        _ => settings,
    };
    let ask = |request: Request| ask::ask(&settings, &request, output);
    match cli.verb {
        Verb::Agent { log, ends_with } => agent::run(host, settings, &log, ends_with),
        Verb::Supervise { log } => agent::supervise(&settings, &cli.config, &log),
        Verb::Adopt(adopt) => ask(Request::Adopt {
            service: adopt.service.name(&settings.server)?,
            prepare: adopt.prepare,
            finish: adopt.finish,
            fenced: adopt.owner_fenced,
            force: adopt.force,
            answer_when: adopt.wait.answer_when(),
        }),
        Verb::Release { service } => ask(Request::Release { service: service.name(&settings.server)? }),
        Verb::Failback { service, wait } => ask(Request::Failback {
            service: service.name(&settings.server)?,
            answer_when: wait.answer_when(),
        }),
        Verb::Move { service, to, wait } => {
            let service = service.name(&settings.server)?;
            moving::run(&service, to, wait.answer_when(), &host, &settings, output)
        }
        Verb::Maintenance { switch } => ask(Request::Maintenance { on: switch == Switch::On }),
        Verb::Drill(options) => drill::run(&options, &settings, output),
        Verb::Status(options) => status::run(&options, &host, &settings, output),
        Verb::History { service } => history::history(service.as_deref(), &host, &settings, output),
        Verb::Report(options) => history::report(&options, &host, &settings, output),
        Verb::Records(verb) => records::run(verb, &host, &settings, output),
        Verb::CheckConfig => guard::check_config(&host, &settings, output),
        Verb::Doctor => guard::doctor(&host, &settings, &cli.config, output),
        Verb::Enable(how) => guard::enable(&host, &settings, &how, output),
        Verb::Disable(how) => guard::disable(&host, &settings, &how, output),
        // See `without_configuration`.
        Verb::Callout { .. }
        | Verb::Completions { .. }
        | Verb::Demo(_)
        | Verb::Exporter(_)
        | Verb::Man(_)
        | Verb::Notify(_)
        | Verb::Ocf { .. }
        | Verb::SampleConfig
        | Verb::Store(_) => Ok(Exit::Done),
    }
}

/// Carries out a verb that needs no configuration of this server, or reads it by itself. Nothing for any other verb.
fn without_configuration(cli: &Cli, host: &Host, output: &Output) -> Option<Result<Exit, Failed>> {
    Some(match &cli.verb {
        Verb::Completions { shell } => documents::completions(*shell, output),
        Verb::SampleConfig => documents::sample_config(output),
        Verb::Man(options) => documents::man(options, output),
        // The demo brings its own configuration.
        Verb::Demo(options) => demo::run(options, host, output),
        // It asks an agent, whose socket it is told.
        Verb::Exporter(options) => exporter::run(options, output),
        // It names both of its configurations.
        Verb::Store(verb) => store::run(verb, host, output),
        // Used where no agent runs, and nothing is configured.
        Verb::Notify(options) => notify::run(host, options, output),
        Verb::Callout { arguments } => {
            // rpc.statd goes on, whether it worked or not.
            let _ = crate::callout::main(arguments);
            Ok(Exit::Done)
        }
        Verb::Ocf { agent, action } => Ok(Exit::Ocf(ocf::run((*agent).into(), action, &cli.config))),
        _ => return None,
    })
}

/// clap's own word on a command line that can't be, or on `--help`.
fn usage(error: &clap::Error) -> Exit {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A reader that asked for help and went away needs none.
        let _ = error.print();
        return Exit::Done;
    }
    let _ = error.print();
    let words: Vec<OsString> = std::env::args_os().collect();
    let misplaced = misplaced_name(error.kind(), &words);
    let hint = misplaced.as_ref().map(|hint| format!("hint: {hint}")).or_else(|| help::hint(error));
    if let Some(hint) = hint {
        // Where this can't be written there is no other way to say so.
        let _ = writeln!(io::stderr().lock(), "\n{hint}");
    }
    // Whether JSON was asked for can't be told from a command line that was not understood; the word itself can.
    if std::env::args_os().any(|argument| argument == "--json") {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let what = misplaced.map_or(first.to_owned(), |hint| format!("{first} {hint}"));
        return Output::new(true).document_of(&Failed::new(Exit::Usage, what));
    }
    Exit::Usage
}

/// The hint where the name of a service was probably meant, and was taken for the server's. A guess would fence, or
/// spare, the wrong server.
fn misplaced_name(kind: ErrorKind, words: &[OsString]) -> Option<String> {
    const OPTION: &str = "--owner-fenced";
    let at = words
        .iter()
        .position(|word| word == OPTION)
        .filter(|_| kind == ErrorKind::MissingRequiredArgument)?;
    let taken = words.get(at + 1)?.to_str().filter(|word| !word.starts_with('-'))?;
    Some(format!(
        "{taken:?} after {OPTION} was taken for the server that is off; if it is the service, say it before the option, \
         as in 'heirlock adopt SERVICE {OPTION} SERVER'"
    ))
}
