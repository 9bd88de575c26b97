//! The mark on every domain that we define: a domain without it is never touched.
//!
//! A crash may leave a domain that no record knows, or a record without a domain. The mark says which operation made
//! it from which specification, so that it can be adopted or removed; a domain without a mark belongs to others.

use crate::xml::{Element, element};

/// The name space of our metadata in libvirt's documents.
pub const MARK_NAMESPACE: &str = "urn:loam:vm:1";

/// Whose a domain is, and what it was made from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The realm: several installations may share a host.
    pub realm: String,
    /// The virtual machine's name in that realm.
    pub vm: String,
    /// Which rebuild of it this is.
    pub generation: u64,
    /// Digest of the specification it was made from.
    pub spec_digest: String,
    /// The operation that made it.
    pub operation: String,
}

impl Mark {
    pub(crate) fn element(&self) -> Element {
        element("loam:vm")
            .with("xmlns:loam", MARK_NAMESPACE)
            .with("org", &self.realm)
            .with("name", &self.vm)
            .with("generation", self.generation)
            .with("spec", &self.spec_digest)
            .with("operation", &self.operation)
    }

    /// Reads what [`Mark::element`] wrote, whatever prefix libvirt gave it; the error is a sentence.
    pub(crate) fn read(document: &str) -> Result<Mark, String> {
        let element = Element::read(document)?;
        let attribute = |key: &str| {
            element.attribute(key).map(str::to_owned).ok_or_else(|| format!("the mark has no {key}"))
        };
        Ok(Mark {
            realm: attribute("org")?,
            vm: attribute("name")?,
            generation: attribute("generation")?
                .parse()
                .map_err(|_| "the mark's generation is no number".to_owned())?,
            spec_digest: attribute("spec")?,
            operation: attribute("operation")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let mark = Mark {
            realm: "home & garden".into(),
            vm: "web".into(),
            generation: 7,
            spec_digest: "blake3:ab".into(),
            operation: "01J".into(),
        };
        assert_eq!(Mark::read(&mark.element().render()), Ok(mark));
        assert!(Mark::read("<loam:vm org='x'/>").is_err());
    }
}
