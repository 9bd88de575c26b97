//! The versions of objects: what a listing of them says (S3 ListObjectVersions).

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use quick_xml::Reader;
use quick_xml::events::Event;

/// One page of a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct ObjectVersionsPage {
    /// Newest first, for each key.
    entries: Vec<Entry>,
    /// Where the next page begins: a key and a version.
    pub(in crate::store) next: Option<(String, String)>,
}

/// A version of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Version {
    pub(in crate::store) id: String,
    /// As the store reports; used for progress only.
    pub(in crate::store) bytes: u64,
}

/// One version of an object, or a mark that it was deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entry {
    key: String,
    version: Version,
    at: DateTime<Utc>,
    is_deletion: bool,
}

impl Entry {
    fn is_whole(&self) -> bool {
        !self.key.is_empty() && !self.version.id.is_empty() && self.at != DateTime::UNIX_EPOCH
    }
}

impl ObjectVersionsPage {
    /// Reads a page.
    pub(super) fn read(xml: &str) -> Result<ObjectVersionsPage, String> {
        let mut reader = Reader::from_str(xml);
        let (mut page, mut entry) = (ObjectVersionsPage::default(), None);
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
                        (1, "Version" | "DeleteMarker", Some(_)) => {
                            page.entries
                                .push(entry.take().filter(Entry::is_whole).ok_or("an entry is incomplete")?);
                        }
                        (1, "IsTruncated", _) => is_truncated = text == "true",
                        (1, "NextKeyMarker", _) => next_key = Some(std::mem::take(&mut text)),
                        (1, "NextVersionIdMarker", _) => next_version = Some(std::mem::take(&mut text)),
                        (2, "Key", Some(entry)) => entry.key = std::mem::take(&mut text),
                        (2, "VersionId", Some(entry)) => entry.version.id = std::mem::take(&mut text),
                        (2, "Size", Some(entry)) => entry.version.bytes = text.parse().unwrap_or_default(),
                        (2, "LastModified", Some(entry)) => {
                            let at = DateTime::parse_from_rfc3339(&text);
                            entry.at = at.map_err(|_| format!("`{text}` is no time"))?.with_timezone(&Utc);
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
    if let Some(character) = reference.resolve_char_ref().map_err(|error| error.to_string())? {
        return Ok(character.to_string());
    }
    let known = quick_xml::escape::resolve_predefined_entity(reference);
    known.map(str::to_owned).ok_or_else(|| format!("`&{};` is not known", &**reference))
}

/// The objects that are not any more what they were at a moment, each with the version that they were then; of what was
/// written since, with the version that was written first. What was gone at that moment is left as it is.
pub(in crate::store) fn changed_since(
    pages: Vec<ObjectVersionsPage>,
    since: DateTime<Utc>,
) -> BTreeMap<String, Version> {
    let mut by_key: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for entry in pages.into_iter().flat_map(|page| page.entries) {
        by_key.entry(entry.key.clone()).or_default().push(entry);
    }
    let changed = by_key.into_iter().filter_map(|(key, entries)| {
        let then = entries.iter().find(|entry| entry.at < since);
        let wanted = then.or_else(|| entries.iter().rfind(|entry| !entry.is_deletion))?;
        let is_newest = entries.first() == Some(wanted);
        (!wanted.is_deletion && !is_newest).then(|| (key, wanted.version.clone()))
    });
    changed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix>p/</Prefix>
<IsTruncated>true</IsTruncated><NextKeyMarker>p/a&amp;b</NextKeyMarker><NextVersionIdMarker>v1</NextVersionIdMarker>
<DeleteMarker><Key>p/a</Key><VersionId>d5</VersionId><IsLatest>true</IsLatest>
<LastModified>2026-11-05T00:00:00.000Z</LastModified><Owner><ID>x</ID></Owner></DeleteMarker>
<Version><Key>p/a</Key><VersionId>v3</VersionId><LastModified>2026-11-03T00:00:00.000Z</LastModified></Version>
<DeleteMarker><Key>p/a</Key><VersionId>d2</VersionId><LastModified>2026-11-02T00:00:00.000Z</LastModified></DeleteMarker>
<Version><Key>p/a</Key><VersionId>v1</VersionId><LastModified>2026-11-01T00:00:00.000Z</LastModified></Version>
<Version><Key>p/a&amp;b</Key><VersionId>v1</VersionId><LastModified>2026-11-01T00:00:00.000Z</LastModified></Version>
<DeleteMarker><Key>p/c</Key><VersionId>d3</VersionId><LastModified>2026-11-03T00:00:00.000Z</LastModified></DeleteMarker>
</ListVersionsResult>"#;

    fn day(day: u32) -> DateTime<Utc> {
        let at = DateTime::parse_from_rfc3339(&format!("2026-11-{day:02}T12:00:00Z"));
        at.expect("a time").with_timezone(&Utc)
    }

    #[test]
    fn a_listing_shows_the_version_of_an_object_at_a_time() {
        let page = || ObjectVersionsPage::read(LISTING).expect("it is one");
        assert_eq!(page().next, Some(("p/a&b".into(), "v1".into())));
        let of_a = |since| changed_since(vec![page()], since).remove("p/a").map(|version| version.id);
        assert_eq!(of_a(day(5)), None, "it was gone, and is");
        assert_eq!(of_a(day(4)), Some("v3".into()), "as it was sealed again under its id");
        assert_eq!(of_a(day(2)), None, "it was gone then, whatever was written later");
        assert_eq!(of_a(day(1)), Some("v1".into()));
        assert_eq!(
            of_a(day(1) - chrono::TimeDelta::days(1)),
            Some("v1".into()),
            "it was not there: the first counts"
        );
        assert_eq!(changed_since(vec![page()], day(1)).len(), 1, "no other was touched, or ever written");
    }

    #[test]
    fn what_is_no_listing_is_an_error() {
        let cut = LISTING.replace("<NextKeyMarker>p/a&amp;b</NextKeyMarker>", "");
        assert!(ObjectVersionsPage::read(&cut).is_err());
        assert!(ObjectVersionsPage::read("<a><b></a>").is_err());
        assert!(ObjectVersionsPage::read(&LISTING.replace("<VersionId>v3</VersionId>", "")).is_err());
        assert!(ObjectVersionsPage::read(&LISTING.replace("2026-11-02T00:00:00.000Z", "yesterday")).is_err());
    }
}
