//! `sysbox-runc`: an OCI runtime that makes system containers, with runc's command line.
//!
//! Everything is done by the public API of `sysbox-core`; this is its command line, and its own stage: small, static and with
//! one thread, it forks it.

mod args;
mod check;
mod documents;
mod events;
mod foreground;
mod lifecycle;
mod list;
mod log;
mod nodes;
mod terminal;

use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;
use sysbox_core::cgroup::Manager;
use sysbox_core::runtime::StageProgram;
use sysbox_core::Runtime;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are no errors; all else is 1, as with runc.
            let code = u8::from(e.use_stderr());
            let _ = e.print();
            if e.use_stderr() {
                let text = e.to_string();
                let first = text.lines().next().unwrap_or_default();
                log::Log::asked_for(std::env::args_os().skip(1)).record(first.strip_prefix("error: ").unwrap_or(first));
            }
            return ExitCode::from(code);
        }
    };
    let log = log::Log::new(cli.global.log.clone(), cli.global.log_format == args::LogFormat::Json);
    match run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            log.error(&e.to_string());
            ExitCode::from(lifecycle::failure_code(&e))
        }
    }
}

fn run(cli: Cli) -> sysbox_core::Result<u8> {
    let cgroups = if cli.global.systemd_cgroup { Manager::Systemd } else { Manager::Direct };
    let runtime = Runtime::new(&cli.global.root).stage(StageProgram::Fork).cgroups(cgroups);
    match cli.command {
        Command::Create(a) => lifecycle::create(&runtime, &a),
        Command::Start { id } => lifecycle::start(&runtime, &id),
        Command::Run(a) => lifecycle::run(&runtime, &a),
        Command::Exec(a) => lifecycle::exec(&runtime, &a),
        Command::Kill { id, signal, all } => lifecycle::kill(&runtime, &id, &signal, all),
        Command::Delete { id, force } => lifecycle::delete(&runtime, &id, force),
        Command::Pause { id } => runtime.open(&id)?.pause().map(|()| 0),
        Command::Resume { id } => runtime.open(&id)?.resume().map(|()| 0),
        Command::Events { id, interval, stats } => events::events(&runtime, &id, interval, stats),
        Command::Update { id, resources } => lifecycle::update(&runtime, &id, &resources),
        Command::State { id } => list::state(&runtime, &id),
        Command::List { format, quiet } => list::list(&runtime, format, quiet),
        Command::Ps { id, format, args } => list::ps(&runtime, &id, format, &args),
        Command::Spec { bundle } => documents::spec(&bundle),
        Command::Features => documents::features(),
        Command::Plan { bundle, id, json } => documents::plan(&runtime, &bundle, &id, json),
        Command::Nodes { id, format, repair } => nodes::nodes(&runtime, &id, format, repair),
        Command::Check => check::check(),
    }
}
