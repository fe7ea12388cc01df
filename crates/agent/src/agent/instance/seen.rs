//! What one lock manager knows, shown to tests of the program.

use std::collections::BTreeMap;

use heirlock_core::ServiceName;
use heirlock_core::claim::Claim;
use heirlock_core::lives::Lives;

use crate::agent::capture::Capture;
use crate::agent::facts::Facts;
use crate::agent::holdings::Held;
use crate::agent::outside::Outside;
use crate::agent::put_off::PutOff;
use crate::agent::running::Running;
use crate::agent::server::Server;
use crate::agent::shared::Shared;

/// What the first lock manager knows, as tests of the program see it: the field, and the names under which it is read and changed.
macro_rules! seen {
    ($($field:ident as $name:ident $name_mut:ident: $type:ty;)*) => {
        impl<O: Outside> Server<O> {
            $(pub fn $name(&self) -> &$type {
                &self.first().$field
            }

            pub fn $name_mut(&mut self) -> &mut $type {
                &mut self.first_parts().0.$field
            })*
        }
    };
}

seen! {
    capture as capture capture_mut: Capture;
    lives as lives lives_mut: Lives;
    held as held held_mut: BTreeMap<ServiceName, Held>;
    others as others others_mut: BTreeMap<ServiceName, Claim>;
    run as run run_mut: Option<Running>;
    asked as asked asked_mut: Vec<Running>;
    shared as shared shared_mut: Shared;
    put_off as put_off put_off_mut: PutOff;
    facts as facts_known facts_known_mut: Facts;
}
