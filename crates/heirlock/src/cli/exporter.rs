//! `heirlock exporter`: metrics of the agent, from the status that it tells at its read-only socket. It needs no rights but those
//! to ask there.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use clap::Args;
use heirlock_exporter::metrics::{self, Own};
use heirlock_exporter::{Source, serve};

use crate::control::report::{StatusReport, judge};
use crate::control::{Answer, AskError, Request, ask_at};
use crate::files::trusted;
use crate::limits::TEXTFILE_INTERVAL;

use super::exit::{Exit, Failed};
use super::output::Output;

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
    output.warn(&format!("metrics are at http://{address}/metrics"));
    match serve(listener, Arc::new(agent)) {
        Err(error) => Err(Failed::new(Exit::Failed, format!("can't serve at {}: {error}", options.listen))),
        Ok(never) => match never {},
    }
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

impl Source for AtSocket {
    fn status(&self) -> Result<StatusReport, String> {
        match ask_at(&self.0, &Request::Status) {
            Ok(Answer::Status(mut report)) => {
                judge(&mut report);
                Ok(*report)
            }
            Ok(_) => {
                Err("expected a status of the agent, found another answer; is it of another version?".into())
            }
            Err(AskError::NoAgent { path, source }) => Err(format!(
                "no agent answers at {path}: {source}; it listens there where control.read-group names a group, and members \
                 of that group may ask"
            )),
            Err(error) => Err(error.to_string()),
        }
    }
}
