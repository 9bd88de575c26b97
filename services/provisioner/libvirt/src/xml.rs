//! A document as a value: built to be sent, or read from libvirt's answer. Escaping is quick-xml's.

use quick_xml::XmlVersion;
use quick_xml::events::{BytesText, Event};
use quick_xml::{Reader, Writer};

/// One element with everything below it. Text beside child elements is not kept: libvirt has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) name: String,
    attributes: Vec<(String, String)>,
    children: Vec<Element>,
    text: String,
}

pub(crate) fn element(name: &str) -> Element {
    Element { name: name.to_owned(), ..Element::default() }
}

impl Element {
    pub(crate) fn with(mut self, key: &str, value: impl ToString) -> Element {
        self.attributes.push((key.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn holding(mut self, text: impl ToString) -> Element {
        self.text = text.to_string();
        self
    }

    pub(crate) fn child(mut self, child: Element) -> Element {
        self.children.push(child);
        self
    }

    pub(crate) fn children(mut self, children: impl IntoIterator<Item = Element>) -> Element {
        self.children.extend(children);
        self
    }

    /// The value of an attribute.
    pub(crate) fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Sets an attribute, in place of one of that name.
    pub(crate) fn set(&mut self, key: &str, value: impl ToString) {
        match self.attributes.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value.to_string(),
            None => self.attributes.push((key.to_owned(), value.to_string())),
        }
    }

    /// Puts an element in place of the first child of its name, if there is one.
    pub(crate) fn replace_child(&mut self, new: Element) {
        if let Some(old) = self.children.iter_mut().find(|child| child.name == new.name) {
            *old = new;
        }
    }

    pub(crate) fn text(&self) -> &str {
        self.text.trim()
    }

    /// The first element at the end of a path of names below this one.
    pub(crate) fn find(&self, path: &[&str]) -> Option<&Element> {
        let Some((name, rest)) = path.split_first() else {
            return Some(self);
        };
        self.children.iter().filter(|child| child.name == *name).find_map(|child| child.find(rest))
    }

    /// The children of one name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The document, indented for people who read logs.
    pub(crate) fn render(&self) -> String {
        let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
        self.write(&mut writer).expect("writing to memory cannot fail");
        String::from_utf8(writer.into_inner()).expect("only text was written")
    }

    fn write(&self, writer: &mut Writer<Vec<u8>>) -> std::io::Result<()> {
        let attributes = self.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let element = writer.create_element(self.name.as_str()).with_attributes(attributes);
        if !self.children.is_empty() {
            element
                .write_inner_content(|inner| self.children.iter().try_for_each(|child| child.write(inner)))?;
        } else if !self.text.is_empty() {
            element.write_text_content(BytesText::new(&self.text))?;
        } else {
            element.write_empty()?;
        }
        Ok(())
    }

    /// Reads a document; the error is a sentence.
    pub(crate) fn read(document: &str) -> Result<Element, String> {
        let mut reader = Reader::from_str(document);
        let mut open: Vec<Element> = Vec::new();
        loop {
            match reader.read_event().map_err(|error| error.to_string())? {
                Event::Start(start) => open.push(opened(&start)?),
                Event::Empty(start) => {
                    let done = opened(&start)?;
                    match open.last_mut() {
                        Some(parent) => parent.children.push(done),
                        None => return Ok(done),
                    }
                }
                Event::End(_) => {
                    let mut done = open.pop().ok_or("an element ends that never began")?;
                    if !done.children.is_empty() {
                        done.text.clear();
                    }
                    match open.last_mut() {
                        Some(parent) => parent.children.push(done),
                        None => return Ok(done),
                    }
                }
                Event::Text(text) => {
                    if let Some(parent) = open.last_mut() {
                        parent.text.push_str(&text);
                    }
                }
                Event::GeneralRef(entity) => {
                    if let Some(parent) = open.last_mut() {
                        match entity.resolve_char_ref().map_err(|error| error.to_string())? {
                            Some(character) => parent.text.push(character),
                            None => parent.text.push_str(
                                quick_xml::escape::resolve_predefined_entity(&entity)
                                    .ok_or("an unknown entity")?,
                            ),
                        }
                    }
                }
                Event::Eof => return Err("the document ends too early".to_owned()),
                _ => {}
            }
        }
    }
}

fn opened(start: &quick_xml::events::BytesStart<'_>) -> Result<Element, String> {
    let mut made = element(start.name().as_ref());
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let value = attribute.normalized_value(XmlVersion::default()).map_err(|error| error.to_string())?;
        made.attributes.push((attribute.key.as_ref().to_owned(), value.into_owned()));
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_whatever_it_holds() {
        let text = "a < b & \"c\" 'd' > e";
        let document =
            element("vm").with("name", text).child(element("note").holding(text)).child(element("empty"));
        assert_eq!(Element::read(&document.render()), Ok(document));
    }

    #[test]
    fn a_truncated_document_is_refused() {
        assert!(Element::read("<vm><note>x</note>").is_err());
        assert!(Element::read("").is_err());
    }
}
