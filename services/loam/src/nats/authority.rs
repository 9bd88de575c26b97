//! The certificate authority of the bus: each installation has its own, made when its bus first listens beyond loopback.
//!
//! Certificates are valid as long as their authority; a server's is made anew when its names change. The private key of
//! the authority stays where the settings of the servers are written.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use super::render::TlsFiles;
use crate::state::{State, StateDirError, write_private, write_public};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be read or written.
    #[error(transparent)]
    State(#[from] StateDirError),
    /// A name is none that a certificate can have, or a key file holds something else.
    #[error("{doing}")]
    Certificate {
        /// What was attempted.
        doing: String,
        /// What happened.
        #[source]
        source: rcgen::Error,
    },
    /// The authority's certificate is there, and its key is not.
    #[error(
        "{0} is missing; restore it from a copy, or remove ca.pem as well: then a new authority is made, and every host \
         must join again"
    )]
    KeyLost(PathBuf),
}

/// The authority.
pub struct Authority {
    /// Its certificate in PEM.
    pub pem: String,
    key: KeyPair,
}

impl Authority {
    /// Reads it, or makes it where there is none.
    pub fn open(state: &State) -> Result<Authority, AuthorityError> {
        let (certificate, key_file) = (state.authority(), state.authority_key());
        let failed = |source| AuthorityError::Certificate { doing: "making the authority".into(), source };
        // The key first: a certificate is made again from it, and a host that knows the old one trusts the new one.
        let key = match std::fs::read_to_string(&key_file) {
            Ok(text) => {
                let doing = format!("reading {}", key_file.display());
                KeyPair::from_pem(&text).map_err(|source| AuthorityError::Certificate { doing, source })?
            }
            Err(_) if certificate.exists() => return Err(AuthorityError::KeyLost(key_file)),
            Err(_) => {
                let key = KeyPair::generate().map_err(failed)?;
                write_private(&key_file, key.serialize_pem().as_bytes())?;
                key
            }
        };
        let pem = match std::fs::read_to_string(&certificate) {
            Ok(pem) => pem,
            Err(_) => {
                let pem = authority_params().self_signed(&key).map_err(failed)?.pem();
                write_public(&certificate, pem.as_bytes())?;
                pem
            }
        };
        Ok(Authority { pem, key })
    }

    /// Makes the certificate of a server for these names and addresses, unless it has that already: `{server}.pem` and
    /// `{server}.key` beside its settings.
    pub fn certify(&self, state: &State, server: &str, names: &[String]) -> Result<(), AuthorityError> {
        let files = TlsFiles::of(&state.nats(), server);
        // Text before a certificate is no part of it.
        let head = format!("names: {}\n", names.join(" "));
        let present = std::fs::read_to_string(&files.certificate).unwrap_or_default();
        if files.key.exists() && present.starts_with(&head) && present.ends_with(&self.pem) {
            return Ok(());
        }
        let failed = |source| AuthorityError::Certificate {
            doing: format!("making the certificate of a server for {}", names.join(", ")),
            source,
        };
        let mut params = CertificateParams::new(names).map_err(failed)?;
        set_lifetime(&mut params);
        params.distinguished_name.push(DnType::CommonName, server);
        params.use_authority_key_identifier_extension = true;
        // The servers of a cluster are each other's clients.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().map_err(failed)?;
        let issuer = Issuer::new(authority_params(), &self.key);
        let pem = params.signed_by(&key, &issuer).map_err(failed)?.pem();
        write_private(&files.key, key.serialize_pem().as_bytes())?;
        write_private(&files.certificate, format!("{head}{pem}{}", self.pem).as_bytes())?;
        write_public(&files.authority, self.pem.as_bytes())?;
        Ok(())
    }
}

impl TlsFiles {
    /// The files of a server in a folder.
    pub fn of(folder: &std::path::Path, server: &str) -> TlsFiles {
        let file = |name: String| folder.join(name);
        TlsFiles {
            certificate: file(format!("{server}.pem")),
            key: file(format!("{server}.key")),
            authority: file("ca.pem".into()),
        }
    }
}

/// The same at each start: a certificate names its issuer by them.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    set_lifetime(&mut params);
    params.distinguished_name.push(DnType::CommonName, "Loam bus authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Nobody but the installation trusts this authority, and its clocks may be wrong by years.
fn set_lifetime(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2060, 1, 1);
}
