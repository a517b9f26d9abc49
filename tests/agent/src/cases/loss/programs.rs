// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Unmodified programs of others whose heaps are moved to the device again and again, and whose device is killed every two
//! seconds meanwhile. They give the right output, and end in order.

use super::trial::{Trial, counter, wait_for_more};
use crate::cases::support::depth;
use crate::cases::support::pattern;
use crate::cases::support::prelude::*;
use hmm_control::{Again, Comeback, plan};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    Case::new("restart/python3-anon", python).within(400),
    Case::new("restart/redis-anon", redis).within(400),
];

/// How often the process is killed for every change; a deeper run does more.
const KILLS: u32 = 3;
/// How long the device works between its return and the next kill.
const REST: Duration = Duration::from_secs(2);
/// What is to be on the device when it is killed, bytes.
const RESIDENT: u64 = 256 << 10;
/// How often a case looks whether something has happened.
const LOOK: Duration = Duration::from_millis(5);

/// A program whose memory is on the move, by `hmmctl run`. It is killed if the case forgets it.
struct Moving(Process);

impl Moving {
    fn start(program: &[&str], output: Stdio) -> Result<Self> {
        let process = Command::new(Path::new(plan::PROGRAMS).join("hmmctl"))
            .args(["run", "--quiet", "--policy", "stress", "--"])
            .args(program)
            .stdin(Stdio::null())
            .stdout(output)
            .spawn()
            .with_context(|| format!("cannot run {program:?}"))?;
        Ok(Self(process))
    }

    fn expect_running(&mut self) -> Result<()> {
        match self.0.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the program has ended: {status}"),
        }
    }

    fn end(mut self) -> Result<ExitStatus> {
        Ok(self.0.wait()?)
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        // It may have ended in order.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Kills the device again and again while the program has memory on it.
fn kill_below(program: &mut Moving, trial: &Trial) -> Result<()> {
    for _ in 0..depth::rounds(KILLS)? {
        std::thread::sleep(REST);
        while trial.mover.resident()? < RESIDENT {
            program.expect_running()?;
            std::thread::sleep(LOOK);
        }
        let losses = counter("losses")?;
        trial.kill(Comeback::Same)?;
        wait_for_more("losses", losses)?;
        trial.come_back()?;
        program.expect_running()?;
    }
    Ok(())
}

/// The program works in rounds until it is told to stop. The same number of rounds gives the same without a device.
fn python() -> Result<()> {
    const STOP: &str = "/tmp/python3-stop";
    const PYTHON: [&str; 4] = ["python3", "-I", "-S", "/programs/table.py"];
    let _ = fs::remove_file(STOP);
    let trial = Trial::of_killed(Again::No)?;
    let [program, isolated, alone, script] = PYTHON;
    let mut moving = Moving::start(
        &[program, isolated, alone, script, STOP, "0"],
        Stdio::piped(),
    )?;
    let mut output = moving.0.stdout.take().context("there is no output")?;
    kill_below(&mut moving, &trial)?;
    File::create(STOP)?;
    let mut told = String::new();
    output.read_to_string(&mut told)?;
    let status = moving.end()?;
    ensure!(status.success(), "{status}");
    let rounds = told.split(' ').next().unwrap_or_default();
    let plain = Command::new(program)
        .args([isolated, alone, script, STOP, rounds])
        .stdin(Stdio::null())
        .output()
        .context("cannot run the program plainly")?;
    fs::remove_file(STOP)?;
    ensure!(plain.status.success(), "plainly: {}", plain.status);
    let expected = String::from_utf8_lossy(&plain.stdout);
    ensure!(
        told == expected,
        "{told:?} with the device, {expected:?} without"
    );
    eprintln!("{} kills in {rounds} rounds", counter("losses")?);
    trial.mover.wait_for_resident(0)
}

/// A client of redis.
struct Client(BufReader<UnixStream>);

impl Client {
    const SOCKET: &str = "/tmp/redis-socket";
    const KEYS: u64 = 1_000;
    const BYTES: usize = 600;

    fn send(&mut self, words: &[&[u8]]) -> Result<()> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            write!(request, "${}\r\n", word.len())?;
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        Ok(self.0.get_mut().write_all(&request)?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(line)
    }

    fn value(&mut self) -> Result<Vec<u8>> {
        let line = self.line()?;
        let length = line
            .strip_prefix('$')
            .and_then(|text| text.trim_end().parse().ok());
        let length: usize = length.with_context(|| format!("expected a value, found {line:?}"))?;
        ensure!(length == Self::BYTES, "a value of {length} bytes");
        let mut bytes = vec![0; length + 2];
        self.0.read_exact(&mut bytes)?;
        bytes.truncate(length);
        Ok(bytes)
    }

    fn value_of(key: u64, seed: u64) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        pattern::fill(&mut page, key as usize, seed);
        page.truncate(Self::BYTES);
        page
    }

    /// Sets all keys, and gets them, until it is told to stop.
    fn work(&mut self, stop: &AtomicBool) -> Result<u64> {
        let mut round = 0;
        while !stop.load(Ordering::Relaxed) {
            round += 1;
            for key in 0..Self::KEYS {
                let value = Self::value_of(key, round);
                self.send(&[b"SET", key.to_string().as_bytes(), &value])?;
                let line = self.line()?;
                ensure!(line == "+OK\r\n", "SET {key}: {line:?}");
            }
            for key in 0..Self::KEYS {
                self.send(&[b"GET", key.to_string().as_bytes()])?;
                let found = self.value()?;
                ensure!(
                    found == Self::value_of(key, round),
                    "key {key} has another value than it got in round {round}"
                );
            }
        }
        self.send(&[b"DBSIZE"])?;
        let line = self.line()?;
        ensure!(line == format!(":{}\r\n", Self::KEYS), "DBSIZE: {line:?}");
        Ok(round)
    }
}

fn redis() -> Result<()> {
    let _ = fs::remove_file(Client::SOCKET);
    let trial = Trial::of_killed(Again::No)?;
    let mut server = Moving::start(
        &[
            "redis-server",
            "--port",
            "0",
            "--unixsocket",
            Client::SOCKET,
            "--save",
            "",
            "--appendonly",
            "no",
        ],
        Stdio::null(),
    )?;
    let stream = loop {
        match UnixStream::connect(Client::SOCKET) {
            Ok(stream) => break stream,
            Err(_) => server.expect_running()?,
        }
        std::thread::sleep(LOOK);
    };
    let mut client = Client(BufReader::new(stream));
    let stop = AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| -> Result<u64> {
        let working = scope.spawn(|| client.work(&stop));
        let killed = kill_below(&mut server, &trial);
        stop.store(true, Ordering::Relaxed);
        match working.join() {
            Ok(rounds) => killed.and(rounds),
            Err(_) => bail!("the client panicked"),
        }
    })?;
    client.send(&[b"SHUTDOWN", b"NOSAVE"])?;
    let status = server.end()?;
    ensure!(status.success(), "{status}");
    eprintln!("{} kills in {rounds} rounds", counter("losses")?);
    trial.mover.wait_for_resident(0)
}
