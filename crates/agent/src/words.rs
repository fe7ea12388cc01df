//! What sentences of all parts of the program have in common.

/// `1 client`, `2 clients`.
pub fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
