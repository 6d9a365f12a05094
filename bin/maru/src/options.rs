//! The command line. Every option of `up` can also be given as `MARU_<NAME>` in the environment; `maru status` shows
//! which value is in force and where it came from.

use clap::{Args, Parser, Subcommand, parser::ValueSource};
use std::{net::SocketAddr, path::PathBuf};

/// A private cloud in one binary: OpenStack's APIs on this machine.
#[derive(Parser)]
#[command(name = "maru", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Run a cloud on this machine until Ctrl-C or SIGTERM; guests go on after that.
    Up(Box<Up>),
    /// Stop a running cloud; with --guests, its guests and everything it made on this machine too.
    Down(Down),
    /// Show the health of each part, versions, the hypervisor chosen and where each option's value came from.
    Status(Status),
    /// Print shell lines that let the openstack client log in: eval "$(maru openrc)".
    Openrc(Data),
    /// Print a clouds.yaml for the openstack client.
    CloudsYaml(Data),
    /// Write a systemd unit for `maru up` (restarting it touches no guest).
    Install(Install),
    /// Write a consistent copy of a running cloud's store to a file.
    Backup(Backup),
    /// Put a backup in place of the store of a cloud that is not running; a new incarnation begins.
    Restore(Restore),
    /// Take a guest that the store does not know (after a restore) back into it.
    Adopt(Unknown),
    /// Remove a guest, disk or network that the store does not know from this machine.
    Discard(Unknown),
    /// Look into a running cloud.
    Debug(Debug),
    /// Print a token that lets one machine join this cloud, and the command to run there.
    Token(Token),
    /// Run this machine as a node of a cloud until Ctrl-C or SIGTERM; guests go on after that. The token is needed the first time only.
    Join(Box<Join>),
}

/// Where the data is unless it is said.
pub const DATA: &str = "/var/lib/maru";

/// Where the data is.
#[derive(Args, Clone)]
pub struct Data {
    /// Data directory.
    #[arg(long, env = "MARU_DATA", default_value = DATA)]
    pub data: PathBuf,
}

/// Options of `maru up`.
#[derive(Args, Clone)]
pub struct Up {
    /// Where the data is.
    #[command(flatten)]
    pub data: Data,
    /// Address and port of all APIs. Plain HTTP on loopback, TLS anywhere else.
    #[arg(long, env = "MARU_LISTEN", default_value = "127.0.0.1:5000")]
    pub listen: SocketAddr,
    /// URL that clients reach the APIs at, if not the listening address (written into the catalogue).
    #[arg(long, env = "MARU_PUBLIC_URL")]
    pub public_url: Option<String>,
    /// Region of the catalogue.
    #[arg(long, env = "MARU_REGION", default_value = "RegionOne")]
    pub region: String,
    /// Name of this node; the host name unless given.
    #[arg(long, env = "MARU_NODE")]
    pub node: Option<String>,
    /// Prefix of everything this cloud makes on the machine (namespaces, links): two clouds need two.
    #[arg(long, env = "MARU_INSTANCE", default_value = "maru")]
    pub instance: String,
    /// Network device to join the external network to. Without it, floating IPs are reached from this host only.
    #[arg(long, env = "MARU_UPLINK")]
    pub uplink: Option<String>,
    /// Block of the external network `public`.
    #[arg(long, env = "MARU_EXTERNAL_CIDR", default_value = "172.24.4.0/24")]
    pub external_cidr: ipnet::Ipv4Net,
    /// Gateway in that block, this host's own address unless there is an uplink; the first one unless given.
    #[arg(long, env = "MARU_EXTERNAL_GATEWAY")]
    pub external_gateway: Option<std::net::Ipv4Addr>,
    /// Hosts with their ports (HOST:PORT, exactly) that imports of images may download from although they are not public
    /// addresses at port 80 or 443: mirrors and test servers inside. Several are separated by commas.
    #[arg(long, env = "MARU_IMPORT_ALLOW", value_delimiter = ',')]
    pub import_allow: Vec<String>,
    /// File with policy overrides in the oslo.policy language (policy.yaml).
    #[arg(long, env = "MARU_POLICY")]
    pub policy: Option<PathBuf>,
    /// Certificate chain (PEM) to serve TLS with, instead of one from Maru's own CA.
    #[arg(long, env = "MARU_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, env = "MARU_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Address and port to serve /metrics at without a token (figures only, nothing of a tenant); off unless given. With a
    /// token of an administrator or a system reader, /metrics is on the APIs' address, too.
    #[arg(long, env = "MARU_METRICS")]
    pub metrics: Option<SocketAddr>,
    /// Run this many simulated nodes instead of the real one: no guest runs, everything else does. What they have is kept when this is
    /// stopped, and lost when it is killed.
    #[arg(long, env = "MARU_SIMULATE")]
    pub simulate: Option<u32>,
    /// Address at which other nodes reach this one and the volumes that it holds (TCP ports 10809 to 12808, TLS with a key for each
    /// attachment). Unless given, the address of --listen, or loopback if that is none of this machine's own.
    #[arg(long, env = "MARU_NODE_ADDRESS")]
    pub node_address: Option<std::net::IpAddr>,
    /// Address and port that machines join at and their agents connect to. Unless given, port 5001 of the address of --listen, and none
    /// if that is loopback: then no machine can join.
    #[arg(long, env = "MARU_JOIN_LISTEN")]
    pub join_listen: Option<SocketAddr>,
    /// Run this many nodes on this machine, each with namespaces and directories of its own, to try what takes several. Volumes cross
    /// between them, networks do not.
    #[arg(long, env = "MARU_AGENTS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=9), conflicts_with = "simulate")]
    pub agents: u32,
    /// Cost of the passwords' bcrypt hash, 4 to 31; Keystone's default is 12.
    #[arg(long, env = "MARU_BCRYPT_COST", default_value_t = 12, value_parser = clap::value_parser!(u32).range(4..=31))]
    pub bcrypt_cost: u32,
    /// What is demanded of passwords.
    #[command(flatten)]
    pub compliance: Compliance,
    /// What is logged: `info`, `debug`, or per part, such as `info,maru_qemu=debug`.
    #[arg(long, env = "MARU_LOG", default_value = "info")]
    pub log: String,
    /// Form of the log on standard error: `text` or `json`.
    #[arg(long, env = "MARU_LOG_FORMAT", default_value = "text", value_parser = ["text", "json"])]
    pub log_format: String,
}

/// What is demanded of passwords and log-ins; nothing unless given. Names and meaning are those of Keystone's
/// `[security_compliance]`.
#[derive(Args, Clone)]
pub struct Compliance {
    /// Wrong passwords in a row that lock a user out for --lockout-duration. Never, unless given. Users are exempt with their option
    /// ignore_lockout_failure_attempts.
    #[arg(long, env = "MARU_LOCKOUT_FAILURE_ATTEMPTS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub lockout_failure_attempts: Option<u32>,
    /// Seconds that a lock-out lasts.
    #[arg(long, env = "MARU_LOCKOUT_DURATION", default_value_t = 1800, value_parser = clap::value_parser!(u32).range(1..))]
    pub lockout_duration: u32,
    /// How many of a user's last passwords a new one must differ from, the present one included; 0 for none.
    #[arg(long, env = "MARU_UNIQUE_LAST_PASSWORD_COUNT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=24))]
    pub unique_last_password_count: u32,
    /// Days that a user keeps a password of its own choice before it may change it again.
    #[arg(long, env = "MARU_MINIMUM_PASSWORD_AGE", default_value_t = 0)]
    pub minimum_password_age: u32,
    /// Regular expression, as Python's, that every new password must match.
    #[arg(long, env = "MARU_PASSWORD_REGEX")]
    pub password_regex: Option<String>,
    /// What users are told of that expression, instead of the expression itself.
    #[arg(long, env = "MARU_PASSWORD_REGEX_DESCRIPTION", requires = "password_regex")]
    pub password_regex_description: Option<String>,
    /// Days after which a password must be changed. Never, unless given. Users are exempt with their option ignore_password_expiry.
    #[arg(long, env = "MARU_PASSWORD_EXPIRES_DAYS", value_parser = clap::value_parser!(u32).range(1..))]
    pub password_expires_days: Option<u32>,
    /// A password that an administrator sets must be changed before it gives a token.
    #[arg(long, env = "MARU_CHANGE_PASSWORD_UPON_FIRST_USE")]
    pub change_password_upon_first_use: bool,
    /// Days without a log-in after which a user counts as disabled. Never, unless given.
    #[arg(long, env = "MARU_DISABLE_USER_ACCOUNT_DAYS_INACTIVE", value_parser = clap::value_parser!(u32).range(1..))]
    pub disable_user_account_days_inactive: Option<u32>,
}

impl Compliance {
    /// As the identity service takes it.
    ///
    /// # Errors
    /// When the options do not go together, or the expression is none.
    pub fn settings(&self) -> anyhow::Result<maru_identity::Compliance> {
        if let Some(days) = self.password_expires_days
            && days <= self.minimum_password_age
        {
            anyhow::bail!(
                "--minimum-password-age {} must be less than --password-expires-days {days}: no password could be changed in time",
                self.minimum_password_age
            );
        }
        let regex = self
            .password_regex
            .as_ref()
            .map(|text| maru_identity::PasswordRegex::parse(text, self.password_regex_description.clone()))
            .transpose()
            .map_err(|e| anyhow::anyhow!("--password-regex: {e}"))?;
        Ok(maru_identity::Compliance {
            lockout_failure_attempts: self.lockout_failure_attempts,
            lockout_seconds: self.lockout_duration.into(),
            unique_last_password_count: usize::try_from(self.unique_last_password_count)?,
            minimum_password_age: self.minimum_password_age.into(),
            password_regex: regex,
            password_expires_days: self.password_expires_days.map(Into::into),
            change_password_upon_first_use: self.change_password_upon_first_use,
            disable_user_account_days_inactive: self.disable_user_account_days_inactive.map(Into::into),
        })
    }
    /// Each option with its value, as `maru status` shows them.
    #[must_use]
    pub fn shown(&self) -> Vec<(&'static str, String)> {
        fn days(n: Option<u32>) -> String {
            n.map_or_else(|| "never".to_owned(), |n| format!("{n} days"))
        }
        vec![
            (
                "lockout_failure_attempts",
                self.lockout_failure_attempts
                    .map_or_else(|| "never".to_owned(), |n| n.to_string()),
            ),
            ("lockout_duration", format!("{} s", self.lockout_duration)),
            (
                "unique_last_password_count",
                self.unique_last_password_count.to_string(),
            ),
            ("minimum_password_age", format!("{} days", self.minimum_password_age)),
            (
                "password_regex",
                self.password_regex.clone().unwrap_or_else(|| "none".to_owned()),
            ),
            ("password_expires_days", days(self.password_expires_days)),
            (
                "change_password_upon_first_use",
                self.change_password_upon_first_use.to_string(),
            ),
            (
                "disable_user_account_days_inactive",
                days(self.disable_user_account_days_inactive),
            ),
        ]
    }
}

impl Up {
    /// Address at which other nodes reach this one.
    #[must_use]
    pub fn node_address(&self) -> std::net::IpAddr {
        let listen = self.listen.ip();
        self.node_address.unwrap_or(if listen.is_unspecified() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            listen
        })
    }
    /// Where machines join, if they may.
    #[must_use]
    pub fn join_listen(&self) -> Option<SocketAddr> {
        let port = maru::joining::PORT;
        self.join_listen
            .or_else(|| (!self.listen.ip().is_loopback()).then(|| SocketAddr::new(self.listen.ip(), port)))
    }
}

/// Options of `maru token`.
#[derive(Args, Clone)]
pub struct Token {
    /// Where the data is.
    #[command(flatten)]
    pub data: Data,
    /// The only name that the machine may take. A node of that name that joined before may be made anew with this token.
    #[arg(long)]
    pub node: Option<String>,
    /// Hours after which the token lets nobody in any more.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8760))]
    pub hours: u32,
}

/// Options of `maru join`.
#[derive(Args, Clone)]
pub struct Join {
    /// What `maru token` printed on a control node. Not needed again once the machine has joined.
    #[arg(env = "MARU_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Address of a control node, with the port if it is not 5001.
    pub address: Option<String>,
    /// Where the data is.
    #[command(flatten)]
    pub data: Data,
    /// Name of this node; the host name unless given.
    #[arg(long, env = "MARU_NODE")]
    pub node: Option<String>,
    /// Prefix of everything that is made on the machine (namespaces, links).
    #[arg(long, env = "MARU_INSTANCE", default_value = "maru")]
    pub instance: String,
    /// Network device to join the external network to. Without it, floating IPs of routers here are reached from this host only.
    #[arg(long, env = "MARU_UPLINK")]
    pub uplink: Option<String>,
    /// Address at which other nodes reach this one; the one that it reaches the control plane from unless given.
    #[arg(long, env = "MARU_NODE_ADDRESS")]
    pub node_address: Option<std::net::IpAddr>,
    /// What is logged: `info`, `debug`, or per part, such as `info,maru_qemu=debug`.
    #[arg(long, env = "MARU_LOG", default_value = "info")]
    pub log: String,
    /// Form of the log on standard error: `text` or `json`.
    #[arg(long, env = "MARU_LOG_FORMAT", default_value = "text", value_parser = ["text", "json"])]
    pub log_format: String,
}

/// Options of `maru down`.
#[derive(Args, Clone)]
pub struct Down {
    /// Where the data is.
    #[command(flatten)]
    pub data: Data,
    /// Also stop the guests and remove every namespace and link of this cloud (disks and the store stay).
    #[arg(long)]
    pub guests: bool,
    /// Prefix of what this cloud made on the machine, as given to `up`.
    #[arg(long, env = "MARU_INSTANCE", default_value = "maru")]
    pub instance: String,
}

/// Options of `maru status`.
#[derive(Args, Clone)]
pub struct Status {
    /// Where the data is.
    #[command(flatten)]
    pub data: Data,
    /// Every node and every unknown thing, not only the first few and what is not well.
    #[arg(long)]
    pub all: bool,
}

/// Options of `maru install`.
#[derive(Args, Clone)]
pub struct Install {
    /// Where the data is.
    #[command(flatten)]
    pub data: Data,
    /// Directory for the unit file.
    #[arg(long, default_value = "/etc/systemd/system")]
    pub unit_dir: PathBuf,
    /// Further options for `maru up`, after `--`.
    #[arg(last = true)]
    pub up: Vec<String>,
}

/// Options of `maru backup`.
#[derive(Args, Clone)]
pub struct Backup {
    /// Where the data is.
    #[command(flatten)]
    pub data: Data,
    /// File to write; must not exist.
    pub file: PathBuf,
}

/// Options of `maru restore`.
#[derive(Args, Clone)]
pub struct Restore {
    /// Where the data is.
    #[command(flatten)]
    pub data: Data,
    /// Backup to put in place.
    pub file: PathBuf,
}

/// Options of `maru adopt` and `maru discard`.
#[derive(Args, Clone)]
pub struct Unknown {
    /// Where the data is.
    #[command(flatten)]
    pub data: Data,
    /// The node that it is on, if several have one.
    #[arg(long)]
    pub node: Option<String>,
    /// What it is.
    #[arg(value_parser = ["server", "disk", "volume", "volume-snapshot", "network", "router"])]
    pub what: String,
    /// Its id, as `maru status` lists it.
    pub id: String,
}

/// Options of `maru debug`.
#[derive(Args, Clone)]
pub struct Debug {
    /// What to look into.
    #[command(subcommand)]
    pub what: DebugWhat,
}

/// What `maru debug` can show.
#[derive(Subcommand, Clone)]
pub enum DebugWhat {
    /// Objects of the store as JSON lines; secrets are left out.
    Store {
        /// Where the data is.
        #[command(flatten)]
        data: Data,
        /// Only keys that begin so: `server/`.
        #[arg(default_value = "")]
        prefix: String,
    },
    /// What happened to a server, as JSON lines: each step with its request, its node and its times, also when it is gone.
    Story {
        /// Where the data is.
        #[command(flatten)]
        data: Data,
        /// The server's id.
        server: String,
    },
    /// Compare the mirror with the engine.
    Check {
        /// Where the data is.
        #[command(flatten)]
        data: Data,
    },
}

/// For each option of a subcommand: name and where its value came from.
#[must_use]
pub fn origins(matches: &clap::ArgMatches, subcommand: &str) -> Vec<(String, &'static str)> {
    let Some(sub) = matches.subcommand_matches(subcommand) else {
        return Vec::new();
    };
    sub.ids()
        .filter_map(|id| {
            let from = match sub.value_source(id.as_str())? {
                ValueSource::CommandLine => "command line",
                ValueSource::EnvVariable => "environment",
                _ => "default",
            };
            // Groups of options have an id as well; they start with a capital letter.
            (!id.as_str().starts_with(char::is_uppercase)).then(|| (id.as_str().to_owned(), from))
        })
        .collect()
}
