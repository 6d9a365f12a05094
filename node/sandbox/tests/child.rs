//! The sandbox's promises, tried from inside: each hostile parser of `sandbox_probe` attempts one thing that must fail.
//!
//! This test has its own `main` (`harness = false`): it is parent and child in one, as `maru` is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use maru_sandbox::{Parser, ReadSeek, run};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

fn sum(file: &mut dyn ReadSeek, args: Value) -> Result<Value, String> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    Ok(json!({ "sum": bytes.iter().map(|b| u64::from(*b)).sum::<u64>(), "args": args }))
}
fn refuse(_: &mut dyn ReadSeek, _: Value) -> Result<Value, String> {
    Err("this is no image: it starts with 'x'".into())
}
fn open_path(_: &mut dyn ReadSeek, _: Value) -> Result<Value, String> {
    Ok(json!(
        std::fs::read("/etc/passwd")
            .map(|b| b.len())
            .map_err(|e| e.to_string())?
    ))
}
fn socket(_: &mut dyn ReadSeek, _: Value) -> Result<Value, String> {
    Ok(json!(std::net::TcpStream::connect("127.0.0.1:1").is_ok()))
}
fn start(_: &mut dyn ReadSeek, _: Value) -> Result<Value, String> {
    Ok(json!(std::process::Command::new("/bin/true").status().is_ok()))
}
fn write_file(_: &mut dyn ReadSeek, _: Value) -> Result<Value, String> {
    // Fd 0 is the file: even were it writable, seccomp lets only 1 and 2 be written.
    Ok(json!(rustix::io::write(std::io::stdin(), b"x").is_ok()))
}
fn eat(_: &mut dyn ReadSeek, _: Value) -> Result<Value, String> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for _ in 0..64 {
        all.push(vec![1; 16 << 20]);
    }
    Ok(json!(all.len()))
}
fn spin(_: &mut dyn ReadSeek, _: Value) -> Result<Value, String> {
    let mut x = 1_u64;
    loop {
        x = std::hint::black_box(x.wrapping_mul(3));
    }
}
fn flood(_: &mut dyn ReadSeek, _: Value) -> Result<Value, String> {
    let mut out = std::io::stdout().lock();
    loop {
        if out.write_all(&[b' '; 65536]).is_err() {
            return Ok(Value::Null);
        }
    }
}
fn panics(_: &mut dyn ReadSeek, _: Value) -> Result<Value, String> {
    let none: Option<u8> = std::env::args().nth(99).map(|_| 1);
    Ok(json!(none.unwrap()))
}

const TABLE: &[(&str, Parser)] = &[
    ("sum", sum),
    ("refuse", refuse),
    ("open_path", open_path),
    ("socket", socket),
    ("start", start),
    ("write_file", write_file),
    ("eat", eat),
    ("spin", spin),
    ("flood", flood),
    ("panics", panics),
];

fn main() {
    if maru_sandbox::is_child() {
        maru_sandbox::child_main(TABLE);
    }
    // A runner that asks for the list of tests gets one name.
    if std::env::args_os().any(|a| a.as_bytes() == b"--list") {
        if !std::env::args_os().any(|a| a.as_bytes() == b"--ignored") {
            println!("the_sandbox_keeps_its_promises: test");
        }
        return;
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(promises());
}

fn file(bytes: &[u8]) -> std::fs::File {
    let mut named = tempfile::NamedTempFile::new().unwrap();
    named.write_all(bytes).unwrap();
    named.reopen().unwrap()
}

async fn promises() {
    let begun = std::time::Instant::now();
    let answer = run("sum", file(&[1, 2, 3]), json!({"a": "b"})).await.unwrap();
    println!("a sandboxed parse takes {:?}", begun.elapsed());
    assert_eq!(answer, json!({"sum": 6, "args": {"a": "b"}}));

    let layers = maru_sandbox::layers().await.unwrap();
    println!("layers: {layers}");
    assert!(layers.process && layers.limits && layers.no_new_privs && layers.seccomp);

    let refused = run("refuse", file(b"x"), Value::Null).await.unwrap_err();
    assert_eq!(refused.message(), "this is no image: it starts with 'x'");
    assert_eq!(refused.kind().status(), 400);
    assert!(
        run("nothing", file(b"x"), Value::Null)
            .await
            .unwrap_err()
            .message()
            .contains("no parser")
    );

    for hostile in ["open_path", "socket", "start", "write_file"] {
        let e = run(hostile, file(b"x"), Value::Null).await.unwrap_err();
        assert!(e.message().contains("forbidden system call"), "{hostile}: {e}");
    }
    for broken in ["eat", "flood", "panics"] {
        let e = run(broken, file(b"x"), Value::Null).await.unwrap_err();
        assert!(e.message().contains("the file was refused"), "{broken}: {e}");
    }
    let begun = std::time::Instant::now();
    let e = run("spin", file(b"x"), Value::Null).await.unwrap_err();
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(12),
        "{:?}",
        begun.elapsed()
    );
    println!("an endless parser ends after {:?}: {e}", begun.elapsed());
    println!("the_sandbox_keeps_its_promises: ok");
}
