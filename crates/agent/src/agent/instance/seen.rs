//! What one lock manager knows, shown to tests of the program.

use std::collections::BTreeMap;

use heirlock_core::ServiceName;
use heirlock_core::claim::Claim;
use heirlock_core::lives::Lives;

use super::Instance;
use crate::agent::capture::Capture;
use crate::agent::facts::Facts;
use crate::agent::holdings::Held;
use crate::agent::outside::Outside;
use crate::agent::put_off::PutOff;
use crate::agent::running::Running;
use crate::agent::shared::Shared;

/// What a lock manager knows.
macro_rules! seen {
    ($($name:ident $field:ident: $type:ty;)*) => {
        /// What a lock manager knows.
        pub(crate) struct Seen<'a> {
            $(pub(crate) $name: &'a $type,)*
        }

        /// The same, to change it.
        pub(crate) struct SeenMut<'a> {
            $(pub(crate) $name: &'a mut $type,)*
        }

        impl<O: Outside> Instance<O> {
            pub(crate) fn seen(&self) -> Seen<'_> {
                Seen { $($name: &self.$field,)* }
            }

            pub(crate) fn seen_mut(&mut self) -> SeenMut<'_> {
                SeenMut { $($name: &mut self.$field,)* }
            }
        }
    };
}

seen! {
    capture capture: Capture;
    lives lives: Lives;
    held held: BTreeMap<ServiceName, Held>;
    others others: BTreeMap<ServiceName, Claim>;
    run run: Option<Running>;
    asked asked: Option<Running>;
    shared shared: Shared;
    put_off put_off: PutOff;
    facts_known facts: Facts;
}
