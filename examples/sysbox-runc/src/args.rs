//! The command line: runc's, and two commands of our own.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0");

/// Makes system containers: containers that run Docker, systemd or Kubernetes inside, unprivileged outside.
#[derive(Debug, Parser)]
#[command(name = "sysbox-runc", version = VERSION)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Where the state of containers is kept
    #[arg(long, default_value = "/run/sysbox-runc", global = true)]
    pub(crate) root: PathBuf,
    /// File that gets error messages, besides standard error
    #[arg(long, global = true)]
    pub(crate) log: Option<PathBuf>,
    /// Format of the log file
    #[arg(long, value_enum, default_value = "text", global = true)]
    pub(crate) log_format: LogFormat,
    /// Let systemd make the control groups; linux.cgroupsPath is then slice:prefix:name
    #[arg(long, global = true)]
    pub(crate) systemd_cgroup: bool,
    /// Accepted for runc's callers
    #[arg(long, global = true, hide = true)]
    pub(crate) debug: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a container; its program waits for `start`
    Create(CreateArgs),
    /// Let the program of a created container run
    Start { id: String },
    /// Make a container, run its program, take the container away
    Run(CreateArgs),
    /// Run another program in a container
    Exec(ExecArgs),
    /// Send a signal to a container's init (SIGTERM if none is given)
    Kill {
        id: String,
        #[arg(default_value = "SIGTERM")]
        signal: String,
        /// To all processes
        #[arg(long, short)]
        all: bool,
    },
    /// List a container's processes
    Ps {
        id: String,
        #[arg(long, short, value_enum, default_value = "table")]
        format: Format,
        /// Options for ps(1)
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Freeze a container
    Pause { id: String },
    /// Let a frozen container go on
    Resume { id: String },
    /// Take a container away
    Delete {
        id: String,
        /// Kill it if it runs; no error if it does not exist
        #[arg(long, short)]
        force: bool,
    },
    /// Print a container's state
    State { id: String },
    /// List containers
    List {
        #[arg(long, short, value_enum, default_value = "table")]
        format: Format,
        /// Names only
        #[arg(long, short)]
        quiet: bool,
    },
    /// Tell what a container uses, and when it runs out of memory, until it ends
    Events {
        id: String,
        /// Between two reports of what it uses
        #[arg(long, default_value = "5s", value_parser = crate::events::parse_duration)]
        interval: std::time::Duration,
        /// Once, and no more
        #[arg(long)]
        stats: bool,
    },
    /// Change a container's limits
    Update {
        id: String,
        /// File with the `linux.resources` to apply, `-` for standard input
        #[arg(long, short)]
        resources: PathBuf,
    },
    /// Write config.json of a system container
    Spec {
        #[arg(long, short, default_value = ".")]
        bundle: PathBuf,
    },
    /// Print what this runtime supports, as the OCI specification has it
    Features,
    /// Show what would be done for a bundle, without doing it
    Plan {
        #[arg(long, short, default_value = ".")]
        bundle: PathBuf,
        #[arg(default_value = "example")]
        id: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// List a container's own files in /proc and /sys: what they are, what they hold, where that comes from
    Nodes {
        id: String,
        #[arg(long, short, value_enum, default_value = "table")]
        format: Format,
        /// Put another monitor in the place of one that is stuck or dead, first
        #[arg(long)]
        repair: bool,
    },
    /// Find out what this host offers
    Check,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    pub(crate) id: String,
    #[arg(long, short, default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// File that gets init's pid
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// Unix socket that gets the terminal
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
    /// Pass that many descriptors from 3 on
    #[arg(long, default_value_t = 0)]
    pub(crate) preserve_fds: u16,
    /// (run) Return when the program runs
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// (run) Leave the container there when the program has ended
    #[arg(long)]
    pub(crate) keep: bool,
    /// Accepted for runc's callers: the root is always pivoted to
    #[arg(long, hide = true)]
    pub(crate) no_pivot: bool,
    /// Accepted for runc's callers: a session keyring is always made
    #[arg(long, hide = true)]
    pub(crate) no_new_keyring: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    pub(crate) id: String,
    /// Program and arguments, unless --process is given
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
    /// File with the OCI process to run
    #[arg(long, short)]
    pub(crate) process: Option<PathBuf>,
    /// On a terminal
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// User as `UID[:GID]`
    #[arg(long, short)]
    pub(crate) user: Option<String>,
    /// Additional group
    #[arg(long, short = 'g')]
    pub(crate) additional_gids: Vec<u32>,
    /// NAME=value
    #[arg(long, short)]
    pub(crate) env: Vec<String>,
    /// Working directory
    #[arg(long)]
    pub(crate) cwd: Option<PathBuf>,
    /// Return when the program runs
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// File that gets its pid
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// Unix socket that gets the terminal
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
    /// Pass that many descriptors from 3 on
    #[arg(long, default_value_t = 0)]
    pub(crate) preserve_fds: u16,
    /// Set no_new_privs
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// Accepted for runc's callers: root has every capability already
    #[arg(long, short, hide = true)]
    pub(crate) cap: Vec<String>,
}
