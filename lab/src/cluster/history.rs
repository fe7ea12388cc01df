//! After a scenario: what lies in the store breaks no rule that every history keeps (`heirlock history`).

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{Cluster, etcd};

/// The past of one service, as far as it matters here.
#[derive(Debug, Deserialize)]
struct History {
    service: String,
    generations: Vec<serde_json::Value>,
    unreadable: Vec<String>,
    #[serde(default)]
    broken: Vec<String>,
}

impl Cluster {
    /// Asks this program for the past of all services, on the machine: no guest needs to be on. A store that is on a guest's own
    /// disk is left out, and that is said.
    ///
    /// # Errors
    /// When the program fails, or a promise was broken.
    pub fn check_history(&mut self, heirlock: &Path) -> Result<()> {
        let folder = self.store().join("heirlock");
        let store = match &self.etcd {
            Some(_) => etcd::settings_of_lab(),
            None if folder.join("services").exists() => {
                format!("path = \"{}\"\nshared = true", folder.display())
            }
            None => {
                self.say("no history is checked: the store is not in the folder that all guests share");
                return Ok(());
            }
        };
        let configuration = self.folder.join("history.toml");
        let own = self.folder.join("history");
        let text = format!(
            "server = \"lab\"\nlocal-directory = \"{own}\"\nruntime-directory = \"{own}/run\"\n[store]\n{store}\n",
            own = own.display(),
        );
        fs::write(&configuration, text).context("can't write a configuration")?;
        let said = Command::new(heirlock)
            .arg("--config")
            .arg(&configuration)
            .args(["history", "--json"])
            .output()
            .context("can't start heirlock history")?;
        let histories: Vec<History> =
            serde_json::from_slice(&said.stdout).with_context(|| format!("heirlock history: {said:?}"))?;
        for history in &histories {
            if let Some(broken) = history.broken.first().or(history.unreadable.first()) {
                bail!("the history of {}: {broken}", history.service);
            }
        }
        let generations: usize = histories.iter().map(|history| history.generations.len()).sum();
        self.say(format!(
            "the history of {} services with {generations} generations breaks no promise",
            histories.len()
        ));
        Ok(())
    }
}
