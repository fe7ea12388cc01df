//! Groups of this host, by the file in which they are listed.

use super::Host;

/// The file that lists them (group(5)).
const FILE: &str = "/etc/group";

/// The number of a group that is given by its name or by its number.
///
/// # Errors
/// In words, with a remedy, where there is no group of that name.
pub(crate) fn number_of(host: &Host, group: &str) -> Result<u32, String> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let listed = host.text(FILE).unwrap_or_default();
    find(&listed, group).ok_or_else(|| {
        format!(
            "there is no group {group} in {FILE}; make one ('groupadd --system {group}'), or name one that a directory service \
             has by its number"
        )
    })
}

fn find(listed: &str, group: &str) -> Option<u32> {
    listed.lines().find_map(|line| {
        let mut fields = line.split(':');
        let number = fields.next().filter(|name| *name == group).and(fields.nth(1))?;
        number.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Tree;

    #[test]
    fn a_group_is_known_by_its_name_or_its_number() {
        let tree = Tree::debian();
        tree.put("/etc/group", "root:x:0:\nmonitoring:x:4242:icinga,telegraf\nbroken\nodd:x:many:\n");
        assert_eq!(number_of(&tree.host(), "monitoring"), Ok(4242));
        assert_eq!(number_of(&tree.host(), "77"), Ok(77));
        for absent in ["monitor", "x", "broken", "odd", "icinga"] {
            let why = number_of(&tree.host(), absent).unwrap_err();
            assert!(why.contains(&format!("no group {absent} in /etc/group; make one")), "{why}");
        }
    }
}
