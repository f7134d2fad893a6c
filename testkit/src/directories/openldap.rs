//! OpenLDAP, with groups in groups and a password policy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::fleet::output;
use crate::pki;
use crate::process::{Process, free_port, until};

const BASE: &str = "dc=corp,dc=example";
const ADMIN: &str = "cn=admin,dc=corp,dc=example";
const ADMIN_PASSWORD: &str = "of-the-administrator";
const SCHEMAS: [&str; 4] = ["core", "cosine", "inetorgperson", "nis"];
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// People beside those with a name of their own: more than a server gives at once.
const MORE: usize = 600;

/// A running server; ends when dropped.
pub struct OpenLdap {
    pub ca: PathBuf,
    pub tls_port: u16,
    /// For StartTLS.
    pub port: u16,
    folder: PathBuf,
    _process: Process,
}

impl OpenLdap {
    /// Who searches, and with what.
    pub const SEARCHER: (&str, &str) = ("cn=drover,dc=corp,dc=example", "of-who-searches");
    pub const PEOPLE: &str = "ou=people,dc=corp,dc=example";
    pub const GROUPS: &str = "ou=groups,dc=corp,dc=example";
    /// Of everybody.
    pub const PASSWORD: &str = "of-everybody";

    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        Self::start_with(folder, MORE, 0).await
    }

    /// The id of one of those who have no name of their own.
    pub fn person(number: usize) -> String {
        format!("00000000-0000-4000-8000-{number:012}")
    }

    /// The id of a team.
    pub fn team(number: usize) -> String {
        format!("00000000-0000-4000-9000-{number:012}")
    }

    /// With so many people who have no name of their own, each in one of so many teams.
    pub async fn start_with(folder: &Path, people: usize, teams: usize) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder.join("db"))?;
        let (files, ca) = pki::local_server(folder, "slapd")?;
        let configuration = folder.join("slapd.conf");
        pki::write(&configuration, &self::configuration(folder, &files.cert, &files.key))?;
        let entries = folder.join("entries.ldif");
        pki::write(&entries, &self::entries(people, teams))?;
        output(Command::new("/usr/sbin/slapadd").arg("-f").arg(&configuration).arg("-l").arg(&entries))
            .await?;
        let (port, tls_port) = (free_port()?, free_port()?);
        let listen = format!("ldap://127.0.0.1:{port} ldaps://127.0.0.1:{tls_port}");
        let arguments = ["-d", "none", "-h", &listen, "-f"].map(str::to_owned).into_iter();
        let arguments = arguments.chain([configuration.to_string_lossy().into_owned()]);
        let process =
            Process::start_disposable("slapd", folder, Path::new("/usr/sbin/slapd"), arguments).await?;
        until("slapd", READY_TIMEOUT, async || {
            Ok(TcpStream::connect(("127.0.0.1", tls_port)).await.ok().map(drop))
        })
        .await?;
        Ok(Self { ca, tls_port, port, folder: folder.to_owned(), _process: process })
    }

    /// Changes entries, as LDIF says.
    pub async fn modify(&self, ldif: &str) -> anyhow::Result<()> {
        let file = self.folder.join("change.ldif");
        pki::write(&file, ldif)?;
        let server = format!("ldaps://127.0.0.1:{}", self.tls_port);
        let mut command = Command::new("ldapmodify");
        // References are entries to it, and not followed.
        command.env("LDAPTLS_CACERT", &self.ca).args(["-x", "-M", "-e", "relax", "-H", &server]);
        command.args(["-D", ADMIN, "-w", ADMIN_PASSWORD, "-f"]).arg(file);
        output(&mut command).await.map(drop)
    }

    /// What a person or a group is known by.
    pub async fn uuid(&self, filter: &str) -> anyhow::Result<String> {
        let server = format!("ldaps://127.0.0.1:{}", self.tls_port);
        let mut command = Command::new("ldapsearch");
        command.env("LDAPTLS_CACERT", &self.ca).args(["-x", "-LLL", "-H", &server]);
        command.args(["-D", ADMIN, "-w", ADMIN_PASSWORD, "-b", BASE, filter, "entryUUID"]);
        let said = output(&mut command).await?;
        let uuid = said.lines().find_map(|line| line.strip_prefix("entryUUID: "));
        Ok(uuid.with_context(|| format!("{filter} finds nobody"))?.to_owned())
    }
}

fn configuration(folder: &Path, cert: &Path, key: &Path) -> String {
    let schemas: String = SCHEMAS.map(|name| format!("include /etc/ldap/schema/{name}.schema\n")).concat();
    format!(
        "{schemas}modulepath /usr/lib/ldap\nmoduleload back_mdb\nmoduleload ppolicy\n\
         TLSCertificateFile {cert}\nTLSCertificateKeyFile {key}\nTLSCACertificateFile {cert}\n\
         security simple_bind=128\ndisallow bind_anon\nsizelimit size.soft=100 size.hard=100 size.prtotal=unlimited\n\
         database mdb\nsuffix {BASE}\nrootdn {ADMIN}\nrootpw {ADMIN_PASSWORD}\ndirectory {db}\nmaxsize 1073741824\ndbnosync\n\
         index objectClass,uid,cn,member,entryUUID eq\n\
         access to attrs=userPassword by anonymous auth by self write by * none\n\
         access to * by users read by * none\n\
         overlay ppolicy\nppolicy_default cn=policy,{BASE}\nppolicy_use_lockout\n",
        cert = cert.display(),
        key = key.display(),
        db = folder.join("db").display(),
    )
}

fn entries(people: usize, teams: usize) -> String {
    let password = OpenLdap::PASSWORD;
    let unit = |name: &str| format!("dn: ou={name},{BASE}\nobjectClass: organizationalUnit\nou: {name}\n\n");
    let policy = |name: &str, more: &str| {
        format!(
            "dn: cn={name},{BASE}\nobjectClass: organizationalRole\nobjectClass: pwdPolicy\ncn: {name}\npwdAttribute: userPassword\n{more}\n"
        )
    };
    let person = |name: &str, more: &str| {
        format!(
            "dn: uid={name},ou=people,{BASE}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\nsn: Of Tests\n\
             userPassword: {password}\n{more}\n"
        )
    };
    let group = |name: &str, members: &[&str]| {
        let members: String = members.iter().map(|member| format!("member: {member},{BASE}\n")).collect();
        format!("dn: cn={name},ou=groups,{BASE}\nobjectClass: groupOfNames\ncn: {name}\n{members}\n")
    };
    let (searcher, its_password) = OpenLdap::SEARCHER;
    let numbered = |number: usize| {
        person(&format!("person{number:04}"), &format!("entryUUID: {}\n", OpenLdap::person(number)))
    };
    let more: String = (0..people).map(numbered).collect();
    let team = |team: usize| {
        let members = (team..people).step_by(teams).map(|number| format!("uid=person{number:04},ou=people"));
        let members: Vec<_> = members.collect();
        let entry = group(&format!("team{team}"), &members.iter().map(String::as_str).collect::<Vec<_>>());
        format!("{}\nentryUUID: {}\n\n", entry.trim_end(), OpenLdap::team(team))
    };
    let of_teams: String = (0..teams).map(team).collect();
    [
        format!("dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\no: Corp\ndc: corp\n\n"),
        unit("people"),
        unit("groups"),
        policy("policy", "pwdMaxFailure: 3\npwdLockout: TRUE\npwdLockoutDuration: 300\npwdMustChange: TRUE\n"),
        policy("expiring", "pwdMaxAge: 1\npwdGraceAuthNLimit: 0\n"),
        format!(
            "dn: {searcher}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: drover\nuserPassword: {its_password}\n\n"
        ),
        person("alice", ""),
        person("bob", "displayName: Bob B.\n"),
        person("locked", ""),
        person("wild*card", ""),
        person("expired", &format!("pwdPolicySubentry: cn=expiring,{BASE}\npwdChangedTime: 20200101000000Z\n")),
        person("must-change", "pwdReset: TRUE\n"),
        more,
        // A circle, two deep.
        group("developers", &["uid=bob,ou=people", "cn=engineering,ou=groups"]),
        group("engineering", &["cn=developers,ou=groups", "uid=alice,ou=people"]),
        group("everybody", &["cn=engineering,ou=groups"]),
        group("others", &["uid=alice,ou=people"]),
        of_teams,
    ]
    .concat()
}
