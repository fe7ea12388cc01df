//! The syntax that exports(5) and `etab` share.

/// The words of a line: apart by blanks, save within quotes; `\040` is a blank; `#` begins a comment.
pub(crate) fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let octal =
            rest.get(1..4).filter(|_| c == '\\').and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = octal.filter(u8::is_ascii) {
            word.push(char::from(byte));
            rest = &rest[4..];
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted => break,
            ' ' | '\t' if !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_apart_by_blanks_that_are_neither_quoted_nor_escaped() {
        for (line, expected) in [
            ("/srv/nfs\t*(rw)  10.0.0.0/8(ro)", vec!["/srv/nfs", "*(rw)", "10.0.0.0/8(ro)"]),
            ("\"/srv/my files\" *(rw)", vec!["/srv/my files", "*(rw)"]),
            (r"/srv/b\040c *", vec!["/srv/b c", "*"]),
            (r"/srv/\9é *", vec![r"/srv/\9é", "*"]),
            ("# nothing", vec![]),
            ("/srv/a# rest", vec!["/srv/a"]),
        ] {
            assert_eq!(words(line), expected, "{line}");
        }
    }
}
