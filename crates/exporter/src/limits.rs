//! Every bound of an exporter, in one place. Reaching one is reported.

use std::time::Duration;

/// Connections that are served at once. One more waits until one of them ends.
pub(crate) const CONNECTIONS_MAX: usize = 32;

/// How long a client may take to say what it wants.
pub(crate) const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a connection may last, from its first byte to its last: longer than the agent may take to answer.
pub(crate) const CONNECTION_TIME_MAX: Duration = Duration::from_secs(20);

/// Bytes of a request's head.
pub(crate) const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// Threads that ask the agent.
pub(crate) const ASKING_MAX: usize = 2;

/// For how long an answer of the agent is told to other clients too.
pub(crate) const ANSWER_AGE_MAX: Duration = Duration::from_millis(500);

/// How long the exporter waits where the kernel gives it no connection.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Other servers that metrics name. More are counted.
pub(crate) const SERVERS_MAX: usize = 64;

/// Lock managers of this server that have metrics.
pub(crate) const LOCK_MANAGERS_MAX: usize = 16;

/// Services that metrics name. More are counted.
pub(crate) const SERVICES_MAX: usize = 256;

/// For how long past adoptions are shown as they were told.
pub(crate) const PAST_AGE_MAX: Duration = Duration::from_secs(5);

/// Clients in trouble that the page names. More are counted.
pub(crate) const CLIENTS_SHOWN_MAX: usize = 50;

/// Problems that the page names. More are counted.
pub(crate) const PROBLEMS_SHOWN_MAX: usize = 50;

/// Adoptions that the page shows.
pub(crate) const ADOPTIONS_SHOWN_MAX: usize = 6;

/// After so many seconds the page is loaded anew.
pub(crate) const RELOAD_S: u32 = 10;

/// The same while an adoption is on.
pub(crate) const ATTENTIVE_RELOAD_S: u32 = 2;
