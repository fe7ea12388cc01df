//! The agent on this server, in tests: its store is in a folder, and its server has threads and files. These tests see what is
//! inside an agent, which the program does not (feature `inside` of `heirlock-agent`).

pub(crate) mod testing;

mod acquaintance {
    mod tests;
}
mod asked {
    mod tests;
}
mod beat {
    mod tests;
}
mod callouts {
    mod tests;
}
mod capture {
    mod tests;
}
mod conveying {
    mod tests;
}
mod elsewhere {
    mod tests;
}
mod failback {
    mod tests;
}
mod grace {
    mod tests;
}
mod left_behind {
    mod tests;
}
mod monitor {
    mod tests;
}
mod put_off {
    mod tests;
}
mod recovery {
    mod tests;
}
mod runs {
    mod tests;
}
pub(crate) mod shared {
    pub(crate) mod tests;
}
mod slow_store {
    mod tests;
}
mod status {
    mod tests;
}
mod tests;
