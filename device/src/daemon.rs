// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The process: its main thread waits for front ends, signals and commands; everything else has threads of its own.

mod error;
mod front_ends;
mod signals;

use std::{
    io::Write,
    num::NonZero,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use event_manager::{EventManager, MutEventSubscriber, SubscriberOps};

pub use self::error::DaemonError;
use self::{error::system, front_ends::FrontEnds, signals::Signals};
use crate::{
    config::{Args, Socket, Switch},
    control::ControlServer,
    device::Device,
    end::End,
    engine::{CopyRoutines, Engine},
    executor::Executors,
    inject::{Faults, read_script},
    logging::LogLevel,
    memory::DeviceMemory,
    readiness::Readiness,
    sandbox::{Remover, Sandbox, SandboxError},
    size::format_size,
    socket::{Access, BoundListener, bind, open},
    threads::WorkerTimes,
    trace::Trace,
};

/// How long the end may take before the process leaves without waiting for the rest.
const END_TIME: Duration = Duration::from_secs(2);
/// Threads that execute jobs, if there are so many processors and no option says otherwise.
const DEFAULT_EXECUTORS: usize = 4;

/// Serves front ends until a signal, or the only front end, ends it.
///
/// # Errors
/// What could not be set up.
pub fn run(args: &Args, socket: &Socket, level: LogLevel) -> Result<(), DaemonError> {
    let end = End::default();
    // Signals first: one that comes during set-up must not end the process halfway through a file.
    let signals = Signals::new(end.clone()).map_err(system("receive signals"))?;
    let faults = match args.no_faults {
        true => Faults::forbidden(),
        false => Faults::default(),
    };
    if let Some(path) = &args.fault_script {
        let count = read_script(path, &faults)?;
        tracing::warn!(count, "faults will be injected");
    }
    // Opened now, so that a path that cannot be written is reported before the device serves.
    let stats_file = match &args.stats_json {
        Some(path) => Some((std::fs::File::create(path).map_err(unwritable(path))?, path)),
        None => None,
    };
    let trace = match &args.trace {
        Some(path) => {
            let layout = args.shape().layout();
            let queues: Vec<String> = (0..layout.count())
                .map(|queue| layout.name(queue))
                .collect();
            std::fs::File::create(path)
                .and_then(|file| Trace::new(file, &queues))
                .map_err(unwritable(path))?
        }
        None => Trace::none(),
    };
    let mut memory = match (&args.memory_file, args.hugetlb) {
        (Some(path), _) => DeviceMemory::in_file(path, args.memory)?,
        (None, Some(page)) => DeviceMemory::huge(args.memory, page)?,
        (None, None) => DeviceMemory::anonymous(args.memory)?,
    };
    if args.prefault {
        memory.prefault()?;
    }
    let identity = memory.identity();
    let engine = Engine::new(
        memory,
        args.shape(),
        faults,
        CopyRoutines::new(args.copy),
        args.link,
    );
    // Now, while the limits of a control group can be read: with one processor, to look for work is to keep others from
    // making it.
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let worker_times = WorkerTimes {
        poll: Duration::from_micros(if processors > 1 { args.poll_us } else { 0 }),
        set: Duration::from_micros(args.completion_us),
    };
    let device = Arc::new(
        Device::new(engine, args.queue_size, worker_times, trace)
            .map_err(system("make the queues' descriptors"))?,
    );
    if args.keep_contents {
        device.keep_contents();
    }

    let mut opened = open(socket)?;
    let mut control = match &args.control_socket {
        Some(path) => {
            let access = Access {
                mode: args.control_socket_mode,
                group: args.control_socket_group.as_deref(),
            };
            Some(bind(path, &access)?)
        }
        None => None,
    };
    let readiness = Readiness::connect();
    let sandbox = Sandbox {
        seccomp: args.seccomp,
        landlock: args.landlock == Switch::On,
    };
    let remover = if sandbox.confines() {
        start_remover(opened.listener().into_iter().chain(&mut control))?
    } else {
        None
    };
    sandbox.close_paths()?;

    let mut manager: EventManager<Box<dyn MutEventSubscriber>> =
        EventManager::new().map_err(DaemonError::EventLoop)?;
    let name = opened.name().to_owned();
    // From here on there are threads.
    let (listener, once) = opened.listen()?;
    let front_ends = FrontEnds::new(
        Arc::clone(&device),
        listener,
        once || args.exit_on_disconnect,
        end.clone(),
    )
    .map_err(system("make descriptors for front ends"))?;
    let connection = front_ends.connection();
    let executors = match args.job_queues {
        0 => 0,
        _ => args
            .executors
            .map_or(processors.min(DEFAULT_EXECUTORS), usize::from),
    };
    let executors =
        Executors::start(&device, executors).map_err(system("start the threads of jobs"))?;
    if let Some(listener) = control {
        let server = ControlServer::new(listener, Arc::clone(&device), level)
            .map_err(system("use the control socket"))?;
        manager.add_subscriber(Box::new(server));
    }
    manager.add_subscriber(Box::new(signals));
    manager.add_subscriber(Box::new(front_ends));
    sandbox.close_system_calls()?;

    if !device.engine().copies().moves() {
        tracing::warn!(
            "--copy none: batches succeed and no byte is moved; this is for measuring only"
        );
    }
    tracing::info!(
        memory = format_size(args.memory),
        uuid = %identity.uuid,
        generation = identity.generation,
        bulk_queues = args.bulk_queues,
        job_queues = args.job_queues,
        copies = device.engine().copies().summary(),
        backing = ?device.engine().memory().backing(),
        "ready"
    );
    // The output may be closed already; that is no reason not to serve.
    let _ = writeln!(std::io::stdout(), "listening on {name}");
    if let Err(error) = readiness.and_then(Readiness::tell) {
        tracing::warn!(%error, "systemd could not be told that the process is ready");
    }
    while !end.is_wanted() {
        manager.run().map_err(DaemonError::EventLoop)?;
    }

    // It is this process that goes, and not the front end: a memory file keeps what is in it.
    device.keep_contents();
    let until = Instant::now() + END_TIME;
    let ended = connection.end(until);
    // Sessions are closed, and with them jobs: no executor touches memory any more.
    drop(executors);
    device
        .trace()
        .finish()
        .map_err(system("write the end of the trace"))?;
    if let Some((mut file, path)) = stats_file {
        serde_json::to_writer_pretty(&mut file, &device.snapshot())
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(file))
            .map_err(unwritable(path))?;
    }
    // A worker that still copies may change the contents after they are recorded as whole.
    if ended {
        device.engine().memory().close()?;
    }
    tracing::info!("end");
    // Dropping the manager removes the sockets; a connection that did not end in time ends with the process.
    drop(manager);
    drop(remover);
    Ok(())
}

/// An error of the file at `path`.
fn unwritable(path: &Path) -> impl FnOnce(std::io::Error) -> DaemonError {
    move |source| DaemonError::Write {
        path: path.to_owned(),
        source,
    }
}

/// Starts the process that removes the sockets of these listeners, if they have any.
fn start_remover<'a>(
    listeners: impl Iterator<Item = &'a mut BoundListener>,
) -> Result<Option<Remover>, SandboxError> {
    let mut listeners: Vec<_> = listeners.collect();
    let paths: Vec<_> = listeners
        .iter()
        .filter_map(|listener| listener.path())
        .collect();
    if paths.is_empty() {
        return Ok(None);
    }
    let remover = Remover::start(&paths)?;
    for listener in &mut listeners {
        listener.keep_path();
    }
    Ok(Some(remover))
}
