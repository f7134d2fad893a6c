//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

mod provider;

pub(crate) use provider::{AddGithub, AddIssuer, AddLdap, AddOidc, App, LdapServers, Provider, SetServers};

/// One door to all of your Kubernetes clusters.
#[derive(Parser)]
#[command(name = "drover", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// How to print what was asked for.
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,

    /// File that holds the server and the login.
    #[arg(long, global = true, env = "DROVER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Json,
    Table,
    Yaml,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run control and a gateway on this machine.
    Up(Up),
    /// Log in: in a browser, or with --user by a password. The token goes into the keyring where one takes it, or else, as with
    /// DROVER_KEYRING=off, into the file of --config.
    Login(Login),
    /// Revoke the token of the login.
    Logout,
    /// Show who is logged in, where.
    Whoami,
    /// Change your password; it ends every other login of yours.
    Password {
        /// Read the current password and the next one from the standard input, a line each.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Clusters: create one, import what runs, list, delete.
    #[command(subcommand)]
    Cluster(Cluster),
    /// Print the login's token for kubectl, which asks for it by the contexts that kubeconfig wrote.
    Credential(Ci),
    /// Write contexts for kubectl: one for each cluster, named as it.
    Kubeconfig(Kubeconfig),
    /// Tokens for scripts and machines.
    #[command(subcommand)]
    Token(Token),
    /// Local users.
    #[command(subcommand)]
    User(User),
    /// Groups: who is in which, and what they may by that.
    #[command(subcommand)]
    Group(Group),
    /// Directories that users come from.
    #[command(subcommand)]
    Provider(Provider),
    /// Gateways: those that follow control, and forgetting one that is gone for good.
    #[command(subcommand)]
    Gateway(Gateway),
    /// Who holds which role, where.
    #[command(subcommand)]
    Binding(Binding),
    /// Show what keeps Drover itself from being whole: objects that are not in force as they were written.
    Status,
    /// Print a completion script for a shell.
    Completion { shell: Shell },
}

#[derive(Args)]
pub(crate) struct Up {
    /// Folder of everything that is kept.
    #[arg(long, env = "DROVER_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Address on which clients are served over HTTPS.
    #[arg(long, default_value = "[::]:8443")]
    pub listen: String,
    /// Address on which agents open their tunnels (QUIC, UDP).
    #[arg(long, default_value = "[::]:8444")]
    pub tunnel_listen: String,
    /// Address on which control serves the gateway.
    #[arg(long, default_value = "127.0.0.1:8447")]
    pub control_listen: String,
    /// Address of the gateway's /metrics, /livez and /readyz.
    #[arg(long, default_value = "127.0.0.1:8445")]
    pub admin_listen: String,
    /// Address of control's /metrics, /livez and /readyz.
    #[arg(long, default_value = "127.0.0.1:8448")]
    pub control_admin_listen: String,
    /// Host name or address at which clients and agents reach this machine; repeat the flag for more.
    /// The first is the one that kubeconfigs and agents get.
    #[arg(long = "host", default_values_t = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])]
    pub hosts: Vec<String>,
    /// Host name at which browsers find the console, and nothing else.
    #[arg(long, default_value = "console.localhost", value_name = "HOST")]
    pub console_host: String,
}

#[derive(Subcommand)]
pub(crate) enum Gateway {
    List,
    /// End a gateway: its certificates, its renewals and what it follows by; and wait for it no more.
    Delete {
        name: String,
    },
}

#[derive(Args)]
pub(crate) struct Login {
    /// Address of the gateway, as https://HOST:PORT; by default the one of the last login.
    pub server: Option<String>,
    /// Name to log in as, by a password. Without it, the login is granted in a browser, on this machine or another.
    #[arg(long, short)]
    pub user: Option<String>,
    /// Directory that knows the user; by default Drover's own users.
    #[arg(long, short)]
    pub provider: Option<String>,
    /// Read the password from the standard input.
    #[arg(long)]
    pub password_stdin: bool,
    /// Show a code for a browser on any machine, and open none here.
    #[arg(long, conflicts_with_all = ["user", "provider", "password_stdin"])]
    pub device: bool,
    /// Authority of the gateway's certificate (PEM), where the system does not know it.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum Cluster {
    /// Make a cluster known; import it next.
    Create {
        name: String,
    },
    List,
    /// Show the agents that are enrolled, of one cluster or of all.
    Agents {
        name: Option<String>,
        /// End one, by its id: its certificates, its renewals, its sessions, and its cluster's registration tokens.
        #[arg(long, value_name = "ID", conflicts_with = "name")]
        delete: Option<String>,
    },
    /// Forget a cluster, with its bindings; the cluster itself is left as it is.
    Delete {
        name: String,
    },
    /// Print what the cluster's agent needs, for kubectl apply -f -; or run the agent from here.
    Import(Import),
}

#[derive(Args)]
pub(crate) struct Import {
    pub name: String,
    /// Run the agent on this machine, for the cluster of this kubeconfig: needs kubectl.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Where agents reach gateways, as HOST:PORT (UDP); repeat the flag for more. By default what the server says.
    #[arg(long = "gateway", value_name = "HOST:PORT")]
    pub gateways: Vec<String>,
    /// Where agents reach Drover's API, as HOST:PORT. By default the server of the login.
    #[arg(long, value_name = "HOST:PORT")]
    pub server: Option<String>,
    /// Image of the agent's pods; the default is what deploy/agent/image writes.
    #[arg(long, default_value = "drover.local/agent:dev")]
    pub image: String,
    /// Folder that an agent on this machine keeps its certificate in.
    #[arg(long, value_name = "DIR", requires = "kubeconfig")]
    pub state: Option<PathBuf>,
    /// Let the API server itself refuse its most powerful identities: for Kubernetes 1.36 and newer.
    #[arg(long)]
    pub constrained_impersonation: bool,
}

/// Of programs in CI systems and clusters, which have a JWT and no login.
#[derive(Args)]
pub(crate) struct Ci {
    /// Use a JWT of an issuer that Drover trusts, and not the login: of --jwt-file, of the variable DROVER_JWT, or of
    /// GitHub Actions.
    #[arg(long)]
    pub ci: bool,
    /// The server; by default that of the login.
    #[arg(long, value_name = "URL", requires = "ci")]
    pub server: Option<String>,
    /// Authority of its certificate (PEM), where the system does not know it.
    #[arg(long, value_name = "FILE", requires = "ci")]
    pub ca: Option<PathBuf>,
    /// File of the JWT, such as a projected service account token.
    #[arg(long, value_name = "FILE", requires = "ci")]
    pub jwt_file: Option<PathBuf>,
    /// The audience that GitHub Actions are asked for.
    #[arg(long, default_value = "drover", requires = "ci")]
    pub audience: String,
}

#[derive(Args)]
pub(crate) struct Kubeconfig {
    /// Clusters; by default all.
    pub clusters: Vec<String>,
    /// File to merge into; by default $KUBECONFIG or ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Print it, and leave every file alone.
    #[arg(long)]
    pub print: bool,
    /// Put a token of its own into the file, for machines without this program: it works until it ends or is revoked,
    /// whoever is logged in.
    #[arg(long, conflicts_with = "ci")]
    pub token: bool,
    /// How long that token lasts, such as 12h or 30d.
    #[arg(long, value_parser = lifetime, requires = "token")]
    pub lifetime: Option<Duration>,
    #[command(flatten)]
    pub ci: Ci,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenKind {
    Bot,
    Kubeconfig,
}

#[derive(Subcommand)]
pub(crate) enum Token {
    /// Make a token; it is shown this once.
    Create {
        #[arg(long, value_enum, default_value_t = TokenKind::Bot)]
        kind: TokenKind,
        /// Cluster that it may be shown to; repeat the flag for more. By default all.
        #[arg(long = "cluster")]
        clusters: Vec<String>,
        /// How long it lasts, such as 12h or 30d.
        #[arg(long, value_parser = lifetime)]
        lifetime: Option<Duration>,
        /// End it as well once it was not used for so long, such as 14d; at least 1h.
        #[arg(long, value_parser = lifetime)]
        idle: Option<Duration>,
        /// Its owner; by default you.
        #[arg(long)]
        user: Option<String>,
    },
    List,
    /// Refuse a token from here on, everywhere.
    Revoke {
        id: String,
    },
    /// Refuse every token of a user from here on, the logins too; by default yours.
    RevokeAll {
        #[arg(long)]
        user: Option<String>,
    },
}

#[derive(Subcommand)]
pub(crate) enum User {
    /// Make a local user; the password is drawn and shown unless it is given.
    Create {
        name: String,
        #[arg(long)]
        display_name: Option<String>,
        /// Group of the user, such as ops; repeat the flag for more.
        #[arg(long = "group")]
        groups: Vec<String>,
        #[arg(long)]
        password_stdin: bool,
    },
    List,
    /// Refuse a user from here on, everywhere; enable undoes it.
    Disable {
        name: String,
    },
    Enable {
        name: String,
    },
    /// Ask the user's directory now: who is gone from it is logged out.
    Refresh {
        name: String,
    },
    /// Draw a password for a user who has lost theirs, and show it; it ends their logins.
    ResetPassword {
        name: String,
    },
    /// Delete a user with their tokens and bindings; the name is never given again.
    Delete {
        name: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum Group {
    /// Groups that a user is in, or that a binding names.
    List,
    /// Who is in a group, and its bindings.
    Show {
        /// A local group, such as ops, or the principal of any.
        name: String,
    },
    /// Put local users into a local group.
    Add {
        name: String,
        #[arg(required = true)]
        users: Vec<String>,
    },
    /// Take local users out of a local group.
    Remove {
        name: String,
        #[arg(required = true)]
        users: Vec<String>,
    },
}

#[derive(Subcommand)]
pub(crate) enum Binding {
    /// Give a role to a user or a group, everywhere, in a cluster or in a project.
    Create(CreateBinding),
    List,
    Delete {
        name: String,
    },
}

#[derive(Args)]
pub(crate) struct CreateBinding {
    /// The role, such as cluster-viewer.
    #[arg(long)]
    pub role: String,
    #[arg(long, conflicts_with = "group", required_unless_present = "group")]
    pub user: Option<String>,
    /// A local group, such as ops.
    #[arg(long)]
    pub group: Option<String>,
    /// Cluster that it holds in.
    #[arg(long, required_unless_present = "everywhere")]
    pub cluster: Option<String>,
    /// Project of the cluster.
    #[arg(long, requires = "cluster")]
    pub project: Option<String>,
    /// In all clusters, and those to come.
    #[arg(long, conflicts_with = "cluster")]
    pub everywhere: bool,
    #[arg(long)]
    pub name: Option<String>,
}

/// `90s`, `30m`, `12h`, `30d`.
fn lifetime(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time such as 30m, 12h or 30d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(wrong()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lifetimes_have_units() {
        assert_eq!(lifetime("30d"), Ok(Duration::from_secs(30 * 24 * 3600)));
        assert_eq!(lifetime("90s"), Ok(Duration::from_secs(90)));
        for wrong in ["", "30", "d", "-1h", "1w", "1é", "99999999999999999999d"] {
            assert!(lifetime(wrong).is_err(), "{wrong}");
        }
    }
}
