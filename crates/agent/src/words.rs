//! Common parts of sentences of the whole program.

/// `1 client`, `2 clients`.
pub fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
