//! The component in wasmtime: the same bytes as natively, errors instead of traps, and plugins that cannot harm each other.

mod hostile;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Result, bail};
use kachet_tests::setup::or_skip;
use kachet_wasm_tests::{
    HostState, Limits, Plugin, Range, Runtime, Settings, TopicId, Upstream, component_path, refill, settings,
};
use wasmtime::component::{Component, Linker};
use wasmtime::{Trap, component};

/// A runtime and the component, which takes a second to compile.
fn set_up() -> Option<&'static (Runtime, Component)> {
    static MADE: OnceLock<Option<(Runtime, Component)>> = OnceLock::new();
    MADE.get_or_init(|| {
        let path = or_skip(component_path())?;
        let made = || -> Result<_> {
            let runtime = Runtime::new()?;
            let component = runtime.compile(fs::read(path)?)?;
            Ok((runtime, component))
        };
        Some(made().unwrap())
    })
    .as_ref()
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A fixture with the header of a request or a response in front; both repeat a correlation id of 7.
fn frame(name: &str, kind: &str) -> Vec<u8> {
    let version: i16 = name[1..3].parse().unwrap();
    let mut frame = Vec::new();
    if kind == "request" {
        frame.extend(1_i16.to_be_bytes());
        frame.extend(version.to_be_bytes());
        frame.extend(7_i32.to_be_bytes());
        frame.extend(4_i16.to_be_bytes());
        frame.extend(b"test");
    } else {
        frame.extend(7_i32.to_be_bytes());
    }
    if version >= 12 {
        frame.push(0);
    }
    let file = workspace().join(format!("core/tests/fixtures/{name}.{kind}"));
    frame.extend(fs::read(file).unwrap());
    frame
}

const NAME: &str = "v13-codecs";

/// The topic of the fixture, which stands behind 25 bytes of its request and the count of topics.
fn topic() -> TopicId {
    let body = &frame(NAME, "request")[15..];
    let half = |at: usize| u64::from_be_bytes(body[at..at + 8].try_into().unwrap());
    TopicId {
        high: half(26),
        low: half(34),
    }
}

/// Answers everything with the fixture, and counts.
fn counting() -> (Upstream, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let upstream = move |request: Vec<u8>| {
        counted.fetch_add(1, Ordering::Relaxed);
        let mut response = frame(NAME, "response");
        // The correlation id of whoever asks.
        response[..4].copy_from_slice(&request[4..8]);
        Ok(response)
    };
    (Box::new(upstream), count)
}

fn plugin(runtime: &Runtime, component: &Component) -> Plugin {
    let (upstream, _) = counting();
    runtime
        .plugin(component, Limits::default(), &settings(1 << 20), upstream)
        .unwrap()
}

#[test]
fn fixtures_give_the_same_bytes_as_natively() -> Result<()> {
    let Some((runtime, component)) = set_up() else {
        return Ok(());
    };
    let written = fs::read_to_string(workspace().join("host-wasm/tests/answers.txt"))?;
    let mut lines = 0;
    for line in written.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [
            name,
            "asks",
            first,
            "then",
            what,
            second,
            "keeps",
            batches,
            "snapshot",
            length,
        ] = words[..]
        else {
            bail!("a line of another form: {line}");
        };
        let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (seen, fixture) = (Arc::clone(&asked), name.to_owned());
        let mut failing = false;
        let upstream = move |request: Vec<u8>| {
            seen.lock()
                .unwrap()
                .push(format!("{:08x}", crc32fast::hash(&request)));
            if std::mem::replace(&mut failing, true) {
                bail!("asked a second time");
            }
            Ok(frame(&fixture, "response"))
        };
        let mut plugin = runtime.plugin(
            component,
            Limits::default(),
            &settings(16 << 20),
            Box::new(upstream),
        )?;
        let request = frame(name, "request");
        assert_eq!(
            plugin.fetch(&request)?.unwrap(),
            frame(name, "response"),
            "{name}"
        );
        match (what, plugin.fetch(&request)?) {
            ("cached", Ok(answer)) => {
                assert_eq!(format!("{:08x}", crc32fast::hash(&answer)), second, "{name}");
            }
            ("asks", Err(error)) => {
                assert_eq!(error.code, "UPSTREAM", "{name}");
                assert_eq!(asked.lock().unwrap()[1], second, "{name}");
            }
            (_, other) => bail!("{line}: {other:?}"),
        }
        assert_eq!(asked.lock().unwrap()[0], first, "{name}");
        assert_eq!(plugin.figure("batches")?.to_string(), batches, "{name}");
        assert_eq!(plugin.snapshot()?.unwrap().len().to_string(), length, "{name}");
        lines += 1;
    }
    assert_eq!(lines, 104);
    Ok(())
}

#[test]
fn records_are_read_through_the_cache() -> Result<()> {
    let Some((runtime, component)) = set_up() else {
        return Ok(());
    };
    let (upstream, count) = counting();
    let mut plugin = runtime.plugin(component, Limits::default(), &settings(1 << 20), upstream)?;
    let range = Range {
        topic: topic(),
        partition: 0,
        offset: 0,
        count_limit: 1000,
        size_limit_bytes: 1 << 20,
        committed: false,
    };
    let first = plugin.records(range)?.unwrap();
    let again = plugin.records(range)?.unwrap();
    assert!(first.records.len() >= 6);
    assert_eq!(format!("{first:?}"), format!("{again:?}"));
    assert_eq!(count.load(Ordering::Relaxed), 1);
    for expected in &first.records {
        let record = plugin.record(topic(), 0, expected.offset)?.unwrap().unwrap();
        assert_eq!(format!("{record:?}"), format!("{expected:?}"));
    }
    assert!(String::from_utf8_lossy(first.records[0].value.as_deref().unwrap()).starts_with("value-"));
    let batch = plugin.batch(topic(), 0, 0)?.unwrap();
    let response = frame(NAME, "response");
    assert!(response.windows(batch.len()).any(|bytes| bytes == batch));
    assert_eq!(plugin.batch(topic(), 77, 0)?, None);
    assert_eq!(count.load(Ordering::Relaxed), 1);

    let snapshot = plugin.snapshot()?.unwrap();
    plugin.invalidate(Some(topic()), Some(0))?;
    assert_eq!(plugin.batch(topic(), 0, 0)?, None);
    assert!(plugin.restore(&snapshot)?.unwrap().batches >= 5);
    assert_eq!(plugin.batch(topic(), 0, 0)?.unwrap(), batch);
    Ok(())
}

#[test]
fn malformed_input_and_a_failing_upstream_are_errors_and_leave_the_cache_usable() -> Result<()> {
    let Some((runtime, component)) = set_up() else {
        return Ok(());
    };
    let answers = Arc::new(std::sync::Mutex::new(Vec::<Result<Vec<u8>>>::new()));
    let prepared = Arc::clone(&answers);
    let upstream = move |_| prepared.lock().unwrap().remove(0);
    let mut plugin = runtime.plugin(
        component,
        Limits::default(),
        &settings(1 << 20),
        Box::new(upstream),
    )?;
    let request = frame(NAME, "request");
    let mut code = |answer: Result<Vec<u8>>| -> Result<String> {
        answers.lock().unwrap().push(answer);
        Ok(plugin.fetch(&request)?.unwrap_err().code)
    };
    let response = frame(NAME, "response");
    for cut in (0..response.len()).step_by(11) {
        assert_eq!(code(Ok(response[..cut].to_vec()))?, "MALFORMED_RESPONSE", "{cut}");
    }
    assert_eq!(code(Ok(vec![0; 17 << 20]))?, "TOO_LONG");
    assert_eq!(code(Err(anyhow::anyhow!("no route")))?, "UPSTREAM");
    for cut in [0, 3, 9, 14, 40] {
        assert_eq!(
            plugin.fetch(&request[..cut])?.unwrap_err().code,
            "MALFORMED_REQUEST",
            "{cut}"
        );
    }
    let nobody = TopicId { high: 0, low: 0 };
    assert_eq!(plugin.record(nobody, 0, 0)?.unwrap_err().code, "INVALID_ARGUMENT");
    assert_eq!(
        plugin.restore(b"nothing")?.unwrap_err().code,
        "MALFORMED_SNAPSHOT"
    );
    answers.lock().unwrap().push(Ok(response.clone()));
    assert_eq!(plugin.fetch(&request)?.unwrap(), response);
    // All of it is cached: upstream has no answer left.
    assert!(plugin.fetch(&request)?.is_ok());
    Ok(())
}

/// Another component in the same process: one that never ends, and one that takes all memory that it gets.
const HOSTILE: &str = r#"(component
    (core module $hostile
        (memory (export "memory") 1)
        (func (export "spin") (loop $again (br $again)))
        (func (export "hog") (result i32)
            (loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
            (memory.size)))
    (core instance $instance (instantiate $hostile))
    (func (export "spin") (canon lift (core func $instance "spin")))
    (func (export "hog") (result u32) (canon lift (core func $instance "hog"))))"#;

fn hostile_store(runtime: &Runtime, limits: &Limits) -> (wasmtime::Store<HostState>, component::Instance) {
    let component = runtime.compile(HOSTILE).unwrap();
    let mut store = runtime.store(limits, counting().0).unwrap();
    let instance = Linker::new(runtime.engine())
        .instantiate(&mut store, &component)
        .unwrap();
    (store, instance)
}

#[test]
fn plugins_that_spin_or_take_all_memory_end_by_themselves_and_leave_the_others_alone() -> Result<()> {
    let Some((runtime, component)) = set_up() else {
        return Ok(());
    };
    let mut peers = [plugin(runtime, component), plugin(runtime, component)];
    let expected = peers[0].record(topic(), 0, 0)?.unwrap();

    // By instructions, then by time.
    let by_fuel = Limits {
        fuel: 1_000_000,
        ..Limits::default()
    };
    let by_time = Limits {
        fuel: u64::MAX,
        time: Duration::from_millis(50),
        ..Limits::default()
    };
    for (limits, trap) in [(by_fuel, Trap::OutOfFuel), (by_time, Trap::Interrupt)] {
        let (mut store, instance) = hostile_store(runtime, &limits);
        let spin = instance.get_typed_func::<(), ()>(&mut store, "spin").unwrap();
        refill(&mut store, &limits)?;
        let error = spin.call(&mut store, ()).unwrap_err();
        assert_eq!(error.downcast_ref::<Trap>(), Some(&trap), "{error:?}");
    }
    let limits = Limits {
        memory_bytes: 8 << 20,
        ..Limits::default()
    };
    let (mut store, instance) = hostile_store(runtime, &limits);
    let hog = instance.get_typed_func::<(), (u32,)>(&mut store, "hog").unwrap();
    let (pages,) = hog.call(&mut store, ()).unwrap();
    assert!(pages as usize * 65_536 <= limits.memory_bytes, "{pages} pages");

    for peer in &mut peers {
        assert_eq!(
            format!("{:?}", peer.record(topic(), 0, 0)?.unwrap()),
            format!("{expected:?}")
        );
    }
    Ok(())
}

#[test]
fn a_cache_whose_limit_is_beyond_its_memory_ends_its_own_instance_only() -> Result<()> {
    let Some((runtime, component)) = set_up() else {
        return Ok(());
    };
    let mut peer = plugin(runtime, component);
    let limits = Limits {
        memory_bytes: 4 << 20,
        ..Limits::default()
    };
    // Garbage of more than the instance has room for, within what the settings take.
    let upstream: Upstream = Box::new(|_| Ok(vec![0; 12 << 20]));
    let mut greedy = runtime.plugin(component, limits, &Settings { ..settings(1 << 30) }, upstream)?;
    assert!(greedy.fetch(&frame(NAME, "request")).is_err());
    assert!(
        greedy.fetch(&frame(NAME, "request")).is_err(),
        "an instance that trapped runs no more"
    );
    assert!(peer.record(topic(), 0, 0)?.unwrap().is_some());
    Ok(())
}

#[test]
fn absorbing_and_evicting_leaves_memory_flat() -> Result<()> {
    let Some((runtime, component)) = set_up() else {
        return Ok(());
    };
    // As much as the module needs and little more, so that any leak ends in a trap: a fixture has 2 kB.
    let limits = Limits {
        memory_bytes: 3 << 20,
        ..Limits::default()
    };
    let (upstream, count) = counting();
    let tight = Settings {
        segment_size_bytes: Some(512),
        ..settings(4096)
    };
    let mut plugin = runtime.plugin(component, limits, &tight, upstream)?;
    let request = frame(NAME, "request");
    for _ in 0..5_000 {
        plugin.fetch(&request)?.unwrap();
        plugin.invalidate(None, None)?;
    }
    assert_eq!(count.load(Ordering::Relaxed), 5_000);
    assert!(plugin.figure("size_bytes")? <= 4096);
    assert!(plugin.figure("inserts")? > 5_000);
    Ok(())
}
