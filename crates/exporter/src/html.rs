//! HTML and SVG, written so that nothing in it can be markup by mistake: names of elements and attributes are words of this
//! program, every other text is escaped, and every element that is opened is closed.

/// A document that is being written.
#[derive(Debug, Default)]
pub(crate) struct Html(String);

/// Attributes of an element.
pub(crate) type Attributes<'a> = &'a [(&'static str, &'a str)];

impl Html {
    /// An element, and what is in it.
    pub(crate) fn within(
        &mut self,
        name: &'static str,
        attributes: Attributes,
        inner: impl FnOnce(&mut Self),
    ) {
        self.open(name, attributes);
        inner(self);
        self.0.push_str("</");
        self.0.push_str(name);
        self.0.push('>');
        // A space between words would be shown.
        if !matches!(name, "a" | "b" | "code" | "span" | "time" | "text" | "title") {
            self.0.push('\n');
        }
    }

    /// An element with nothing but text in it.
    pub(crate) fn element(&mut self, name: &'static str, attributes: Attributes, text: &str) {
        self.within(name, attributes, |html| html.text(text));
    }

    /// An element that holds nothing and needs no end (`meta`, `link`).
    pub(crate) fn void(&mut self, name: &'static str, attributes: Attributes) {
        self.open(name, attributes);
        self.0.push('\n');
    }

    /// Text.
    pub(crate) fn text(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '&' => self.0.push_str("&amp;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // They turn the text after them around, or hide it.
                '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => {
                    self.0.extend(c.escape_unicode());
                }
                c if c.is_control() && c != '\n' => self.0.extend(c.escape_default()),
                c => self.0.push(c),
            }
        }
    }

    /// The document.
    pub(crate) fn finish(self) -> String {
        format!("<!DOCTYPE html>\n{}", self.0)
    }

    fn open(&mut self, name: &'static str, attributes: Attributes) {
        self.0.push('<');
        self.0.push_str(name);
        for (attribute, value) in attributes {
            self.0.push(' ');
            self.0.push_str(attribute);
            self.0.push_str("=\"");
            self.text(value);
            self.0.push('"');
        }
        self.0.push('>');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_text_nor_an_attribute_becomes_markup() {
        let mut html = Html::default();
        html.element("td", &[("title", "\"><script>'&")], "</td><b onclick='x'>\u{202e}\u{7}");
        let expected = "<td title=\"&quot;&gt;&lt;script&gt;&#39;&amp;\">&lt;/td&gt;&lt;b \
                        onclick=&#39;x&#39;&gt;\\u{202e}\\u{7}</td>\n";
        assert_eq!(html.0, expected);
    }
}
