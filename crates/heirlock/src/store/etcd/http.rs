//! One question to one endpoint, over HTTP: one connection for each call that is on, kept for the next.
//!
//! Nothing is repeated here, no other place is followed, and no proxy of the environment is asked. Every part has a time limit
//! and every answer a bound.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error};

use super::secret::Secret;
use crate::files::trusted;
use crate::limits::{ETCD_ANSWER_BYTES_MAX, ETCD_PEM_BYTES_MAX};
use crate::threads;

/// What an endpoint is asked with.
#[derive(Clone)]
pub(super) struct Question<'a> {
    /// The place, as `/v3/kv/txn`.
    pub(super) path: &'static str,
    /// The request.
    pub(super) body: &'a [u8],
    /// The token of the user, where one is needed.
    pub(super) token: Option<&'a Secret>,
    /// How long all of it may take.
    pub(super) time_max: Duration,
}

/// The answer of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    /// The number of HTTP.
    pub(super) status: u16,
    /// The answer.
    pub(super) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoReply {
    /// The question has not left: nothing was done.
    NotAsked(String),
    /// It may have been carried out.
    Lost(String),
    /// The answer is longer than any that is read: it was carried out.
    TooLong,
}

/// Asks endpoints.
pub(super) trait Exchange: Send + Sync {
    /// Asks the endpoint at this place.
    fn ask(&self, place: usize, question: &Question<'_>) -> Result<Reply, NoReply>;
}

/// The files of a secured connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TlsFiles {
    /// The certificates of those that may sign the members'.
    pub(super) ca: Option<std::path::PathBuf>,
    /// This server's own certificate and key.
    pub(super) own: Option<(std::path::PathBuf, std::path::PathBuf)>,
}

/// The real thing.
pub(super) struct Http {
    endpoints: Vec<String>,
    files: TlsFiles,
    connect_max: Duration,
    /// One for each endpoint; made anew after a failure, with the certificates as they lie there then.
    agents: Vec<Mutex<Option<Agent>>>,
}

impl Http {
    /// Of these endpoints, as `https://10.0.0.1:2379`.
    pub(super) fn new(endpoints: &[String], files: TlsFiles, connect_max: Duration) -> Self {
        let agents = endpoints.iter().map(|_| Mutex::default()).collect();
        Self { endpoints: endpoints.to_vec(), files, connect_max, agents }
    }

    fn agent(&self, place: usize) -> Result<Agent, String> {
        let kept = self.agents.get(place).ok_or("there is no such endpoint")?;
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = &*kept {
            return Ok(agent.clone());
        }
        let tls = self.tls()?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_age(CONNECTION_AGE_MAX)
            .timeout_connect(Some(self.connect_max))
            .timeout_resolve(Some(self.connect_max))
            .tls_config(tls)
            .build();
        let agent = Agent::with_parts(config, DefaultConnector::default(), Names::default());
        *kept = Some(agent.clone());
        Ok(agent)
    }

    fn forget(&self, place: usize) {
        if let Some(kept) = self.agents.get(place) {
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    fn tls(&self) -> Result<TlsConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
        // Without one no certificate is believed.
        let ca = self.files.ca.as_deref().map_or_else(|| Ok(Vec::new()), certificates)?;
        tls = tls.root_certs(RootCerts::Specific(Arc::new(ca)));
        if let Some((certificate, key)) = &self.files.own {
            let (chain, key) = (certificates(certificate)?, private_key(key)?);
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
        }
        Ok(tls.build())
    }
}

/// How long a connection is kept that is not used.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);

impl Exchange for Http {
    fn ask(&self, place: usize, question: &Question<'_>) -> Result<Reply, NoReply> {
        let agent = self.agent(place).map_err(NoReply::NotAsked)?;
        let endpoint = self.endpoints.get(place).map_or("", String::as_str);
        let mut request = agent
            .post(format!("{endpoint}{}", question.path))
            .config()
            .timeout_global(Some(question.time_max))
            .build()
            .content_type("application/json");
        if let Some(token) = question.token {
            request = request.header("Authorization", token.reveal());
        }
        let failed = |error: Error| {
            self.forget(place);
            no_reply(error)
        };
        let mut reply = request.send(question.body).map_err(failed)?;
        let status = reply.status().as_u16();
        let body = reply.body_mut().with_config().limit(ETCD_ANSWER_BYTES_MAX).read_to_vec();
        let body = body.map_err(|error| match error {
            Error::BodyExceedsLimit(_) => NoReply::TooLong,
            other => {
                self.forget(place);
                NoReply::Lost(said(&other))
            }
        })?;
        Ok(Reply { status, body })
    }
}

/// Whether the question may have left.
fn no_reply(error: Error) -> NoReply {
    use std::io::ErrorKind;
    let said = said(&error);
    match error {
        Error::HostNotFound
        | Error::ConnectionFailed
        | Error::BadUri(_)
        | Error::Http(_)
        | Error::Tls(_)
        | Error::TlsRequired
        | Error::Pem(_)
        | Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => NoReply::NotAsked(said),
        Error::Io(error)
            if matches!(
                error.kind(),
                ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
            ) =>
        {
            NoReply::NotAsked(said)
        }
        _ => NoReply::Lost(said),
    }
}

/// The failure in words. None of ureq's own errors has anything of a header or of a body in it.
fn said(error: &Error) -> String {
    match error {
        Error::Timeout(part) => format!("no answer in time ({part})"),
        Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, String> {
    trusted::read(path, ETCD_PEM_BYTES_MAX).map_err(|error| format!("can't read {}: {error}", path.display()))
}

/// The certificates in a file.
///
/// # Errors
/// Where there is none, in words for people.
pub(super) fn certificates(path: &std::path::Path) -> Result<Vec<Certificate<'static>>, String> {
    let pem = read(path)?;
    let found: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    match found.is_empty() {
        true => Err(format!("{}: expected certificates (PEM), found none", path.display())),
        false => Ok(found),
    }
}

fn private_key(path: &std::path::Path) -> Result<PrivateKey<'static>, String> {
    // The error of a key that can't be read says nothing of it.
    PrivateKey::from_pem(&read(path)?)
        .map_err(|_| format!("{}: expected a private key (PEM), found none", path.display()))
}

/// Looks up the endpoints' names, within a time: a name service that hangs must not hold a call up. Where it does, the
/// addresses count that were found last.
#[derive(Default)]
struct Names {
    last: Mutex<Vec<SocketAddr>>,
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Names")
    }
}

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(usual);
        let found: Vec<SocketAddr> = match host.parse() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => self.look_up(host, port, *timeout.after),
        };
        let mut addresses = self.empty();
        found.into_iter().take(ADDRESSES_MAX).for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(Error::HostNotFound) } else { Ok(addresses) }
    }
}

/// Addresses of one endpoint that are tried in turn: ureq's own bound is twice that.
const ADDRESSES_MAX: usize = 8;

impl Names {
    fn look_up(&self, host: String, port: u16, time_max: Duration) -> Vec<SocketAddr> {
        let (tell, told) = sync_channel(1);
        let began = threads::start("etcd-name", move || {
            let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            let _ = tell.send(found.unwrap_or_default());
        });
        let found = began.ok().and_then(|_| told.recv_timeout(time_max).ok()).unwrap_or_default();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if !found.is_empty() {
            last.clone_from(&found);
        }
        last.clone()
    }
}
