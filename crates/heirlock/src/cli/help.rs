//! The texts below each verb's `--help`: examples that can be typed, and the meaning of its exit codes. And the hints at
//! likely slips.

use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::config;

/// Exit codes that mean the same wherever they come.
macro_rules! code {
    (usage) => {
        "\n  2  the command line or the configuration can't be"
    };
    (refused) => {
        "\n  3  refused; nothing was changed"
    };
    (agent) => {
        "\n  4  no agent answers, or its loop hangs: the request may be done later"
    };
    (store) => {
        "\n  5  the store fails"
    };
    (untold) => {
        "\n  6  adopted and serving, but not every client was told, or not yet"
    };
}

macro_rules! help {
    ($examples:literal, $($own:literal),* $(; $($common:ident),*)?) => {
        concat!("Examples:", $examples, "\n\nExit codes:", $($own,)* $($(code!($common)),*)?)
    };
}

pub(super) const AGENT: &str = help!(
    "
  heirlock agent              # in the foreground; or systemctl start heirlock
  heirlock agent --log debug  # says more",
    "
  0  stopped in order
  1  something is missing that it needs, or another agent has its name";
    usage, store
);

pub(super) const SUPERVISE: &str = help!(
    "
  heirlock supervise  # in place of 'heirlock agent', under mode \"nsm\"",
    "
  0  stopped in order
  1  failed: the sockets can't be had, or no agent can be started";
    usage
);

pub(super) const CALLOUT: &str = crate::callout::HELP;

pub(super) const OCF: &str = "\
Examples:
  OCF_RESKEY_service=nfs heirlock ocf service monitor  # as Pacemaker asks
  heirlock ocf notify meta-data

The parameters come in the environment, as OCF_RESKEY_service. A reason is
printed to standard error, after 'ocf-exit-reason:'.

Exit codes:
  0  done; or the resource is active
  1  it failed
  2  the configuration of this node can't be
  3  there is no such action
  6  the configuration of the resource can't be
  7  the resource is not active
  190  the resource is active and degraded";

pub(super) const ADOPT: &str = help!(
    "
  heirlock adopt nfs --owner-fenced nfs-a  # nfs-a is confirmed off
  heirlock adopt nfs                       # its owner has released it
  heirlock adopt nfs --prepare --owner-fenced nfs-a  # before the address
  heirlock adopt nfs --finish --until notified       # and after it",
    "
  0  adopted, and every client was told; with --prepare: grace is open
  1  not adopted: it failed; say it again when the cause is mended";
    usage, refused, agent, store, untold
);

pub(super) const RELEASE: &str = help!(
    "
  heirlock release nfs  # on the server that has it; then adopt it on another",
    "
  0  released: address and volume are gone from here; or it is not held here:\n     nothing was changed
  1  not released, or its volume is still here: the message says which
  6  released, but entries in the store can't be read: their clients may not be\n     told of the move";
    usage, refused, agent
);

pub(super) const FAILBACK: &str = help!(
    "
  heirlock failback nfs  # on the server where it is at home",
    "
  0  at home, and every client was told; with --no-wait: its owner was asked
  1  not at home: it failed";
    usage, refused, agent, store, untold
);

pub(super) const MOVE: &str = help!(
    "
  heirlock move nfs nfs-b  # on any server: its owner gives it up for nfs-b",
    "
  0  there, and every client was told; with --no-wait: it is being taken over
  1  not there, or not as it should be: the message says how to find out whose\n     it is; the same command goes on";
    usage, refused, agent, store, untold
);

pub(super) const DRILL: &str = help!(
    "
  heirlock drill nfs    # on the server that would adopt it
  heirlock drill --all  # every service that this server does not hold",
    "
  0  an adoption would work, and every client on record answers
  1  it would not work: a line for each reason
  5  it would not work: the store can't be read
  6  it would work, and some clients would not be told: the table names them
  7  nothing speaks against it, and it is not proved: something could not be\n     checked, or this server holds the service, so another one would adopt it\nWith --all: the first of 5, 1, 6, 7 and 0 that one of the services has.";
    usage, refused, agent
);

pub(super) const MAINTENANCE: &str = help!(
    "
  heirlock maintenance on   # before this server is rebooted, say
  heirlock maintenance off",
    "
  0  noted, also over a reboot";
    usage, refused, agent
);

pub(super) const STATUS: &str = help!(
    "
  heirlock status
  heirlock status nfs      # one service alone
  heirlock status --watch  # until Ctrl-C
  heirlock status --check  # one line for a monitoring system
  heirlock status --json",
    "
  0  shown, and the store works
  2  the command line or the configuration can't be
  4  no agent answers: what the store says is shown
  5  the store fails"
);

/// Added to the one above.
pub(super) const CHECK: &str = "
Exit codes of --check, as monitoring plugins have them:
  0  OK: all is well
  1  WARNING: an administrator should look at it
  2  CRITICAL: clients are unprotected, not served, or have lost their locks
  3  UNKNOWN: it could not be found out";

pub(super) const HISTORY: &str = help!(
    "
  heirlock history      # of every service in the store
  heirlock history nfs  # no agent is needed, and any server can tell",
    "
  0  shown
  1  shown, but something can't be read, or a promise was broken";
    usage, store
);

pub(super) const REPORT: &str = help!(
    "
  heirlock report nfs                           # of the last adoption
  heirlock report nfs --generation 4 --clients  # of an older one, each client",
    "
  0  every client was told, or it is prepared
  1  it failed";
    usage, refused, store, untold
);

pub(super) const RECORDS: &str = help!(
    "
  heirlock records list nfs",
    "
  0  done
  1  failed, or something in the store or the directory can't be read";
    usage, refused, agent, store
);

pub(super) const RECORDS_LIST: &str = help!(
    "
  heirlock records list      # services, and how many clients each has
  heirlock records list nfs  # its clients",
    "
  0  shown
  1  shown, but some records can't be read";
    usage, store
);

pub(super) const RECORDS_SHOW: &str = help!(
    "
  heirlock records show nfs 192.0.2.7
  heirlock records show nfs client2.example.com",
    "
  0  shown
  1  the service was claimed, and its records are not there yet";
    usage, store
);

pub(super) const RECORDS_EXPORT: &str = help!(
    "
  heirlock records export nfs /root/nfs-state",
    "
  0  all records are written
  1  failed, or some records can't be read";
    usage, refused, store
);

pub(super) const RECORDS_FORGET: &str = help!(
    "
  heirlock records forget nfs 192.0.2.7
  heirlock records forget nfs client2.example.com",
    "
  0  forgotten
  1  failed: the record is there still";
    usage, refused, agent
);

pub(super) const RECORDS_IMPORT: &str = help!(
    "
  heirlock records import nfs /mnt/dead/var/lib/nfs --owner-fenced=nfs-a",
    "
  0  all records are in the store
  1  failed, or some can't be read or have no address: the list says which";
    usage, refused, store
);

pub(super) const STORE: &str = help!(
    "
  heirlock store copy /etc/heirlock/heirlock.toml /etc/heirlock/etcd.toml",
    "
  0  done
  1  failed; the message says which store counts";
    usage, refused, store
);

pub(super) const STORE_COPY: &str = help!(
    "
  heirlock store copy /etc/heirlock/heirlock.toml /etc/heirlock/etcd.toml
  heirlock store copy heirlock.toml etcd.toml --give-up  # before it has ended",
    "
  0  TO holds the store, and FROM refuses every agent
  1  failed; the message says which store counts";
    usage, refused, store
);

pub(super) const CHECK_CONFIG: &str = help!(
    "
  heirlock check-config
  heirlock check-config --config ./heirlock.toml",
    "
  0  nothing in it is known to lose locks
  1  something is";
    usage
);

pub(super) const DOCTOR: &str = help!(
    "
  heirlock doctor  # on every server, after each change of the host",
    "
  0  nothing on this host is known to lose locks
  1  something is";
    usage
);

pub(super) const ENABLE: &str = help!(
    "
  heirlock enable --plan  # what it would do
  heirlock enable",
    "
  0  this host is under guard
  1  failed: what was done is listed, and the next 'enable' goes on";
    usage, refused, store
);

pub(super) const DISABLE: &str = help!(
    "
  heirlock disable --plan     # what it would do
  heirlock disable
  heirlock disable --if-idle  # as a package says it that is removed",
    "
  0  this host is as it was before 'enable'
  1  failed: what was done is listed, and the next 'disable' goes on";
    usage, refused, store
);

pub(super) const NOTIFY: &str = help!(
    "
  heirlock notify -P /root/nfs --address 192.0.2.10 --name nfs.example.com",
    "
  0  every client was told
  1  failed, or some clients have not answered: the list says which";
    usage, refused
);

pub(super) const EXPORTER: &str = help!(
    "
  heirlock exporter                         # http://127.0.0.1:9842/
  heirlock exporter --listen 192.0.2.1:9842
  heirlock exporter --textfile /var/lib/prometheus/node-exporter
  heirlock exporter --textfile /var/lib/prometheus/node-exporter --once",
    "
  0  with --once: written, also where no agent answers
  1  the address can't be had, or the file can't be written";
    usage
);

pub(super) const DEMO: &str = help!(
    "
  heirlock demo
  heirlock demo --clients 1000 --unreachable 3
  heirlock demo --page        # with the status page of each server
  heirlock demo --store etcd  # on an etcd of its own, where one is installed",
    "
  0  it went as it should
  1  it did not";
    usage
);

pub(super) const COMPLETIONS: &str = help!(
    "
  heirlock completions bash > /etc/bash_completion.d/heirlock
  heirlock completions zsh > /usr/local/share/zsh/site-functions/_heirlock
  heirlock completions fish > /etc/fish/completions/heirlock.fish",
    "
  0  printed
  1  failed";
    usage
);

pub(super) const SAMPLE_CONFIG: &str = help!(
    "
  heirlock sample-config > /etc/heirlock/heirlock.toml",
    "
  0  printed
  1  failed";
    usage
);

pub(super) const MAN: &str = help!(
    "
  heirlock man adopt | man -l -
  heirlock man --all /usr/local/share/man",
    "
  0  printed, or all are written
  1  failed";
    usage
);

/// Words that people use for verbs that are called otherwise.
const OTHERWISE: &[(&[&str], &str)] = &[
    (
        &["takeover", "take-over", "failover", "fail-over", "take", "grab", "promote"],
        "heirlock adopt SERVICE",
    ),
    (
        &["give", "giveup", "give-up", "handover", "hand-over", "relinquish", "demote"],
        "heirlock release SERVICE",
    ),
    (&["switchover", "switch-over", "migrate", "relocate"], "heirlock move SERVICE SERVER"),
    (&["return", "home", "giveback", "give-back"], "heirlock failback SERVICE"),
    (&["start", "run", "daemon", "serve"], "systemctl start heirlock, or heirlock agent in the foreground"),
    (&["stop", "restart", "reload"], "systemctl restart heirlock"),
    (&["log", "logs", "journal"], "journalctl -u heirlock"),
    (&["list", "clients", "ls", "record"], "heirlock records list SERVICE"),
    (&["show"], "heirlock records show SERVICE CLIENT"),
    (&["forget", "remove", "rm", "delete"], "heirlock records forget SERVICE CLIENT"),
    (&["export", "import"], "heirlock records export or heirlock records import"),
    (&["rehearse", "rehearsal", "dry-run", "simulate", "exercise"], "heirlock drill SERVICE"),
    (&["check", "health", "monitor", "test"], "heirlock status --check, or heirlock doctor"),
    (&["metrics", "prometheus", "page", "web", "dashboard"], "heirlock exporter"),
    (&["info", "show-status", "stat", "state"], "heirlock status"),
    (&["install", "setup", "init", "guard"], "heirlock enable"),
    (&["uninstall", "teardown"], "heirlock disable"),
    (&["pause", "unpause", "resume", "freeze"], "heirlock maintenance on, or heirlock maintenance off"),
    (&["events", "past", "last", "audit"], "heirlock history"),
];

/// The command that was probably meant, where that can be said.
pub(super) fn hint(error: &clap::Error) -> Option<String> {
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else {
                return None;
            };
            otherwise(word).map(|meant| format!("hint: did you mean '{meant}'?"))
        }
        ErrorKind::MissingRequiredArgument => {
            let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg) else {
                return None;
            };
            missing.iter().any(|argument| argument == "<SERVICE>").then(services)
        }
        _ => None,
    }
}

fn otherwise(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    OTHERWISE.iter().find(|(words, _)| words.contains(&word.as_str())).map(|(_, meant)| *meant)
}

/// The services that could have been meant, of the configuration that the command line names.
fn services() -> String {
    let path = configuration(std::env::args().collect());
    let Ok(settings) = config::load(&path) else {
        return format!("hint: the services are in {}", path.display());
    };
    let mut names: Vec<&str> = settings.services.iter().map(|service| service.name.as_str()).collect();
    let moves = std::env::args()
        .any(|word| matches!(word.as_str(), "adopt" | "release" | "failback" | "move" | "drill"));
    names.extend((!moves).then_some("host"));
    format!("hint: the services of {} are: {}", path.display(), names.join(", "))
}

/// clap gives nothing of a command line that it did not understand.
fn configuration(words: Vec<String>) -> PathBuf {
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let given = match word.split_once('=') {
            Some(("--config", path)) => Some(path.to_owned()),
            _ if word == "--config" => words.next(),
            _ => None,
        };
        if let Some(path) = given {
            return path.into();
        }
    }
    std::env::var_os("HEIRLOCK_CONFIG").map_or_else(|| config::CONFIGURATION.into(), Into::into)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::super::args::Cli;
    use super::*;

    #[test]
    fn another_word_for_a_verb_leads_to_it() {
        let hint = |word: &str| hint(&Cli::try_parse_from(["heirlock", word, "nfs"]).unwrap_err());
        assert_eq!(hint("takeover").unwrap(), "hint: did you mean 'heirlock adopt SERVICE'?");
        assert_eq!(hint("Logs").unwrap(), "hint: did you mean 'journalctl -u heirlock'?");
        assert_eq!(hint("nonsense"), None);
    }

    #[test]
    fn no_other_word_is_a_verb_by_itself() {
        let command = Cli::command();
        let verbs: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        for (words, _) in OTHERWISE {
            assert!(words.iter().all(|word| !verbs.contains(word)), "{words:?}");
        }
    }

    #[test]
    fn the_configuration_is_the_one_that_was_given() {
        let of = |words: &[&str]| configuration(words.iter().map(ToString::to_string).collect());
        assert_eq!(of(&["heirlock", "--config", "/x", "adopt"]), PathBuf::from("/x"));
        assert_eq!(of(&["heirlock", "adopt", "--config=/y"]), PathBuf::from("/y"));
    }
}
