//! Active Directory, as Samba is one: on an address of its own, since its ports cannot be chosen.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::fleet::output;
use crate::pki::{self, Authority, Subject, Usage};
use crate::process::{Process, until};

const BASE: &str = "DC=corp,DC=example";
const ADMIN_PASSWORD: &str = "Of-the-administrator-1";
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const PEOPLE: &str = include_str!("people.py");

/// A running domain controller; ends when dropped.
pub struct Samba {
    pub ca: PathBuf,
    pub address: Ipv4Addr,
    folder: PathBuf,
    _process: Process,
}

impl Samba {
    pub const BASE: &str = BASE;
    /// Of everybody, who searches too.
    pub const PASSWORD: &str = "Of-everybody-1";
    pub const SEARCHER: &str = "searcher@corp.example";

    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let address =
            Ipv4Addr::new(127, rand::random_range(64..250), rand::random(), rand::random_range(1..250));
        let empty = folder.join("empty.conf");
        pki::write(&empty, "")?;
        let domain = folder.join("dc");
        let mut provision = Command::new("samba-tool");
        provision.args(["domain", "provision", "--realm=CORP.EXAMPLE", "--domain=CORP", "--server-role=dc"]);
        provision.args(["--dns-backend=NONE", "--host-name=dc1", &format!("--host-ip={address}")]);
        provision.arg(format!("--adminpass={ADMIN_PASSWORD}"));
        provision.arg(format!("--configfile={}", empty.display()));
        output(provision.arg(format!("--targetdir={}", domain.display()))).await?;
        let authority = Authority::new("ad")?;
        let subject = Subject {
            common_name: "dc1.corp.example",
            addresses: &[IpAddr::V4(address)],
            ..Subject::default()
        };
        let files = authority.issue_files(folder, "dc1", &subject, &[Usage::ServerAuth])?;
        let ca = authority.write(folder, "ad-ca.crt")?;
        let configuration = domain.join("etc/smb.conf");
        pki::write(&configuration, &self::configuration(folder, &domain, address, &files, &ca))?;
        let people = folder.join("people.py");
        pki::write(&people, PEOPLE)?;
        let mut fill = Command::new("/usr/bin/python3");
        fill.arg(&people).arg(&configuration).arg(domain.join("private/sam.ldb")).arg(Self::PASSWORD);
        output(&mut fill).await?;
        std::fs::create_dir_all(domain.join("cache"))?;
        let arguments = ["-F", "--no-process-group", "-M", "single", "-s"].map(str::to_owned).into_iter();
        let arguments = arguments.chain([configuration.to_string_lossy().into_owned()]);
        let mut process =
            Process::start_disposable("samba", folder, Path::new("/usr/sbin/samba"), arguments).await?;
        until("samba", READY_TIMEOUT, async || {
            process.check()?;
            Ok(TcpStream::connect((address, 636)).await.ok().map(drop))
        })
        .await?;
        Ok(Self { ca, address, folder: folder.to_owned(), _process: process })
    }

    pub fn server(&self) -> String {
        format!("ldaps://{}", self.address)
    }

    /// Changes entries, as LDIF says.
    pub async fn modify(&self, ldif: &str) -> anyhow::Result<()> {
        let file = self.folder.join("change.ldif");
        pki::write(&file, ldif)?;
        let mut command = self.client("ldapmodify");
        output(command.arg("-f").arg(file)).await.map(drop)
    }

    /// What a group or a person is known by: `S-1-5-...`.
    pub async fn sid(&self, account: &str) -> anyhow::Result<String> {
        let database = self.folder.join("dc/private/sam.ldb");
        let mut command = Command::new("ldbsearch");
        command.arg("-H").arg(database).arg(format!("(sAMAccountName={account})")).arg("objectSid");
        let said = output(&mut command).await?;
        let sid = said.lines().find_map(|line| line.strip_prefix("objectSid: "));
        Ok(sid.with_context(|| format!("there is no {account}"))?.to_owned())
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LDAPTLS_CACERT", &self.ca).args(["-x", "-H", &self.server()]);
        command.args(["-D", "administrator@corp.example", "-w", ADMIN_PASSWORD]);
        command
    }
}

fn configuration(folder: &Path, domain: &Path, address: Ipv4Addr, files: &pki::Files, ca: &Path) -> String {
    let (folder, domain) = (folder.display(), domain.display());
    format!(
        "[global]\n netbios name = DC1\n realm = CORP.EXAMPLE\n workgroup = CORP\n\
         server role = active directory domain controller\n server services = ldap\n\
         interfaces = {address}/8\n bind interfaces only = yes\n\
         private dir = {domain}/private\n lock directory = {domain}\n state directory = {domain}/state\n\
         cache directory = {domain}/cache\n binddns dir = {domain}/bind-dns\n pid directory = {domain}\n\
         ncalrpc dir = {domain}/ncalrpc\n winbindd socket directory = {domain}/winbindd\n\
         ntp signd socket directory = {domain}/ntp\n log file = {folder}/samba-server.log\n logging = file\n\
         tls enabled = yes\n tls keyfile = {key}\n tls certfile = {cert}\n tls cafile = {ca}\n\
         ldap server require strong auth = allow_sasl_over_tls\n",
        key = files.key.display(),
        cert = files.cert.display(),
        ca = ca.display(),
    )
}
