//! The lock managers of a server, one by one: what concerns a lock manager is asked of each, and said of it by name.

use std::sync::Arc;

use heirlock_core::LockManagerName;

use super::finding::Finding;
use crate::config::{InstanceNumber, Settings};
use crate::host::Host;
use crate::lock_manager::{self, LockManager};

/// One of them.
pub(super) struct Managed {
    pub(super) name: LockManagerName,
    pub(super) number: InstanceNumber,
    /// The configuration as it has it, with the services that it serves and no others.
    pub(super) settings: Settings,
    pub(super) lock_manager: Arc<dyn LockManager>,
}

impl Managed {
    /// All that are configured; the first one is that of the server's own network namespace.
    pub(super) fn all(host: &Host, settings: &Settings) -> Vec<Self> {
        let each = settings.instances().into_iter().enumerate().filter_map(|(place, of)| {
            let number = InstanceNumber::at(place);
            let mut own = settings.of_instance(number)?;
            own.services.retain(|service| service.instance == number);
            let lock_manager = lock_manager::open_on(&own, host);
            Some(Self { name: of.name, number, settings: own, lock_manager })
        });
        each.collect()
    }

    pub(super) fn is_first(&self) -> bool {
        self.number == InstanceNumber::FIRST
    }
}

/// Looks at each of them. What is found of a later one names it; what would be the same as of an earlier one is said once.
pub(super) fn of_each(managed: &[Managed], look: impl Fn(&Managed) -> Vec<Finding>) -> Vec<Finding> {
    let mut known: Vec<Finding> = Vec::new();
    let mut said = Vec::new();
    for one in managed {
        let mut found = look(one);
        found.retain(|finding| !known.contains(finding));
        known.extend(found.iter().cloned());
        said.extend(found.into_iter().map(|finding| match one.is_first() {
            true => finding,
            false => Finding { found: format!("lock manager {}: {}", one.name, finding.found), ..finding },
        }));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use crate::guard::testing::{SERVICE, Tree, settings, with_second_lock_manager};

    #[test]
    fn each_lock_manager_is_looked_at_with_its_own_services_and_said_by_name() {
        let tree = Tree::debian();
        let settings = with_second_lock_manager(settings(SERVICE));
        let managed = Managed::all(&tree.host(), &settings);
        let served =
            |of: &Managed| of.settings.services.iter().map(|one| one.name.to_string()).collect::<Vec<_>>();
        assert_eq!(managed.iter().map(served).collect::<Vec<_>>(), [["nfs"], ["beta"]]);
        let said = of_each(&managed, |one| {
            let length = one.lock_manager.grace_length().unwrap().as_secs();
            vec![Finding::ok("times", format!("{length} s")), Finding::ok("same", "as all have it")]
        });
        let said: Vec<&str> = said.iter().map(|finding| finding.found.as_str()).collect();
        assert_eq!(said, ["90 s", "as all have it", "lock manager two: 45 s"]);
    }

    #[test]
    fn a_fault_of_a_later_lock_manager_is_found_by_its_name() {
        let tree = Tree::debian();
        let settings = with_second_lock_manager(settings(&format!("[notify]\nrpcbind-port = 9\n{SERVICE}")));
        let managed = Managed::all(&tree.host(), &settings);
        let found = super::super::configured::check(&tree.host(), &settings, &managed);
        let of = |check: &str, words: &str| {
            let one = found.iter().find(|one| one.check == check && one.found.contains(words));
            one.unwrap_or_else(|| panic!("{check}, {words}: {found:#?}")).severity
        };
        assert_eq!(of("times", "lock manager two: capture.tombstone-delay is 30 s"), Severity::Warning);
        assert_eq!(of("fsid", "lock manager two: beta: /srv/beta"), Severity::Note);
        let twice = found.iter().filter(|one| one.found.contains("nfs: /srv/nfs ")).count();
        assert_eq!(twice, 1, "an export is the concern of the lock manager that serves it: {found:#?}");
    }
}
