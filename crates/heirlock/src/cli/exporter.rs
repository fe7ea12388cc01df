//! `heirlock exporter`: metrics of the agent and a page, from what it tells at its read-only socket. It needs no rights but those to
//! ask there.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use clap::Args;
use heirlock_exporter::metrics::{self, Own};
use heirlock_exporter::{Source, serve};

use crate::control::report::{AdoptionReport, Next, Problem, ServiceStatus, StatusReport, judge};
use crate::control::{Answer, AskError, Request, ask_at};
use crate::files::trusted;
use crate::limits::TEXTFILE_INTERVAL;
use crate::threads;

use super::exit::{Exit, Failed};
use super::output::Output;
use super::render;

/// The file's name; node_exporter reads all that end in `.prom`.
const TEXTFILE: &str = "heirlock.prom";

/// The file is for all users that may reach its folder: it names no client.
const TEXTFILE_MODE: u32 = 0o644;

#[derive(Debug, Args)]
pub(super) struct Exporter {
    /// Where HTTP is served
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9842")]
    listen: SocketAddr,
    /// The agent's read-only socket, which is there where control.read-group names a group
    #[arg(long, value_name = "FILE", default_value = "/run/heirlock-status/status.sock")]
    socket: PathBuf,
    /// Write FOLDER/heirlock.prom every 15 s instead, for node_exporter's textfile collector
    #[arg(long, value_name = "FOLDER", conflicts_with = "listen")]
    textfile: Option<PathBuf>,
    /// Write the file once, and end
    #[arg(long, requires = "textfile")]
    once: bool,
}

/// Serves until it is ended.
pub(super) fn run(options: &Exporter, output: &Output) -> Result<Exit, Failed> {
    let agent = AtSocket(options.socket.clone());
    if let Some(folder) = &options.textfile {
        loop {
            write(folder, &agent)?;
            if options.once {
                return Ok(Exit::Done);
            }
            thread::sleep(TEXTFILE_INTERVAL);
        }
    }
    let listener = TcpListener::bind(options.listen).map_err(|error| {
        let what = format!("can't serve at {}: {error}; say another address with --listen", options.listen);
        Failed::new(Exit::Failed, what)
    })?;
    let address = listener.local_addr().unwrap_or(options.listen);
    output.warn(&format!("the page is at http://{address}/, metrics are at http://{address}/metrics"));
    match serve(listener, Arc::new(agent)) {
        Err(error) => Err(Failed::new(Exit::Failed, format!("can't serve at {}: {error}", options.listen))),
        Ok(never) => match never {},
    }
}

/// Serves the page of the agent behind this socket as long as the program runs, and says where.
pub(super) fn begin(socket: &Path) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (address, agent) = (listener.local_addr()?, AtSocket(socket.to_owned()));
    threads::start("page", move || serve(listener, Arc::new(agent)))?;
    Ok(address)
}

/// Writes the metrics. A reader sees the old file or the new one.
fn write(folder: &Path, agent: &AtSocket) -> Result<(), Failed> {
    let text = metrics::text(agent.status().ok().as_ref(), Own::default());
    let path = folder.join(TEXTFILE);
    trusted::replace(&path, text.as_bytes(), TEXTFILE_MODE, false)
        .map_err(|error| Failed::new(Exit::Failed, format!("can't write {}: {error}", path.display())))
}

/// The agent behind a socket.
struct AtSocket(PathBuf);

impl AtSocket {
    fn ask(&self, request: &Request) -> Result<Answer, String> {
        ask_at(&self.0, request).map_err(|error| match error {
            AskError::NoAgent { path, source } => format!(
                "no agent answers at {path}: {source}; it listens there where control.read-group names a group, and members \
                 of that group may ask"
            ),
            error => error.to_string(),
        })
    }
}

impl Source for AtSocket {
    fn status(&self) -> Result<StatusReport, String> {
        match self.ask(&Request::Status)? {
            Answer::Status(mut report) => {
                judge(&mut report);
                Ok(*report)
            }
            _ => {
                Err("expected a status of the agent, found another answer; is it of another version?".into())
            }
        }
    }

    fn past(&self) -> Result<Vec<AdoptionReport>, String> {
        match self.ask(&Request::Past)? {
            Answer::Past { adoptions } => Ok(adoptions),
            _ => Err("expected past adoptions, found another answer; is it of another version?".into()),
        }
    }

    fn problem(&self, problem: &Problem) -> String {
        render::in_words(problem)
    }

    fn next(&self, next: Next, service: &ServiceStatus) -> Option<String> {
        render::next_in_words(next, service)
    }
}
