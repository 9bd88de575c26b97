//! The versions of objects: what a listing of them says (S3 ListObjectVersions).

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use quick_xml::Reader;
use quick_xml::events::Event;

/// The versions of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Versions {
    /// The version that was written first. Objects are written once, so this is the one that counts.
    pub(in crate::store) first: String,
    /// When another came after it, or a mark that it was deleted, for the first time.
    pub(in crate::store) changed: Option<DateTime<Utc>>,
}

/// One page of a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// Newest first, for each key.
    entries: Vec<Entry>,
    /// Where the next page begins: a key and a version.
    pub(super) next: Option<(String, String)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entry {
    key: String,
    version: String,
    at: Option<DateTime<Utc>>,
    is_deletion: bool,
}

impl Page {
    /// Reads a page.
    pub(super) fn read(xml: &str) -> Result<Page, String> {
        let mut reader = Reader::from_str(xml);
        let (mut page, mut entry) = (Page::default(), None);
        let (mut path, mut text) = (Vec::new(), String::new());
        let (mut is_truncated, mut next_key, mut next_version) = (false, None, None);
        loop {
            match reader.read_event().map_err(|error| error.to_string())? {
                Event::Start(start) => {
                    let name = start.local_name().as_ref().to_owned();
                    if path.len() == 1 && matches!(name.as_str(), "Version" | "DeleteMarker") {
                        entry = Some(Entry { is_deletion: name == "DeleteMarker", ..Entry::default() });
                    }
                    path.push(name);
                    text.clear();
                }
                Event::Text(part) => text.push_str(&part),
                Event::GeneralRef(reference) => text.push_str(&resolved(&reference)?),
                Event::End(_) => {
                    let name = path.pop().unwrap_or_default();
                    match (path.len(), name.as_str(), &mut entry) {
                        (1, "Version" | "DeleteMarker", _) => page.entries.extend(entry.take()),
                        (1, "IsTruncated", _) => is_truncated = text == "true",
                        (1, "NextKeyMarker", _) => next_key = Some(std::mem::take(&mut text)),
                        (1, "NextVersionIdMarker", _) => next_version = Some(std::mem::take(&mut text)),
                        (2, "Key", Some(entry)) => entry.key = std::mem::take(&mut text),
                        (2, "VersionId", Some(entry)) => entry.version = std::mem::take(&mut text),
                        (2, "LastModified", Some(entry)) => {
                            let at = DateTime::parse_from_rfc3339(&text);
                            entry.at =
                                Some(at.map_err(|_| format!("`{text}` is no time"))?.with_timezone(&Utc));
                        }
                        _ => {}
                    }
                }
                Event::Eof => break,
                _ => {}
            }
        }
        page.next = match (is_truncated, next_key) {
            (true, Some(key)) => Some((key, next_version.unwrap_or_default())),
            (true, None) => return Err("it is cut off and does not say where".into()),
            (false, _) => None,
        };
        Ok(page)
    }
}

fn resolved(reference: &quick_xml::events::BytesRef<'_>) -> Result<String, String> {
    if let Some(letter) = reference.resolve_char_ref().map_err(|error| error.to_string())? {
        return Ok(letter.to_string());
    }
    let known = quick_xml::escape::resolve_predefined_entity(reference);
    known.map(str::to_owned).ok_or_else(|| format!("`&{};` is not known", &**reference))
}

/// Puts pages together, in the order in which they were listed.
pub(super) fn by_key(pages: Vec<Page>) -> BTreeMap<String, Versions> {
    let mut found: BTreeMap<String, Versions> = BTreeMap::new();
    let mut newer: BTreeMap<String, Entry> = BTreeMap::new();
    for entry in pages.into_iter().flat_map(|page| page.entries) {
        if !entry.is_deletion {
            let changed = newer.get(&entry.key).and_then(|newer| newer.at);
            found.insert(entry.key.clone(), Versions { first: entry.version.clone(), changed });
        }
        newer.insert(entry.key.clone(), entry);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix>p/</Prefix>
<IsTruncated>true</IsTruncated><NextKeyMarker>p/a&amp;b</NextKeyMarker><NextVersionIdMarker>v1</NextVersionIdMarker>
<DeleteMarker><Key>p/a</Key><VersionId>d2</VersionId><IsLatest>true</IsLatest>
<LastModified>2026-11-03T00:00:00.000Z</LastModified><Owner><ID>x</ID></Owner></DeleteMarker>
<Version><Key>p/a</Key><VersionId>v2</VersionId><LastModified>2026-11-02T00:00:00.000Z</LastModified></Version>
<Version><Key>p/a</Key><VersionId>v1</VersionId><LastModified>2026-11-01T00:00:00.000Z</LastModified></Version>
<Version><Key>p/a&amp;b</Key><VersionId>v1</VersionId><LastModified>2026-11-01T00:00:00.000Z</LastModified></Version>
<DeleteMarker><Key>p/c</Key><VersionId>d1</VersionId><LastModified>2026-11-03T00:00:00.000Z</LastModified></DeleteMarker>
</ListVersionsResult>"#;

    #[test]
    fn a_listing_tells_which_version_was_first_and_when_it_was_touched() {
        let page = Page::read(LISTING).expect("it is one");
        assert_eq!(page.next, Some(("p/a&b".into(), "v1".into())));
        let found = by_key(vec![page]);
        let second =
            DateTime::parse_from_rfc3339("2026-11-02T00:00:00Z").expect("a time").with_timezone(&Utc);
        assert_eq!(found["p/a"], Versions { first: "v1".into(), changed: Some(second) });
        assert_eq!(found["p/a&b"], Versions { first: "v1".into(), changed: None });
        assert_eq!(found.len(), 2, "of what was never written nothing can come back");
    }

    #[test]
    fn what_is_no_listing_is_an_error() {
        let cut = LISTING.replace("<NextKeyMarker>p/a&amp;b</NextKeyMarker>", "");
        assert!(Page::read(&cut).is_err());
        assert!(Page::read("<a><b></a>").is_err());
        assert!(Page::read(&LISTING.replace("2026-11-02T00:00:00.000Z", "yesterday")).is_err());
    }
}
