//! The calls of libvirt that `virt` does not wrap, each as a safe function; all of this crate's unsafe code.
//!
//! Ownership follows libvirt's pages: strings and arrays that a call hands out are freed by `free`, objects by their
//! own `…Free`; what is passed in is borrowed for the call.

use std::ffi::{CStr, CString};
use std::os::raw::{c_char, c_int, c_uint, c_void};
use std::ptr;

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt::sys;

use crate::events::ChangeCallback;

/// An interface of a domain as libvirt or the guest reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InterfaceAddresses {
    /// Its hardware address, where known.
    pub(crate) mac: Option<String>,
    /// Its addresses as text, without prefix lengths.
    pub(crate) addresses: Vec<String>,
}

fn check(status: c_int) -> Result<c_int, Error> {
    if status < 0 { Err(Error::last_error()) } else { Ok(status) }
}

/// Takes a string that libvirt allocated for us.
///
/// # Safety
/// `text` is null or a zero-terminated string from `malloc`, and nobody else frees it.
unsafe fn owned_text(text: *mut c_char) -> Result<String, Error> {
    if text.is_null() {
        return Err(Error::last_error());
    }
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe {
        let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
        libc::free(text.cast());
        Ok(copy)
    }
}

/// Copies a string that stays libvirt's; `None` for null.
///
/// # Safety
/// `text` is null or a zero-terminated string that lives during the call.
unsafe fn borrowed_text(text: *const c_char) -> Option<String> {
    // SAFETY: not null, and the caller vouches for the rest.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

pub(crate) fn backup_begin(domain: &Domain, backup: &str, checkpoint: Option<&str>) -> Result<(), Error> {
    let backup = CString::new(backup)?;
    let checkpoint = checkpoint.map(CString::new).transpose()?;
    let checkpoint = checkpoint.as_ref().map_or(ptr::null(), |text| text.as_ptr());
    // SAFETY: the domain is alive, both texts outlive the call.
    check(unsafe { sys::virDomainBackupBegin(domain.as_ptr(), backup.as_ptr(), checkpoint, 0) }).map(drop)
}

pub(crate) fn backup_document(domain: &Domain) -> Result<String, Error> {
    // SAFETY: the domain is alive; the text is ours to free.
    unsafe { owned_text(sys::virDomainBackupGetXMLDesc(domain.as_ptr(), 0)) }
}

pub(crate) fn abort_job(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain is alive.
    check(unsafe { sys::virDomainAbortJob(domain.as_ptr()) }).map(drop)
}

/// The documents of all checkpoints, parents before children.
pub(crate) fn checkpoint_documents(domain: &Domain) -> Result<Vec<String>, Error> {
    let mut list: *mut sys::virDomainCheckpointPtr = ptr::null_mut();
    let flags = sys::VIR_DOMAIN_CHECKPOINT_LIST_TOPOLOGICAL;
    // SAFETY: the domain is alive; on success `list` holds `count` checkpoints, each ours to free, and is ours to free.
    unsafe {
        let count = check(sys::virDomainListAllCheckpoints(domain.as_ptr(), &mut list, flags))?;
        let mut documents = Vec::new();
        for at in 0..usize::try_from(count).expect("a checked count is not negative") {
            let checkpoint = *list.add(at);
            let no_domain = sys::VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN;
            documents.push(owned_text(sys::virDomainCheckpointGetXMLDesc(checkpoint, no_domain)));
            sys::virDomainCheckpointFree(checkpoint);
        }
        libc::free(list.cast());
        documents.into_iter().collect()
    }
}

pub(crate) fn checkpoint_delete(domain: &Domain, name: &str, metadata_only: bool) -> Result<(), Error> {
    let name = CString::new(name)?;
    let flags = if metadata_only { sys::VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY } else { 0 };
    // SAFETY: the domain is alive, the name outlives the call, the checkpoint is freed once.
    unsafe {
        let checkpoint = sys::virDomainCheckpointLookupByName(domain.as_ptr(), name.as_ptr(), 0);
        if checkpoint.is_null() {
            return Err(Error::last_error());
        }
        let deleted = check(sys::virDomainCheckpointDelete(checkpoint, flags)).map(drop);
        sys::virDomainCheckpointFree(checkpoint);
        deleted
    }
}

/// The disks whose last request failed, by target, with their `VIR_DOMAIN_DISK_ERROR_…`.
pub(crate) fn disk_errors(domain: &Domain) -> Result<Vec<(String, sys::virDomainDiskErrorCode)>, Error> {
    // SAFETY: the domain is alive; called without an array libvirt returns how long one must be, and it fills no more
    // than the length it is given; the texts in it are ours to free.
    unsafe {
        let disks = check(sys::virDomainGetDiskErrors(domain.as_ptr(), ptr::null_mut(), 0, 0))?;
        let none = sys::virDomainDiskError { disk: ptr::null_mut(), error: 0 };
        let mut errors = vec![none; usize::try_from(disks).expect("a checked count is not negative")];
        if errors.is_empty() {
            return Ok(Vec::new());
        }
        let count = check(sys::virDomainGetDiskErrors(
            domain.as_ptr(),
            errors.as_mut_ptr(),
            disks.cast_unsigned(),
            0,
        ))?;
        errors.truncate(usize::try_from(count).expect("a checked count is not negative"));
        let found: Vec<_> =
            errors.iter().map(|disk| Ok((owned_text(disk.disk)?, disk.error.cast_unsigned()))).collect();
        found.into_iter().collect()
    }
}

/// Calls `changed` after each life-cycle event of any domain, as long as the connection is open. It is called on the thread
/// of the event loop, and must not panic.
pub(crate) fn on_lifecycle(connect: &Connect, changed: ChangeCallback) -> Result<(), Error> {
    type Lifecycle =
        unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
    type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);

    unsafe extern "C" fn lifecycle(
        _: sys::virConnectPtr,
        _: sys::virDomainPtr,
        _: c_int,
        _: c_int,
        changed: *mut c_void,
    ) -> c_int {
        // SAFETY: libvirt hands back what was registered, and frees it only afterwards.
        unsafe { (*changed.cast::<ChangeCallback>())() };
        0
    }
    unsafe extern "C" fn free(changed: *mut c_void) {
        // SAFETY: called once, for the box that was registered.
        drop(unsafe { Box::from_raw(changed.cast::<ChangeCallback>()) });
    }

    let changed = Box::into_raw(Box::new(changed));
    let kind = c_int::try_from(sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE).expect("a small constant");
    // SAFETY: the connection is alive; callbacks of this kind of event have the type `Lifecycle`, and libvirt calls them as
    // such; on success the box is libvirt's, to be given back to `free`.
    unsafe {
        let callback = std::mem::transmute::<Lifecycle, Generic>(lifecycle);
        let registered = check(sys::virConnectDomainEventRegisterAny(
            connect.as_ptr(),
            ptr::null_mut(),
            kind,
            Some(callback),
            changed.cast(),
            Some(free),
        ));
        registered.map(drop).inspect_err(|_| drop(Box::from_raw(changed)))
    }
}

/// Freezes all file systems and returns how many.
pub(crate) fn freeze(domain: &Domain) -> Result<c_int, Error> {
    // SAFETY: the domain is alive; no list of mount points means all.
    check(unsafe { sys::virDomainFSFreeze(domain.as_ptr(), ptr::null_mut(), 0, 0) })
}

/// Thaws all file systems and returns how many.
pub(crate) fn thaw(domain: &Domain) -> Result<c_int, Error> {
    // SAFETY: the domain is alive; no list of mount points means all.
    check(unsafe { sys::virDomainFSThaw(domain.as_ptr(), ptr::null_mut(), 0, 0) })
}

/// How many seconds libvirt waits for this domain's agent in calls that carry no time of their own.
pub(crate) fn set_agent_timeout(domain: &Domain, seconds: c_int) -> Result<(), Error> {
    // SAFETY: the domain is alive.
    check(unsafe { sys::virDomainAgentSetResponseTimeout(domain.as_ptr(), seconds, 0) }).map(drop)
}

/// `virt`'s own wrapper does not free each interface, and this call is frequent.
pub(crate) fn interfaces(
    domain: &Domain,
    source: sys::virDomainInterfaceAddressesSource,
) -> Result<Vec<InterfaceAddresses>, Error> {
    let mut list: *mut sys::virDomainInterfacePtr = ptr::null_mut();
    // SAFETY: the domain is alive; on success `list` holds `count` interfaces with `naddrs` addresses each, all ours to
    // free.
    unsafe {
        let count = check(sys::virDomainInterfaceAddresses(domain.as_ptr(), &mut list, source as c_uint, 0))?;
        let mut interfaces = Vec::new();
        for at in 0..usize::try_from(count).expect("a checked count is not negative") {
            let interface = *list.add(at);
            let addresses = (0..(*interface).naddrs as usize)
                .filter_map(|n| borrowed_text((*(*interface).addrs.add(n)).addr));
            interfaces.push(InterfaceAddresses {
                mac: borrowed_text((*interface).hwaddr),
                addresses: addresses.collect(),
            });
            sys::virDomainInterfaceFree(interface);
        }
        libc::free(list.cast());
        Ok(interfaces)
    }
}
