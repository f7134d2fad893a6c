//! Throwaway authorities and the certificates that they issue.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use drover_api::signed::PublicKey;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, SubjectPublicKeyInfo,
};

pub use rcgen::ExtendedKeyUsagePurpose as Usage;

/// An authority with a life of its own: nothing outside its folder trusts it.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// What a certificate says.
#[derive(Clone, Debug, Default)]
pub struct Subject<'a> {
    pub common_name: &'a str,
    pub organization: Option<&'a str>,
    pub names: &'a [&'a str],
    pub addresses: &'a [IpAddr],
    pub uris: &'a [String],
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Files {
    pub cert: PathBuf,
    pub key: PathBuf,
}

pub const LOOPBACK: [IpAddr; 1] = [IpAddr::V4(Ipv4Addr::LOCALHOST)];

/// A server's certificate for this machine, of an authority of its own: its files, and that of the authority.
pub fn local_server(folder: &Path, name: &str) -> anyhow::Result<(Files, PathBuf)> {
    let authority = Authority::new(name)?;
    let subject = Subject {
        common_name: "localhost",
        addresses: &LOOPBACK,
        names: &["localhost"],
        ..Subject::default()
    };
    let files = authority.issue_files(folder, name, &subject, &[Usage::ServerAuth])?;
    Ok((files, authority.write(folder, &format!("{name}-ca.crt"))?))
}

impl Authority {
    pub fn new(common_name: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Certificate and key, PEM.
    pub fn issue(
        &self,
        subject: &Subject<'_>,
        usage: &[ExtendedKeyUsagePurpose],
    ) -> anyhow::Result<(String, String)> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, subject.common_name);
        if let Some(organization) = subject.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.extended_key_usages = usage.to_vec();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        for name in subject.names {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into()?));
        }
        params.subject_alt_names.extend(subject.addresses.iter().map(|address| SanType::IpAddress(*address)));
        for uri in subject.uris {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// A certificate in DER for a key that signs assertions and rosters.
    pub fn certify_signer(&self, key: PublicKey) -> anyhow::Result<Vec<u8>> {
        self.certify(key, ExtendedKeyUsagePurpose::CodeSigning)
    }

    /// The same for a key that may not sign.
    pub fn certify_for_clients(&self, key: PublicKey) -> anyhow::Result<Vec<u8>> {
        self.certify(key, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn certify(&self, key: PublicKey, usage: ExtendedKeyUsagePurpose) -> anyhow::Result<Vec<u8>> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, key.id().to_string());
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let spki = SubjectPublicKeyInfo::from_der(&key.to_spki())?;
        Ok(params.signed_by(&spki, &self.issuer)?.der().to_vec())
    }

    /// Issues into `<folder>/<name>.crt` and `<folder>/<name>.key`.
    pub fn issue_files(
        &self,
        folder: &Path,
        name: &str,
        subject: &Subject<'_>,
        usage: &[ExtendedKeyUsagePurpose],
    ) -> anyhow::Result<Files> {
        let (cert, key) = self.issue(subject, usage)?;
        let files =
            Files { cert: folder.join(format!("{name}.crt")), key: folder.join(format!("{name}.key")) };
        write(&files.cert, &cert)?;
        write_secret(&files.key, &key)?;
        Ok(files)
    }

    pub fn write(&self, folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
        let path = folder.join(name);
        write(&path, &self.pem())?;
        Ok(path)
    }
}

pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}

/// Writes for the owner's eyes only, and whole or not at all.
pub fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let failed = || format!("failed to write {}", path.display());
    let new = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o600);
    options.open(&new).and_then(|mut file| file.write_all(text.as_bytes())).with_context(failed)?;
    std::fs::rename(&new, path).with_context(failed)
}
