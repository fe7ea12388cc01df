//! The HTTP server: a few pages, over bounded connections that end in time.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use heirlock_agent::control::report::{AdoptionReport, StatusReport};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::spawn_blocking;

use crate::limits::{
    ACCEPT_PAUSE, ANSWER_AGE_MAX, ASKING_MAX, CONNECTION_TIME_MAX, CONNECTIONS_MAX, PAST_AGE_MAX,
    REQUEST_BYTES_MAX, REQUEST_TIME_MAX,
};
use crate::metrics::{self, Own};
use crate::page::{self, Known, Now};
use crate::source::Source;

/// An answer to a client.
type Page = Response<Full<Bytes>>;

/// An answer of the agent, or why there is none.
type Told<T> = Arc<Result<T, String>>;

/// Its last answer, and when that came.
type Kept<T> = Mutex<Option<(Instant, Told<T>)>>;

/// Serves until the program ends.
///
/// # Errors
/// Where the listener can't be used.
pub fn serve(listener: TcpListener, source: Arc<dyn Source>) -> io::Result<Infallible> {
    let is_local = listener.local_addr()?.ip().is_loopback();
    listener.set_nonblocking(true)?;
    // Agents are asked in threads, since an answer may take seconds.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(ASKING_MAX)
        .thread_name("ask")
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let exporter = Arc::new(Exporter {
            source,
            is_local,
            told: Mutex::new(None),
            past: Mutex::new(None),
            waited: AtomicU64::new(0),
        });
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            if places.available_permits() == 0 {
                exporter.waited.fetch_add(1, Ordering::Relaxed);
            }
            // It is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { continue };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let exporter = Arc::clone(&exporter);
            tokio::spawn(async move {
                let answer = service_fn(move |request| {
                    let exporter = Arc::clone(&exporter);
                    async move { Ok::<_, Infallible>(exporter.answer(&request).await) }
                });
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIME_MAX);
                http.keep_alive(false).max_buf_size(REQUEST_BYTES_MAX);
                // A client that goes away, or is too slow, has no answer. There is nothing else to do about it.
                let served = http.serve_connection(TokioIo::new(stream), answer);
                let _ = tokio::time::timeout(CONNECTION_TIME_MAX, served).await;
                drop(place);
            });
        }
    })
}

/// The state that all connections share.
struct Exporter {
    source: Arc<dyn Source>,
    /// It listens on this host alone.
    is_local: bool,
    told: Kept<StatusReport>,
    past: Kept<Vec<AdoptionReport>>,
    waited: AtomicU64,
}

impl Exporter {
    async fn answer(&self, request: &Request<Incoming>) -> Page {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut page = error(StatusCode::METHOD_NOT_ALLOWED, "expected GET or HEAD");
            page.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return page;
        }
        if self.is_local && !names_this_host(request.uri(), request.headers()) {
            let what = "expected localhost or an address as the host's name: this exporter listens on loopback, and other \
                        names may be another site's";
            return error(StatusCode::MISDIRECTED_REQUEST, what);
        }
        match request.uri().path() {
            "/metrics" => {
                let told = self.status().await;
                let own = Own { waited: self.waited.load(Ordering::Relaxed) };
                page(StatusCode::OK, metrics::CONTENT_TYPE, metrics::text(told.as_ref().as_ref().ok(), own))
            }
            "/" => {
                let (status, past) = (self.status().await, self.past().await);
                let known = Known {
                    status: status.as_ref().as_ref().map_err(String::as_str),
                    past: past.as_ref().as_ref().map(Vec::as_slice).map_err(String::as_str),
                    words: self.source.as_ref(),
                    now: Now::here(),
                    is_still: request.uri().query() == Some("still"),
                };
                let mut page = page(StatusCode::OK, "text/html; charset=utf-8", page::page(&known));
                let policy = HeaderValue::from_static(page::SECURITY_POLICY);
                page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
                page
            }
            "/style.css" => page(StatusCode::OK, "text/css; charset=utf-8", page::STYLE.to_owned()),
            _ => error(StatusCode::NOT_FOUND, "expected / or /metrics"),
        }
    }

    async fn status(&self) -> Told<StatusReport> {
        ask(&self.told, ANSWER_AGE_MAX, &self.source, <dyn Source>::status).await
    }

    async fn past(&self) -> Told<Vec<AdoptionReport>> {
        ask(&self.past, PAST_AGE_MAX, &self.source, <dyn Source>::past).await
    }
}

/// Asks the agent, unless it has just answered. While it is asked, others wait for the same answer.
async fn ask<T: Send + Sync + 'static>(
    told: &Kept<T>,
    age_max: Duration,
    source: &Arc<dyn Source>,
    question: fn(&dyn Source) -> Result<T, String>,
) -> Told<T> {
    let mut told = told.lock().await;
    if let Some((at, answer)) = told.as_ref()
        && at.elapsed() < age_max
    {
        return Arc::clone(answer);
    }
    let source = Arc::clone(source);
    let answer = spawn_blocking(move || question(source.as_ref())).await;
    let answer =
        Arc::new(answer.unwrap_or_else(|error| Err(format!("the agent could not be asked: {error}"))));
    *told = Some((Instant::now(), Arc::clone(&answer)));
    answer
}

/// Whether a request was meant for this host. A site on the internet may have its own name resolved to 127.0.0.1, and a
/// browser on this host would hand the answer to its scripts.
fn names_this_host(uri: &Uri, headers: &HeaderMap) -> bool {
    let of_header = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    // A request without one is no browser's.
    let Some(host) = uri.authority().map(hyper::http::uri::Authority::as_str).or(of_header) else {
        return true;
    };
    let without_port = host.rsplit_once(':').map_or(host, |(host, _)| host);
    host.parse::<IpAddr>().is_ok()
        || host.parse::<SocketAddr>().is_ok()
        || without_port.parse::<IpAddr>().is_ok()
        || host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .is_some_and(|host| host.parse::<IpAddr>().is_ok())
        || without_port.eq_ignore_ascii_case("localhost")
}

fn error(status: StatusCode, what: &str) -> Page {
    page(status, "text/plain; charset=utf-8", format!("{what}\n"))
}

fn page(status: StatusCode, content_type: &'static str, text: String) -> Page {
    let mut page = Response::new(Full::new(Bytes::from(text)));
    *page.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        page.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    page
}

#[cfg(test)]
mod tests;
