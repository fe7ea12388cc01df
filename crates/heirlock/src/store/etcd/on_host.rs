//! etcd as the store of a host: it lies on no disk of this host, and no volume has to be mounted for it.

use std::io;

use heirlock_core::store::{Store, StoreError, StoreErrorKind};
use heirlock_core::store_identity::{Found, StoreIdentity};
use heirlock_core::store_standing::Standing;

use super::super::on_host::{Ground, PlaceFinding, Said, StoreOnHost, Unusable, Weight};
use super::EtcdStore;
use super::client::Purpose;
use super::health::{self, Beyond};
use super::wire::{Compare, Op, Range, Txn};
use super::x509::Certificate;
use super::{files_on, http, secret};
use crate::config::Settings;
use crate::host::Host;

impl EtcdStore {
    /// Whether a key may be read that no program has, beyond the prefix.
    fn beyond(&self) -> Beyond {
        let then = vec![Op::Range(Range::key("heirlock-looks-whether-this-may-be-read").names())];
        match self.client.txn(&Txn { then, ..Txn::default() }, Purpose::Call) {
            Ok(_) => Beyond::Permitted,
            Err(error) if error.is_denied() => Beyond::Denied,
            Err(_) => Beyond::Unknown,
        }
    }
}

impl StoreOnHost for EtcdStore {
    fn shown(&self, _: &Settings) -> String {
        self.describe()
    }

    fn check(&self, host: &Host, settings: &Settings) -> Vec<PlaceFinding> {
        let Some(etcd) = &settings.store.etcd else { return Vec::new() };
        let etcd = &files_on(host, etcd);
        let statuses = self.client.statuses().into_iter();
        let statuses = statuses.map(|status| status.map_err(|error| error.why()));
        let asked: Vec<_> = etcd.endpoints.iter().cloned().zip(statuses).collect();
        let mut told = health::of_members(&asked);
        let user = etcd.user.as_ref();
        let now_s =
            std::time::UNIX_EPOCH.elapsed().map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        let own = etcd.certificate.as_ref().map(|(certificate, _)| (certificate, true));
        for (file, is_own) in own.into_iter().chain(etcd.ca.as_ref().map(|ca| (ca, false))) {
            let found =
                http::certificates(file).ok().and_then(|found| Certificate::parse(found.first()?.der()));
            told.extend(health::of_certificate(
                &file.display().to_string(),
                found,
                now_s,
                user.is_some(),
                is_own,
            ));
        }
        let secrets = etcd.certificate.iter().map(|(_, key)| key).chain(user.map(|(_, password)| password));
        let refused = secrets.filter_map(|file| secret::check_rights(file).err());
        told.extend(refused.map(|why| Said::new(Weight::Warning, why, "see the finding")));
        let user = user.map(|(name, _)| name.as_str());
        told.extend(health::of_role(user, self.beyond(), self.keys.prefix()));
        told.into_iter().map(PlaceFinding::Said).collect()
    }

    fn try_room(&self) -> Result<(), String> {
        self.prove(heirlock_core::limits::RECORD_BYTES_MAX).map_err(|error| error.to_string())
    }

    fn missing(&self, _: &Host, _: &Settings) -> Option<String> {
        None
    }

    fn unusable(&self, _: &Settings, error: &StoreError) -> Unusable {
        let remedy = match error.kind() {
            StoreErrorKind::Absent { is_remembered: false } => {
                "see that store.endpoints and store.prefix are right; where there never was a store, 'heirlock enable' makes one"
            }
            StoreErrorKind::NotInForce => "see the finding",
            _ => "see that a majority of etcd's members runs and can be reached from here",
        };
        // All servers see it at the same time.
        Unusable { remedy: remedy.to_owned(), costs_locks: true }
    }

    fn ground(&self, _: &Settings) -> Option<Ground> {
        None
    }

    fn set_up(&self) -> Result<Found, StoreError> {
        self.make_store(&Standing::InForce(StoreIdentity::of(fastrand::u128(..))))?;
        self.found()
    }

    fn remove_empty(&self, _: Option<u32>) -> io::Result<()> {
        let compares = self.keys.kept().map(Compare::Absent).to_vec();
        let then = vec![Op::Delete(self.keys.all())];
        let made = self.make(Txn { compares, then, ..Txn::default() }, Purpose::Call);
        match made.map_err(|error| io::Error::other(error.to_string()))? {
            made if made.held => Ok(()),
            // Repeated, it finds no store, which is another failure.
            _ => Err(io::Error::new(
                io::ErrorKind::DirectoryNotEmpty,
                format!("{}: something is kept in it", self.shown()),
            )),
        }
    }
}
