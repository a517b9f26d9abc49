// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The process that does what the host asks for.

use std::fs::{self, File};
use std::io::BufReader;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, Result, bail};
use hmm_control::plan::{self, Plan};
use hmm_control::{Hello, Load, Report, Request, line, port};
use rustix::system::{RebootCommand, reboot};

use crate::command::Runner;
use crate::input::InputPort;
use crate::output::OutputPort;
use crate::{cases, host, host_root, modules, oom, ports, slots};

/// Serves until the host powers the guest off.
pub(crate) fn run() -> Result<()> {
    oom::spare().context("cannot spare this process when memory runs out")?;
    let events = ports::open(port::EVENTS)?;
    tracing_subscriber::fmt()
        .json()
        .with_writer(Mutex::new(events))
        .init();
    let control = ports::open(port::CONTROL)?;
    host::connect(
        control
            .try_clone()
            .context("cannot clone the control port")?,
    )?;
    let runner = Arc::new(Runner::new(
        InputPort::new(ports::open(port::STDIN)?)?,
        OutputPort::new(ports::open(port::STDOUT)?),
        OutputPort::new(ports::open(port::STDERR)?),
    ));
    let ktap = OutputPort::new(ports::open(port::KTAP)?);
    let hello = prepare()?;
    tracing::info!("ready: {hello:?}");
    host::report(&Report::Hello(hello))?;
    obey(control, &runner, &ktap)
}

/// Does what the plan in the image says.
fn prepare() -> Result<Hello> {
    let text = fs::read(plan::PATH).with_context(|| format!("cannot read {}", plan::PATH))?;
    let plan: Plan = serde_json::from_slice(&text)
        .with_context(|| format!("cannot understand {}", plan::PATH))?;
    if plan.version != hmm_control::VERSION {
        bail!(
            "the image was made for version {} and its init speaks version {}",
            plan.version,
            hmm_control::VERSION
        );
    }
    for module in &plan.helper_modules {
        if let Err(error) = modules::load(module, "") {
            tracing::warn!("{error:#}");
        }
    }
    let host_root = plan
        .host_root
        .as_deref()
        .map(host_root::mount_all)
        .transpose()?;
    let module = modules::load_driver(plan.driver.as_ref());
    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    Ok(Hello {
        version: hmm_control::VERSION,
        kernel,
        module,
        devices: modules::nodes()?,
        host_root,
    })
}

/// Follows the host's requests. What takes long has a thread of its own, so that signals and answers get through.
fn obey(control: File, runner: &Arc<Runner>, ktap: &OutputPort) -> Result<()> {
    let mut requests = BufReader::new(control);
    while let Some(request) = line::read::<Request>(&mut requests)? {
        match request {
            Request::Exec(exec) => {
                tracing::info!("exec {:?}", exec.argv);
                let runner = Arc::clone(runner);
                in_background("command", move || runner.run(exec))?;
            }
            Request::Cases { filter, load } => {
                let ktap = ktap.clone();
                in_background("cases", move || run_cases(&filter, &load, ktap))?;
            }
            Request::InputEnd { total } => runner.stdin.end_at(total),
            Request::CloseOutput { stream } => runner.close_output(stream),
            Request::Signal { number } => runner.signal(number),
            Request::Resize(size) => runner.resize(size),
            Request::Answer { id, answer } => host::answered(id, answer)?,
            Request::PowerOffSlot { number } => slots::power_off(number)?,
            Request::Poweroff => {
                rustix::fs::sync();
                reboot(RebootCommand::PowerOff).context("cannot power off")?;
            }
        }
    }
    bail!("the host closed the control port")
}

fn in_background(name: &str, work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            if let Err(error) = work() {
                // The host waits for an answer that will not come: it has to see that this guest is broken.
                eprintln!("hmm-agent: {error:#}");
                std::process::exit(1);
            }
        })
        .context("cannot start a thread")?;
    Ok(())
}

fn run_cases(filter: &[String], load: &Load, mut ktap: OutputPort) -> Result<()> {
    let result = catch_unwind(AssertUnwindSafe(|| cases::run(filter, load, &mut ktap)));
    let error = match result {
        Ok(Ok(summary)) => {
            tracing::info!("cases: {summary:?}");
            None
        }
        Ok(Err(error)) => Some(format!("{error}")),
        Err(_) => Some("the runner panicked; the console says where".to_owned()),
    };
    host::report(&Report::CasesEnded {
        ktap_total: ktap.total(),
        error,
    })
}
