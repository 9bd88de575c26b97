//! What a hypervisor says of itself.

/// What runs the VMs of a host, as it is shown with each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HypervisorInfo {
    /// `libvirt`, or `simulated` where no VM really exists.
    pub name: &'static str,
    /// Why VMs run without KVM; absent where they run with it, and where none really exists.
    pub emulation_reason: Option<String>,
}

impl HypervisorInfo {
    /// A sentence for the service's health, where VMs are emulated.
    pub fn notice(&self) -> Option<String> {
        let reason = self.emulation_reason.as_ref()?;
        Some(format!("VMs are emulated, about ten times slower than with KVM: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulation_is_announced_with_its_reason() {
        let kvm = HypervisorInfo { name: "libvirt", emulation_reason: None };
        assert_eq!(kvm.notice(), None);
        let emulated = HypervisorInfo { emulation_reason: Some("this host has no /dev/kvm".into()), ..kvm };
        assert!(emulated.notice().is_some_and(|notice| notice.ends_with("this host has no /dev/kvm")));
    }
}
