//! Domains: their life from definition to removal, and how they are found again.
//!
//! ```text
//!              define            start              request_shutdown ... or destroy
//!   (nothing) --------> Off ------------> Running ---------------------------------> Off --undefine--> (nothing)
//! ```
//!
//! Which of these should happen, and how long a guest has for its shutdown, is the caller's to decide.

use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error as LibvirtError, ErrorNumber};
use virt::sys;

use crate::connection::{Connection, EnsureOutcome};
use crate::deadline::CallClass;
use crate::domain::changes::disks_in;
use crate::domain::mark::MARK_NAMESPACE;
use crate::domain::{DomainSpec, FoundDisk, Mark};
use crate::error::{Error, known};
use crate::power::{DomainState, state_of};

/// How to ask a guest to shut down (`virsh shutdown --mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShutdownMode {
    /// Through its agent: sure where an agent runs, and an error at once where none does.
    Agent,
    /// By the ACPI power button: a guest may ignore it.
    Acpi,
}

/// A domain that carries our mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedDomain {
    /// libvirt's name for it, unique on the host.
    pub name: String,
    /// Its UUID.
    pub uuid: Uuid,
    /// What it is doing.
    pub power: DomainState,
    /// Whose it is, and what it was made from.
    pub mark: Mark,
    /// Its disks as they are defined now.
    pub disks: Vec<FoundDisk>,
}

/// A definition that can be given back to libvirt without losing anything.
const WITH_PASSWORDS: sys::virDomainXMLFlags = sys::VIR_DOMAIN_XML_INACTIVE | sys::VIR_DOMAIN_XML_SECURE;
/// Everything that may hang on a domain and would keep it from being removed.
const UNDEFINE_WITH: sys::virDomainUndefineFlagsValues = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | sys::VIR_DOMAIN_UNDEFINE_NVRAM;

impl Connection {
    /// Makes the domain known to libvirt. One that exists is kept as it is, whatever others have changed in it; only its
    /// virtualization type is brought up to date, for its next start. It is not started by libvirt when the host starts:
    /// that is for the caller to do.
    ///
    /// # Errors
    /// [`Error::Libvirt`] when the name is another domain's, or libvirt refuses the document.
    pub fn define(&mut self, spec: &DomainSpec) -> Result<EnsureOutcome, Error> {
        let attempt = format!("define domain {}", spec.name);
        let document = match self.document_of(spec.uuid, WITH_PASSWORDS)? {
            None => Some(spec.document()),
            Some(found) => spec
                .with_virt_type(&found)
                .map_err(|reason| Error::MalformedReply { attempt: attempt.clone(), reason })?,
        };
        match document {
            None => Ok(EnsureOutcome::AlreadyInPlace),
            Some(document) => self.define_document(&attempt, &document),
        }
    }

    /// The definition of a domain as libvirt has it, without passwords, for [`Connection::restore_definition`]; `None`
    /// where it is not defined.
    ///
    /// # Errors
    /// What any call may meet.
    pub fn definition(&mut self, uuid: Uuid) -> Result<Option<String>, Error> {
        self.document_of(uuid, sys::VIR_DOMAIN_XML_INACTIVE)
    }

    fn document_of(&mut self, uuid: Uuid, flags: sys::virDomainXMLFlags) -> Result<Option<String>, Error> {
        let attempt = format!("get the definition of domain {uuid}");
        self.call(CallClass::Query, &attempt, |connect| {
            match known(connect.lookup_domain_by_uuid(uuid))? {
                // One that runs and was undefined is not defined.
                Some(domain) if domain.is_persistent()? => domain.xml_desc(flags).map(Some),
                _ => Ok(None),
            }
        })
    }

    /// Defines a domain again from what [`Connection::definition`] returned.
    ///
    /// # Errors
    /// [`Error::Libvirt`] when libvirt refuses the document.
    pub fn restore_definition(&mut self, uuid: Uuid, document: &str) -> Result<EnsureOutcome, Error> {
        match self.definition(uuid)? {
            Some(_) => Ok(EnsureOutcome::AlreadyInPlace),
            None => self.define_document(&format!("define domain {uuid} again"), document),
        }
    }

    fn define_document(&mut self, attempt: &str, document: &str) -> Result<EnsureOutcome, Error> {
        self.call(CallClass::Define, attempt, |connect| {
            connect.define_domain_xml(document).map(|_| EnsureOutcome::Changed)
        })
    }

    /// The disks of a domain as it is defined now, or as it runs where it is not defined any more; `None` where libvirt
    /// does not know it.
    ///
    /// # Errors
    /// What any call may meet.
    pub fn disks(&mut self, uuid: Uuid) -> Result<Option<Vec<FoundDisk>>, Error> {
        let attempt = format!("get the disks of domain {uuid}");
        let document = self.call(CallClass::Query, &attempt, |connect| {
            let domain = known(connect.lookup_domain_by_uuid(uuid))?;
            domain.map(|domain| domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE)).transpose()
        })?;
        document.map(|document| read_disks(&attempt, &document)).transpose()
    }

    /// Starts a defined domain.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none; [`Error::Libvirt`] with QEMU's message when it does not start.
    pub fn start(&mut self, uuid: Uuid) -> Result<EnsureOutcome, Error> {
        self.call(CallClass::Start, &format!("start domain {uuid}"), |connect| {
            let domain = connect.lookup_domain_by_uuid(uuid)?;
            if domain.is_active()? {
                return Ok(EnsureOutcome::AlreadyInPlace);
            }
            match domain.create() {
                // Another caller was faster, between our two calls.
                Err(_) if domain.is_active()? => Ok(EnsureOutcome::AlreadyInPlace),
                started => started.map(|()| EnsureOutcome::Changed),
            }
        })
    }

    /// Asks the guest to shut down, and returns at once; [`Connection::power`] shows when it has.
    ///
    /// # Errors
    /// [`Error::AgentSilent`] when there is no agent to ask: try the power button. [`Error::NotFound`].
    pub fn request_shutdown(&mut self, uuid: Uuid, way: ShutdownMode) -> Result<EnsureOutcome, Error> {
        let flags = match way {
            ShutdownMode::Agent => sys::VIR_DOMAIN_SHUTDOWN_GUEST_AGENT,
            ShutdownMode::Acpi => sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN,
        };
        self.call(CallClass::Agent, &format!("ask domain {uuid} to shut down"), |connect| {
            let domain = connect.lookup_domain_by_uuid(uuid)?;
            if !domain.is_active()? {
                return Ok(EnsureOutcome::AlreadyInPlace);
            }
            domain.shutdown_flags(flags).map(|()| EnsureOutcome::Changed)
        })
    }

    /// Ends the domain's process, by force where it has to be. The guest is not asked.
    ///
    /// # Errors
    /// [`Error::TimedOut`] when its process hangs in the kernel; then the host needs a person.
    pub fn destroy(&mut self, uuid: Uuid) -> Result<EnsureOutcome, Error> {
        self.call(CallClass::Destroy, &format!("destroy domain {uuid}"), |connect| {
            let Some(domain) = known(connect.lookup_domain_by_uuid(uuid))? else {
                return Ok(EnsureOutcome::AlreadyInPlace);
            };
            if !domain.is_active()? {
                return Ok(EnsureOutcome::AlreadyInPlace);
            }
            match domain.destroy() {
                Err(_) if !domain.is_active()? => Ok(EnsureOutcome::AlreadyInPlace),
                destroyed => destroyed.map(|()| EnsureOutcome::Changed),
            }
        })
    }

    /// Removes the domain's definition, its checkpoints' records included. Its disks stay; a process stays, too.
    ///
    /// # Errors
    /// What any call may meet.
    pub fn undefine(&mut self, uuid: Uuid) -> Result<EnsureOutcome, Error> {
        self.call(CallClass::Define, &format!("undefine domain {uuid}"), |connect| {
            let Some(domain) = known(connect.lookup_domain_by_uuid(uuid))? else {
                return Ok(EnsureOutcome::AlreadyInPlace);
            };
            if !domain.is_persistent()? {
                return Ok(EnsureOutcome::AlreadyInPlace);
            }
            domain.undefine_flags(UNDEFINE_WITH).map(|()| EnsureOutcome::Changed)
        })
    }

    /// The UUID of the domain with a name, whoever it belongs to.
    ///
    /// # Errors
    /// What any call may meet.
    pub fn find(&mut self, name: &str) -> Result<Option<Uuid>, Error> {
        self.call(CallClass::Query, &format!("find domain {name}"), |connect| {
            known(connect.lookup_domain_by_name(name))?.map(|domain| domain.uuid()).transpose()
        })
    }

    /// The mark on a domain; `None` when there is no such domain, or it is not ours.
    ///
    /// # Errors
    /// [`Error::MalformedReply`] for a mark in our name space that is malformed.
    pub fn mark(&mut self, uuid: Uuid) -> Result<Option<Mark>, Error> {
        let attempt = format!("get the mark of domain {uuid}");
        let document = self.call(CallClass::Query, &attempt, |connect| {
            known(connect.lookup_domain_by_uuid(uuid))?.map_or(Ok(None), |domain| mark_document(&domain))
        })?;
        document.map(|text| read_mark(&attempt, &text)).transpose()
    }

    /// All domains that carry our mark, running or not, whatever organisation they belong to.
    ///
    /// # Errors
    /// What any call may meet.
    pub fn marked_domains(&mut self) -> Result<Vec<MarkedDomain>, Error> {
        let attempt = "list the domains";
        let seen = self.call(CallClass::Query, attempt, |connect| {
            connect.list_all_domains(0)?.iter().filter_map(|domain| seen(domain).transpose()).collect()
        });
        let seen: Vec<Seen> = seen?;
        // Each QEMU that does not answer costs its deadline: after the first one the disks of no other are asked, so that
        // the list comes in bounded time.
        let mut disks_answer = true;
        seen.into_iter()
            .map(|Seen { name, uuid, power, mark, definition }| {
                let mark = read_mark(attempt, &mark)?;
                let disks = read_disks(attempt, &definition)?;
                let asked = disks_answer.then(|| self.ask_disks(uuid, power)).flatten();
                disks_answer &= asked.is_some();
                Ok(MarkedDomain { name, uuid, power: asked.unwrap_or(power), mark, disks })
            })
            .collect()
    }

    /// Makes calls about a domain that must exist.
    pub(crate) fn with_domain<T>(
        &mut self,
        class: CallClass,
        attempt: &str,
        uuid: Uuid,
        ask: impl FnOnce(&Connect, &Domain) -> Result<T, LibvirtError>,
    ) -> Result<T, Error> {
        self.call(class, attempt, |connect| ask(connect, &connect.lookup_domain_by_uuid(uuid)?))
    }
}

fn mark_document(domain: &Domain) -> Result<Option<String>, LibvirtError> {
    let kind = i32::try_from(sys::VIR_DOMAIN_METADATA_ELEMENT).expect("a small constant");
    match domain.metadata(kind, Some(MARK_NAMESPACE), 0) {
        Err(error)
            if error.code().is(ErrorNumber::NoDomainMetadata) || error.code().is(ErrorNumber::NoDomain) =>
        {
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// What libvirt says of a marked domain.
struct Seen {
    name: String,
    uuid: Uuid,
    power: DomainState,
    mark: String,
    definition: String,
}

/// One marked domain of a list; `None` when it is unmarked, or gone since the list was made.
fn seen(domain: &Domain) -> Result<Option<Seen>, LibvirtError> {
    let Some(mark) = mark_document(domain)? else {
        return Ok(None);
    };
    let Some(power) = known(state_of(domain))? else {
        return Ok(None);
    };
    let Some(definition) = known(domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE))? else {
        return Ok(None);
    };
    Ok(Some(Seen { name: domain.name()?, uuid: domain.uuid()?, power, mark, definition }))
}

fn read_disks(attempt: &str, document: &str) -> Result<Vec<FoundDisk>, Error> {
    disks_in(document).map_err(|reason| Error::MalformedReply { attempt: attempt.to_owned(), reason })
}

fn read_mark(attempt: &str, document: &str) -> Result<Mark, Error> {
    Mark::read(document).map_err(|reason| Error::MalformedReply { attempt: attempt.to_owned(), reason })
}
