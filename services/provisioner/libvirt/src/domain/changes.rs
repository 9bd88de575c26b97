//! What others change in a domain of ours: a person with `virsh`, virt-manager, a backup program.
//!
//! A domain that exists is never defined anew: memory, description, devices, autostart and the rest stay as others left
//! them. Only its virtualization type is brought up to date, in libvirt's own document. Its disks are reported as they
//! are, for the caller to compare.

use std::path::PathBuf;

use super::{DomainSpec, VirtType};
use crate::xml::Element;

/// A disk as a domain's definition has it now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FoundDisk {
    /// Its target in the domain (`vda`).
    pub target: String,
    /// The file or block device that is written; `None` where it is neither, or there is no medium.
    pub source: Option<PathBuf>,
}

/// The disks of a domain's document.
pub(crate) fn disks_in(document: &str) -> Result<Vec<FoundDisk>, String> {
    let domain = Element::read(document)?;
    let Some(devices) = domain.find(&["devices"]) else {
        return Err("the domain has no devices".to_owned());
    };
    let found = devices.all("disk").filter_map(|disk| {
        let target = disk.find(&["target"])?.attribute("dev")?.to_owned();
        let source = disk.find(&["source"]);
        let source = source.and_then(|source| source.attribute("file").or(source.attribute("dev")));
        Some(FoundDisk { target, source: source.map(PathBuf::from) })
    });
    Ok(found.collect())
}

impl DomainSpec {
    /// The document of a defined domain with this virtualization type; `None` where it has it already.
    pub(crate) fn with_virt_type(&self, document: &str) -> Result<Option<String>, String> {
        let mut domain = Element::read(document)?;
        if domain.attribute("type") == Some(self.virt_type.to_string().as_str()) {
            return Ok(None);
        }
        let before = match self.virt_type {
            VirtType::Kvm => VirtType::Qemu,
            VirtType::Qemu => VirtType::Kvm,
        };
        let mode = domain.find(&["cpu"]).and_then(|cpu| cpu.attribute("mode")).map(str::to_owned);
        // Another processor is somebody's choice.
        if mode.as_deref() == before.cpu().attribute("mode") {
            domain.replace_child(self.virt_type.cpu());
        }
        domain.set("type", self.virt_type);
        Ok(Some(domain.render()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::tests::spec;
    use super::*;

    #[test]
    fn the_disks_of_a_document_are_found_whatever_they_are() {
        let document = spec().document();
        let disk = |target: &str, source: Option<&str>| FoundDisk {
            target: target.into(),
            source: source.map(PathBuf::from),
        };
        let ours = [disk("vda", Some("/vm/web & co.qcow2")), disk("vdb", Some("/vm/web.nocloud"))];
        assert_eq!(disks_in(&document), Ok(ours.to_vec()));
        let others = "<domain><devices><disk type='block'><source dev='/dev/sdb'/><target dev='vda'/></disk>\
                      <disk><target dev='sda'/></disk></devices></domain>";
        assert_eq!(disks_in(others), Ok(vec![disk("vda", Some("/dev/sdb")), disk("sda", None)]));
        assert!(disks_in("<domain/>").is_err());
    }

    #[test]
    fn a_new_virtualization_type_changes_nothing_else() {
        let changed = spec()
            .document()
            .replace(">512<", ">768<")
            .replace("<vcpu", "<description>mine</description>\n  <vcpu");
        assert_eq!(spec().with_virt_type(&changed), Ok(None));
        let kvm = DomainSpec { virt_type: VirtType::Kvm, ..spec() };
        let expected = changed
            .replace("<domain type=\"qemu\">", "<domain type=\"kvm\">")
            .replace("mode=\"maximum\"", "mode=\"host-model\"");
        assert_eq!(kvm.with_virt_type(&changed), Ok(Some(expected.clone())));
        assert_eq!(spec().with_virt_type(&expected), Ok(Some(changed.clone())), "and back");
        let chosen = changed.replace("mode=\"maximum\"", "mode=\"custom\"");
        let kept = kvm.with_virt_type(&chosen).expect("read").expect("another type");
        assert!(kept.contains("mode=\"custom\""), "{kept}");
    }
}
