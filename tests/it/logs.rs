//! The log as a stream that somebody else reads, or does not.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::support::{DEADLINE, Upstream, get};

/// Asks for a path, and waits for the `ok` of [`Upstream::ok`].
fn ask(stream: &mut TcpStream, path: &str) {
    stream.write_all(get(path).as_bytes()).unwrap();
    let (mut seen, mut octets) = (Vec::new(), [0; 4096]);
    while !seen.ends_with(b"ok") {
        let count = stream.read(&mut octets).expect("an answer");
        assert!(count > 0, "closed");
        seen.extend_from_slice(&octets[..count]);
    }
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_worker() {
    let upstream = Upstream::ok();
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_anthropic-proxy"))
        .env_clear()
        .env("PORT", "0")
        .env("WORKERS", "2")
        .env("API_BASE_URL", upstream.url())
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening on http://") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended");
    }
    let address = line.trim().rsplit("http://").next().unwrap().to_owned();
    let open = || {
        let stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    };
    let asked = thread::scope(|scope| {
        scope
            .spawn(|| {
                // the lines of one worker fill the pipe, of 64 KiB, while the other has said nothing
                let mut talker = open();
                let path = format!("/{}", "x".repeat(8000));
                for _ in 0..40 {
                    ask(&mut talker, &path);
                }
                thread::sleep(Duration::from_millis(100));
                // connections go to the workers in turn; a worker's first line comes after its answer
                let mut others = [open(), open()];
                for _ in 0..2 {
                    for stream in &mut others {
                        ask(stream, "/y");
                    }
                }
            })
            .join()
    });
    child.kill().unwrap();
    child.wait().unwrap();
    asked.unwrap();
}
