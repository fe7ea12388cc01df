//! Plain text as the lines of a manual page: man(7), which man-db and mandoc both read.

/// The lines of a page.
#[derive(Debug, Default)]
pub(super) struct Lines(String);

impl Lines {
    /// A section.
    pub(super) fn section(&mut self, title: &str) {
        self.request(&format!(".SH \"{}\"", escape(&title.to_uppercase())));
    }

    /// A part of one.
    pub(super) fn part(&mut self, title: &str) {
        self.request(&format!(".SS \"{}\"", escape(title)));
    }

    /// Text that is filled; an empty line begins a paragraph, and lines that are set in stay as they are.
    pub(super) fn text(&mut self, text: &str) {
        let mut is_first = true;
        for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
            if paragraph.starts_with("    ") {
                self.verbatim(paragraph.lines().map(|line| line.strip_prefix("    ").unwrap_or(line)));
            } else {
                if !is_first {
                    self.request(".PP");
                }
                self.filled(paragraph);
            }
            is_first = false;
        }
    }

    /// One paragraph.
    pub(super) fn filled(&mut self, paragraph: &str) {
        for line in paragraph.lines() {
            self.0.push_str(&plain(line));
            self.0.push('\n');
        }
    }

    /// Something that is named, and what is to be said of it.
    pub(super) fn item(&mut self, name: &str, text: &str) {
        self.request(".TP");
        self.request(&format!("\\fB{}\\fR", escape(name)));
        self.text_within(text);
    }

    /// Text of an item, which keeps its indentation over several paragraphs.
    pub(super) fn text_within(&mut self, text: &str) {
        for (number, paragraph) in text.split("\n\n").enumerate() {
            if number > 0 {
                self.request(".IP");
            }
            self.filled(paragraph);
        }
    }

    /// Lines that stay as they are.
    pub(super) fn verbatim<'a>(&mut self, lines: impl Iterator<Item = &'a str>) {
        // A section begins a paragraph by itself.
        if !self.0.lines().last().is_some_and(|line| line.starts_with(".S")) {
            self.request(".PP");
        }
        self.request(".RS 4");
        self.request(".EX");
        for line in lines {
            self.0.push_str(&plain(line));
            self.0.push('\n');
        }
        self.request(".EE");
        self.request(".RE");
    }

    /// Lines that are man(7) already.
    pub(super) fn request(&mut self, lines: &str) {
        self.0.push_str(lines);
        self.0.push('\n');
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

/// A line of text: at its beginning a dot and a quotation mark would be requests.
fn plain(line: &str) -> String {
    let text = escape(line);
    if text.starts_with(['.', '\'']) || text.starts_with("\\(aq") { format!("\\&{text}") } else { text }
}

/// Characters that mean something to the formatter, or that it would print as others: what can be typed must come out as it is
/// typed.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '\'' => out.push_str("\\(aq"),
            '"' => out.push_str("\\(dq"),
            '`' => out.push_str("\\(ga"),
            '^' => out.push_str("\\(ha"),
            '~' => out.push_str("\\(ti"),
            '…' => out.push_str("..."),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_taken_for_a_request() {
        let mut lines = Lines::default();
        lines.text(".SH is no section\n'so is this, \\fB neither");
        lines.item(".x", "'y'");
        for line in lines.finish().lines().filter(|line| !line.starts_with(".TP")) {
            assert!(!line.starts_with(['.', '\'']), "{line}");
            assert!(!line.contains("\\fB neither"), "{line}");
        }
    }

    #[test]
    fn a_paragraph_is_filled_and_what_is_set_in_stays() {
        let mut lines = Lines::default();
        lines.text("one\ntwo\n\nthree\n\n    four --x");
        assert_eq!(lines.finish(), "one\ntwo\n.PP\nthree\n.PP\n.RS 4\n.EX\nfour \\-\\-x\n.EE\n.RE\n");
    }
}
