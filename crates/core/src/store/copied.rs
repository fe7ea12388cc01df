//! What a store is asked when it is copied to another place, or is the copy.

use super::{Change, Contents, Store, StoreError};
use crate::claim::Claim;
use crate::history::Tenure;
use crate::names::{Generation, ServiceName};
use crate::store_standing::Standing;

/// A store that can be moved ([`crate::copying`]). All calls may be repeated.
///
/// A call of [`Store`] that changes something and does not fail was made before the store was closed
/// ([`CopiedStore::change_standing`]): all that it has changed is seen by any look at the store after that.
pub trait CopiedStore: Store {
    /// Which store is there, and whether it is in force; nothing where no store is there. Whichever is expected.
    fn standing(&self) -> Result<Option<Standing>, StoreError>;

    /// From now on every call fails unless the store that is there has exactly this standing.
    fn expect_standing(&self, standing: &Standing);

    /// Changes the standing, where it is `from`; where it is `to` already, that is well. Where it is any other one, nothing is
    /// changed, and that is a failure. Whichever is expected.
    fn change_standing(&self, from: &Standing, to: &Standing) -> Result<(), StoreError>;

    /// Makes a store of this standing where nothing is. Whichever is expected.
    fn make_as(&self, standing: &Standing) -> Result<(), StoreError>;

    /// Whether a change and the look at the standing are one step here. Else a change that had begun before the store was closed
    /// may come about after that, and fails.
    fn closes_at_once(&self) -> bool;

    /// Makes a step of a copy, in the store of the standing that is expected, which no agent reads. No claim is its condition.
    fn fill(&self, service: &ServiceName, with: &Fill) -> Result<(), StoreError>;
}

/// A step by which a store becomes more alike to the one that it is a copy of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fill {
    /// Writes a claim as it is, also where another one has its number.
    Claim(Claim),
    /// Removes a claim.
    RemoveClaim(Generation),
    /// Begins a generation, which is not there.
    Begin(Generation, Box<Contents>),
    /// Changes a generation.
    Change(Generation, Vec<Change>),
    /// Removes a generation.
    RemoveGeneration(Generation),
    /// Writes an account of a generation that was removed, where there is none.
    Tenure(Box<Tenure>),
    /// Removes such an account.
    RemoveTenure(Generation),
}
